//! A revoked device gets nothing more: nothing that was sent after its revocation was answered, and nothing written to it more than a
//! second after that.

use super::{Applied, Violation};
use crate::nemesis::history::{DeviceHistory, History};

/// How long what was accepted before may still be written.
const GRACE_MS: u64 = 1_000;

/// What a device got that it must not have.
pub(super) fn violations(
    history: &History,
    device: usize,
    part: &DeviceHistory,
    applied: &Applied<'_>,
) -> Vec<Violation> {
    let Some(answered_ms) = part.revoked.and_then(|revocation| revocation.answered_ms) else { return Vec::new() };
    let mut violations = Vec::new();
    for index in applied.iter().filter_map(|(index, _)| *index) {
        if history.operations[index].invoked_ms > answered_ms {
            violations.push(Violation::AcceptedAfterRevocation { operation: index, device });
        }
    }
    for delivery in &part.deliveries {
        let late_ms = delivery.written_after_ms.saturating_sub(answered_ms);
        if late_ms > GRACE_MS {
            violations.push(Violation::WrittenAfterRevocation { seq: delivery.entry.seq, device, late_ms });
        }
    }
    if let Some(at_ms) = part.served_after_revocation_ms {
        violations.push(Violation::ServedAfterRevocation { device, late_ms: at_ms.saturating_sub(answered_ms) });
    }
    violations
}
