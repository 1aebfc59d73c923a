//! One sender's messages keep their order in every mailbox.

use std::collections::HashMap;

use martlet_protocol::id::DeviceId;

use super::{Applied, Violation};
use crate::nemesis::history::{History, Operation, Outcome};

/// Pairs of messages of one sender that a device got the wrong way round.
pub(super) fn reordered(history: &History, device: usize, applied: &Applied<'_>) -> Vec<Violation> {
    let mut newest: HashMap<DeviceId, usize> = HashMap::new();
    let mut violations = Vec::new();
    for (index, delivery) in applied {
        let Some(index) = *index else { continue };
        let newest = newest.entry(delivery.entry.sender).or_insert(index);
        if index < *newest && must_precede(&history.operations[index], &history.operations[*newest]) {
            violations.push(Violation::Reordered { earlier: index, later: *newest, device });
        }
        *newest = index.max(*newest);
    }
    violations
}

/// Whether the earlier of two sends must come first.
///
/// What was given up may be committed late, and a message that was refused and sent again while others were under way is overtaken by
/// its sender's own doing, unless the other was written after it was answered.
fn must_precede(earlier: &Operation, later: &Operation) -> bool {
    let answered = matches!(earlier.outcome, Outcome::Ok { .. });
    answered && (!earlier.overtaken || earlier.settled_ms < later.invoked_ms)
}
