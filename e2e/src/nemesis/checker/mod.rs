//! Whether a history with faults may have happened, by the promises of the design. A pure function of the history.
//!
//! For every device: an answered send reaches it exactly once if it was active then and not revoked since; an unknown one at most once;
//! a refused one never. One sender's messages keep their order. Numbers have no holes but explained ones, and one number never
//! stands for two entries. Bytes, sender, conversation and message id are the right ones. A socket that stands open is not forgotten.
//! [`revoked`] judges what revoked devices got, [`order`] the order.

mod order;
mod revoked;
mod verdict;

use std::collections::{BTreeMap, HashMap, HashSet};

use martlet_protocol::{
    id::{ClientMessageId, DeviceId, MessageId},
    wire::GapReason,
};

pub use verdict::{Class, Verdict, Violation};

use super::history::{Delivery, DeviceHistory, GapSeen, History, Operation, Outcome};

/// Refusals that a careful sender must expect: the node can't now, or the recipients have changed.
const EXPECTED: &[&str] = &["busy", "unavailable", "rate_limited", "mismatch"];
/// What a device may hear whose revocation was asked for.
const EXPECTED_OF_REVOKED: &[&str] = &["unauthenticated", "not_found", "forbidden"];
/// A socket that stands open and is read gets an answered message within this: heads are compared every few seconds, and a fault may
/// stop the comparison for a while.
const STALL_MS: u64 = 30_000;
/// After the last heal every device must be reached within this, and an open socket gets an answered message.
const BACK_MS: u64 = 10_000;

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
    twice: HashSet<usize>,
    verdict: Verdict,
}

/// What one device's application got: operation and when, in order; none for what nobody sent.
type Applied<'a> = Vec<(Option<usize>, &'a Delivery)>;

impl<'a> Checker<'a> {
    fn new(history: &'a History) -> Self {
        let named = |(index, operation): (usize, &Operation)| ((operation.sender, operation.client_message_id), index);
        let by_client_id = history.operations.iter().enumerate().map(named).collect();
        let verdict = Verdict { operations: history.operations.len(), ..Verdict::default() };
        Self { history, by_client_id, message_ids: HashMap::new(), twice: HashSet::new(), verdict }
    }

    fn run(mut self) -> Verdict {
        self.outcomes();
        let mut first_given: Vec<HashMap<usize, u64>> = Vec::with_capacity(self.history.devices.len());
        for (device, (id, part)) in self.history.devices.iter().enumerate() {
            self.verdict.on_the_wire += part.deliveries.len();
            self.numbers(device, part);
            let applied = self.entries(device, id, part);
            self.verdict.applied += applied.len();
            let reordered = order::reordered(self.history, device, &applied);
            self.verdict.violations.extend(reordered);
            self.verdict.violations.extend(revoked::violations(self.history, device, part, &applied));
            self.verdict.revoked +=
                usize::from(part.revoked.is_some_and(|revocation| revocation.answered_ms.is_some()));
            let odd = part.oddities.iter().map(|what| Violation::Odd { device, what: what.clone() });
            self.verdict.violations.extend(odd);
            first_given.push(applied.iter().filter_map(|(index, given)| Some(((*index)?, given.at_ms))).collect());
        }
        self.completeness(&first_given);
        self.progress();
        self.recovery();
        self.verdict
    }

    fn outcomes(&mut self) {
        for (index, operation) in self.history.operations.iter().enumerate() {
            match &operation.outcome {
                Outcome::Ok { .. } => self.verdict.ok += 1,
                Outcome::Unknown => self.verdict.unknown += 1,
                Outcome::Invoked => self.verdict.violations.push(Violation::Unsettled { operation: index }),
                Outcome::Failed { code } => {
                    self.verdict.failed += 1;
                    let revoked = self.history.is_revoked(&operation.sender);
                    let expected =
                        EXPECTED.contains(&code.as_str()) || revoked && EXPECTED_OF_REVOKED.contains(&code.as_str());
                    if !expected {
                        let code = code.clone();
                        self.verdict.violations.push(Violation::Refused { operation: index, code });
                    }
                }
            }
            if operation.answered_otherwise.is_some() {
                self.accepted_twice(index);
            }
        }
    }

    fn accepted_twice(&mut self, operation: usize) {
        if self.twice.insert(operation) {
            self.verdict.violations.push(Violation::AcceptedTwice { operation });
        }
    }

    /// One number, one entry, and no number without either entry or marker.
    fn numbers(&mut self, device: usize, part: &DeviceHistory) {
        let mut seen: BTreeMap<u64, MessageId> = BTreeMap::new();
        let mut renumbered = HashSet::new();
        for Delivery { entry, .. } in &part.deliveries {
            let before = seen.insert(entry.seq, entry.message_id);
            if before.is_some_and(|before| before != entry.message_id) && renumbered.insert(entry.seq) {
                self.verdict.violations.push(Violation::Renumbered { seq: entry.seq, device });
            }
        }
        for gap in &part.gaps {
            let GapSeen { from_seq, to_seq, reason } = *gap;
            // Asking from before one's own ack is answered so; the entries were delivered then.
            let delivered = reason == GapReason::Acked && (from_seq..=to_seq).all(|seq| seen.contains_key(&seq));
            if delivered || reason == GapReason::Quota || reason == GapReason::Expired {
                self.verdict.gaps += 1;
            } else {
                self.verdict.violations.push(Violation::Gap { from_seq, to_seq, reason, device });
            }
        }
        let in_gap = |seq: u64| part.gaps.iter().any(|gap| (gap.from_seq..=gap.to_seq).contains(&seq));
        let head = part.head_seq.unwrap_or(0);
        let holes = (1..=head).filter(|seq| !seen.contains_key(seq) && !in_gap(*seq));
        let holes = holes.chain(part.jumps.iter().map(|(expected, _)| *expected));
        self.verdict.violations.extend(holes.map(|seq| Violation::Hole { seq, device }));
    }

