//! Whether a history may have happened, by the promises of the design.
//!
//! For every device that was to get a message: an answered send reaches the application exactly once, an unknown one at most once and
//! on all devices or none, a refused one never; one sender device's messages in one conversation keep their order; nothing arrives
//! that nobody sent; bytes, sender, conversation and message id are the right ones; a number in a mailbox always means the same
//! entry; and numbers have no holes but explained ones.

use std::collections::{BTreeMap, HashMap, HashSet};

use martlet_protocol::{
    id::{ClientMessageId, ConversationId, DeviceId, MessageId},
    wire::GapReason,
};

use crate::{
    history::{DeviceHistory, GapSeen, History, Operation, Outcome},
    wire::message::Opened,
};

/// Refusals that say "later", which a node may give at any time.
const LATER: &[&str] = &["busy", "unavailable", "rate_limited"];

/// A promise that was broken. Numbers of operations and devices are those of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant's sentence covers its fields")]
pub enum Violation {
    /// Answered, but the device's application never got it.
    Lost { operation: usize, device: usize },
    /// The device's application got it twice.
    Repeated { operation: usize, device: usize },
    /// A device got the later of two messages of one sender and conversation first.
    Reordered { earlier: usize, later: usize, device: usize },
    /// Nobody sent it to this device, or it was refused.
    Phantom { seq: u64, device: usize },
    /// Another content, sender, conversation, header or message id than was sent and answered.
    Altered { operation: usize, device: usize },
    /// One send was accepted under two message ids.
    AcceptedTwice { operation: usize },
    /// Accepted for some devices and not for others.
    Torn { operation: usize, device: usize },
    /// One number of a mailbox stood for two entries.
    Renumbered { seq: u64, device: usize },
    /// Numbers that neither an entry nor a marker accounts for, or an entry that did not follow the one before it.
    Hole { seq: u64, device: usize },
    /// A gap marker that this run gives no reason for.
    Gap { from_seq: u64, to_seq: u64, reason: GapReason, device: usize },
    /// Refused for a reason that this run does not give.
    Refused { operation: usize, code: String },
    /// The test ended before the send did.
    Unsettled { operation: usize },
}

/// What a run came to.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Sends.
    pub operations: usize,
    /// Answered.
    pub ok: usize,
    /// Given up after a lost answer.
    pub unknown: usize,
    /// Refused.
    pub failed: usize,
    /// Entries that came over the wire.
    pub on_the_wire: usize,
    /// Messages that applications got.
    pub applied: usize,
    /// Everything that was wrong.
    pub violations: Vec<Violation>,
}

impl Verdict {
    /// Answered messages that a device did not get.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.violations.iter().filter(|violation| matches!(violation, Violation::Lost { .. })).count()
    }

    /// Messages that an application got twice.
    #[must_use]
    pub fn repeated(&self) -> usize {
        let repeated =
            |violation: &&Violation| matches!(violation, Violation::Repeated { .. } | Violation::AcceptedTwice { .. });
        self.violations.iter().filter(repeated).count()
    }
}

/// Judges a history.
#[must_use]
pub fn check(history: &History) -> Verdict {
    Checker::new(history).run()
}

struct Checker<'a> {
    history: &'a History,
    by_client_id: HashMap<(DeviceId, ClientMessageId), usize>,
    /// Message ids that devices were given, by operation.
    message_ids: HashMap<usize, MessageId>,
    violations: Vec<Violation>,
}

impl<'a> Checker<'a> {
    fn new(history: &'a History) -> Self {
        let named = |(index, operation): (usize, &Operation)| ((operation.sender, operation.client_message_id), index);
        let by_client_id = history.operations.iter().enumerate().map(named).collect();
        Self { history, by_client_id, message_ids: HashMap::new(), violations: Vec::new() }
    }

    fn run(mut self) -> Verdict {
        let mut verdict = Verdict { operations: self.history.operations.len(), ..Verdict::default() };
        for (index, operation) in self.history.operations.iter().enumerate() {
            match &operation.outcome {
                Outcome::Ok { .. } => verdict.ok += 1,
                Outcome::Unknown => verdict.unknown += 1,
                Outcome::Invoked => self.violations.push(Violation::Unsettled { operation: index }),
                Outcome::Failed { code } => {
                    verdict.failed += 1;
                    if !LATER.contains(&code.as_str()) {
                        self.violations.push(Violation::Refused { operation: index, code: code.clone() });
                    }
                }
            }
        }
        let mut applied = Vec::new();
        for (index, (device, part)) in self.history.devices.iter().enumerate() {
            verdict.on_the_wire += part.wire.len();
            verdict.applied += part.applied.len();
            self.numbers(index, part);
            let given = self.entries(index, device, part);
            self.order(index, part, &given);
            applied.push(given.into_iter().flatten().collect::<HashSet<_>>());
        }
        self.completeness(&applied);
        verdict.violations = self.violations;
        verdict
    }