    /// What the application got after dropping repeated message ids, and the send that each entry belongs to.
    fn entries(&mut self, device: usize, id: &DeviceId, part: &'a DeviceHistory) -> Applied<'a> {
        let (mut message_ids, mut given) = (HashSet::new(), HashSet::new());
        let mut applied = Vec::new();
        for delivery in &part.deliveries {
            let entry = &delivery.entry;
            if !message_ids.insert(entry.message_id) {
                continue;
            }
            let found = self.by_client_id.get(&(entry.sender, entry.client_message_id)).copied();
            let owned = found.filter(|index| {
                let operation = &self.history.operations[*index];
                operation.devices.contains(id) && !matches!(operation.outcome, Outcome::Failed { .. })
            });
            applied.push((owned, delivery));
            let Some(index) = owned else {
                self.verdict.violations.push(Violation::Phantom { seq: entry.seq, device });
                continue;
            };
            self.entry(index, device, delivery);
            if !given.insert(index) {
                self.verdict.violations.push(Violation::Repeated { operation: index, device });
            }
        }
        applied
    }

    fn entry(&mut self, index: usize, device: usize, delivery: &Delivery) {
        let (operation, entry) = (&self.history.operations[index], &delivery.entry);
        let is_right = entry.header_is_right
            && entry.content == operation.content
            && entry.conversation_id == operation.conversation_id;
        if !is_right {
            self.verdict.violations.push(Violation::Altered { operation: index, device });
        }
        let answered = match &operation.outcome {
            Outcome::Ok { message_id, .. } => *message_id,
            _ => entry.message_id,
        };
        let before = *self.message_ids.entry(index).or_insert(answered);
        if before != entry.message_id || answered != entry.message_id {
            self.accepted_twice(index);
        }
    }

    /// Answered: on every device that is not revoked, and soon where a socket stands open. Unknown: on every such device or none.
    fn completeness(&mut self, given: &[HashMap<usize, u64>]) {
        let active = self.history.devices.iter().enumerate().filter(|(_, (_, part))| part.revoked.is_none());
        let active: HashMap<DeviceId, (usize, &DeviceHistory)> =
            active.map(|(number, (id, part))| (*id, (number, part))).collect();
        for (index, operation) in self.history.operations.iter().enumerate() {
            let owed =
                operation.devices.iter().filter_map(|id| active.get(id).map(|(number, part)| (id, *number, part)));
            match &operation.outcome {
                Outcome::Ok { partial, .. } => {
                    for (_, device, part) in owed.filter(|(id, ..)| !partial.contains(id)) {
                        let at_ms = given[device].get(&index).copied();
                        if at_ms.is_none() {
                            self.verdict.violations.push(Violation::Lost { operation: index, device });
                        }
                        if self.stalled(operation, at_ms, &part.sessions) {
                            self.verdict.violations.push(Violation::Stalled { operation: index, device });
                        }
                    }
                }
                Outcome::Unknown => {
                    let (with, without): (Vec<_>, Vec<_>) =
                        owed.partition(|(_, device, _)| given[*device].contains_key(&index));
                    self.verdict.unknown_appeared += usize::from(!with.is_empty());
                    if let (false, Some((_, device, _))) = (with.is_empty(), without.first()) {
                        self.verdict.violations.push(Violation::Torn { operation: index, device: *device });
                    }
                }
                Outcome::Failed { .. } | Outcome::Invoked => {}
            }
        }
    }

    /// Whether a socket stood open from the answer on for too long and did not get the message.
    fn stalled(&self, operation: &Operation, given_ms: Option<u64>, sessions: &[(u64, u64)]) -> bool {
        let in_peace = operation.settled_ms >= self.history.faults_ms.1;
        let (from, until) = (operation.settled_ms, operation.settled_ms + if in_peace { BACK_MS } else { STALL_MS });
        given_ms.is_none_or(|at_ms| at_ms > until)
            && sessions.iter().any(|(opened, closed)| *opened < from && *closed >= until)
    }

    /// The longest times in which nothing went forward while faults went on.
    fn progress(&mut self) {
        let (from, to) = self.history.faults_ms;
        let answered =
            self.history.operations.iter().filter(|operation| matches!(operation.outcome, Outcome::Ok { .. }));
        self.verdict.without_answer_ms = longest_pause(answered.map(|operation| operation.settled_ms), from, to);
        let given = self.history.devices.values().flat_map(|part| &part.deliveries).map(|given| given.at_ms);
        self.verdict.without_delivery_ms = longest_pause(given, from, to);
    }

    /// Every device must be reached again soon after the last heal, and no node may have ended by itself.
    fn recovery(&mut self) {
        let again = self.history.delivered_again();
        for (device, (id, part)) in self.history.devices.iter().enumerate() {
            let back = again.get(id).copied();
            self.verdict.back_ms = self.verdict.back_ms.max(back.unwrap_or(0));
            if part.revoked.is_none() && back.is_none_or(|after_ms| after_ms > BACK_MS) {
                self.verdict.violations.push(Violation::NotBack { device, after_ms: back });
            }
        }
        let ended =
            self.history.nodes_ended.iter().map(|(node, at_ms)| Violation::NodeEnded { node: *node, at_ms: *at_ms });
        self.verdict.violations.extend(ended);
    }
}

fn longest_pause(moments: impl Iterator<Item = u64>, from: u64, to: u64) -> u64 {
    let mut moments: Vec<u64> = moments.filter(|at| (from..=to).contains(at)).chain([from, to]).collect();
    moments.sort_unstable();
    moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}