    /// One number, one entry, and no number without either entry or marker.
    fn numbers(&mut self, device: usize, part: &DeviceHistory) {
        let mut seen: BTreeMap<u64, MessageId> = BTreeMap::new();
        for entry in &part.wire {
            let before = seen.insert(entry.seq, entry.message_id);
            if before.is_some_and(|before| before != entry.message_id) {
                self.violations.push(Violation::Renumbered { seq: entry.seq, device });
            }
        }
        for gap in &part.gaps {
            let GapSeen { from_seq, to_seq, reason } = *gap;
            // Asking from before one's own ack is answered so; the entries were delivered then.
            let explained = reason == GapReason::Acked && (from_seq..=to_seq).all(|seq| seen.contains_key(&seq));
            let to_be_expected = reason == GapReason::Quota || reason == GapReason::Expired;
            if !explained && !to_be_expected {
                self.violations.push(Violation::Gap { from_seq, to_seq, reason, device });
            }
        }
        let in_gap = |seq: u64| part.gaps.iter().any(|gap| (gap.from_seq..=gap.to_seq).contains(&seq));
        let holes = (1..=part.head_seq).filter(|seq| !seen.contains_key(seq) && !in_gap(*seq));
        let holes = holes.chain(part.jumps.iter().map(|(expected, _)| *expected));
        self.violations.extend(holes.map(|seq| Violation::Hole { seq, device }));
    }

    /// Every entry belongs to a send; gives the send of each.
    fn entries(&mut self, device: usize, id: &DeviceId, part: &DeviceHistory) -> Vec<Option<usize>> {
        let mut given = HashSet::new();
        part.applied
            .iter()
            .map(|entry| {
                let found = self.by_client_id.get(&(entry.sender, entry.client_message_id)).copied();
                let operation = found.filter(|index| {
                    let operation = &self.history.operations[*index];
                    operation.devices.contains(id) && !matches!(operation.outcome, Outcome::Failed { .. })
                });
                let Some(index) = operation else {
                    self.violations.push(Violation::Phantom { seq: entry.seq, device });
                    return None;
                };
                self.entry(index, device, entry);
                if !given.insert(index) {
                    self.violations.push(Violation::Repeated { operation: index, device });
                }
                Some(index)
            })
            .collect()
    }

    fn entry(&mut self, index: usize, device: usize, entry: &Opened) {
        let operation = &self.history.operations[index];
        let answered = match &operation.outcome {
            Outcome::Ok { message_id, .. } => *message_id,
            _ => entry.message_id,
        };
        let is_right = entry.header_is_right
            && entry.content == operation.content
            && entry.conversation_id == operation.conversation_id
            && entry.message_id == answered;
        if !is_right {
            self.violations.push(Violation::Altered { operation: index, device });
        }
        let before = *self.message_ids.entry(index).or_insert(entry.message_id);
        if before != entry.message_id {
            self.violations.push(Violation::AcceptedTwice { operation: index });
        }
    }

    /// Operations stand in the history in the order of invocation, so a sender's numbers must rise.
    fn order(&mut self, device: usize, part: &DeviceHistory, given: &[Option<usize>]) {
        let mut newest: HashMap<(DeviceId, ConversationId), usize> = HashMap::new();
        for (entry, index) in part.applied.iter().zip(given) {
            let Some(index) = *index else { continue };
            let newest = newest.entry((entry.sender, entry.conversation_id)).or_insert(index);
            if index < *newest {
                self.violations.push(Violation::Reordered { earlier: index, later: *newest, device });
            }
            *newest = index.max(*newest);
        }
    }

    /// Answered: on every device. Unknown: on every device or none.
    fn completeness(&mut self, applied: &[HashSet<usize>]) {
        let numbers: HashMap<_, _> =
            self.history.devices.keys().enumerate().map(|(number, device)| (*device, number)).collect();
        for (index, operation) in self.history.operations.iter().enumerate() {
            let owed = operation.devices.iter().filter_map(|id| numbers.get(id).map(|number| (id, *number)));
            match &operation.outcome {
                Outcome::Ok { partial, .. } => {
                    let lost = owed.filter(|(id, number)| !partial.contains(id) && !applied[*number].contains(&index));
                    self.violations.extend(lost.map(|(_, device)| Violation::Lost { operation: index, device }));
                }
                Outcome::Unknown => {
                    let (with, without): (Vec<_>, Vec<_>) =
                        owed.partition(|(_, number)| applied[*number].contains(&index));
                    if let (false, Some((_, device))) = (with.is_empty(), without.first()) {
                        self.violations.push(Violation::Torn { operation: index, device: *device });
                    }
                }
                Outcome::Failed { .. } | Outcome::Invoked => {}
            }
        }
    }
}
