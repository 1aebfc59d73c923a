//! What a run prints: figures always, and for what was wrong the histories around it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{
    checker::{Class, Verdict, Violation},
    faults::Kind,
    history::{DeviceHistory, History, Operation, Outcome},
    world::ClientFaults,
};

/// Violations whose histories are shown.
const SHOWN: usize = 6;
/// Entries shown before and after the one in question.
const AROUND: usize = 3;

/// What a run came to.
pub struct Report {
    /// How long faults went on, in seconds.
    pub seconds: u64,
    /// What repeats the run's choices.
    pub seed: u64,
    /// Nodes.
    pub nodes: usize,
    /// The judgement.
    pub verdict: Verdict,
    /// Faults by kind.
    pub faults: BTreeMap<Kind, u64>,
    /// What clients did.
    pub clients: ClientFaults,
    /// Refusals of sends by code.
    pub refusals: BTreeMap<String, u64>,
}

impl Report {
    /// Whether nothing was wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.verdict.violations.is_empty()
    }

    /// The figures.
    #[must_use]
    pub fn summary(&self) -> String {
        let Verdict { operations, ok, unknown, unknown_appeared, failed, on_the_wire, applied, gaps, .. } =
            self.verdict;
        let verdict = &self.verdict;
        let list = |counts: Vec<String>| if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
        let faults = list(self.faults.iter().map(|(kind, count)| format!("{} {count}", kind.name())).collect());
        let refusals = list(self.refusals.iter().map(|(code, count)| format!("{code} {count}")).collect());
        let total: u64 = self.faults.values().sum();
        let ClientFaults { vanished, ghosts, revoked, asked_again } = self.clients;
        let lines = [
            ("run", format!("{} s of faults, seed {}, {} node(s)", self.seconds, self.seed, self.nodes)),
            (
                "operations",
                format!(
                    "{operations}: answered {ok}, unknown {unknown} ({unknown_appeared} appeared), refused {failed}"
                ),
            ),
            ("refusals", refusals),
            (
                "delivered",
                format!("{on_the_wire} over the wire, {applied} to applications, {gaps} explained gap markers"),
            ),
            ("faults", format!("{total}: {faults}")),
            (
                "clients",
                format!(
                    "vanished {vanished}, left a dead connection {ghosts}, revoked {revoked}, asked again {asked_again}"
                ),
            ),
            ("lost", verdict.count(Class::Lost).to_string()),
            ("repeated after dedupe", verdict.count(Class::Repeated).to_string()),
            ("out of order", verdict.count(Class::OutOfOrder).to_string()),
            ("delivered to revoked", verdict.count(Class::ToRevoked).to_string()),
            ("otherwise wrong", verdict.count(Class::Other).to_string()),
            (
                "longest without progress",
                format!(
                    "{} s without an answered send, {} s without a delivery",
                    seconds(verdict.without_answer_ms),
                    seconds(verdict.without_delivery_ms)
                ),
            ),
            ("all devices reached", format!("{} s after the last heal", seconds(verdict.back_ms))),
        ];
        lines.iter().fold(String::new(), |text, (name, value)| format!("{text}{name:<26}{value}\n"))
    }

    /// The first of each kind of violation, with what surrounds it.
    #[must_use]
    pub fn histories(&self, history: &History) -> String {
        let mut text = String::new();
        let mut kinds = Vec::new();
        for violation in &self.verdict.violations {
            let kind = std::mem::discriminant(violation);
            let so_far = kinds.iter().filter(|known| **known == kind).count();
            kinds.push(kind);
            if so_far < 2 && kinds.len() <= 100 * SHOWN {
                show(&mut text, violation, history);
            }
        }
        text
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{}", ms / 1000, ms % 1000 / 100)
}

fn show(text: &mut String, violation: &Violation, history: &History) {
    // Writing to a String can't fail.
    let _ = writeln!(text, "\n{violation:?}");
    let (operation, device) = concerned(violation);
    if let Some(operation) = operation.and_then(|index| history.operations.get(index)) {
        let Operation { invoked_ms, settled_ms, overtaken, outcome, devices, .. } = operation;
        let (client_id, sender) = (short(operation.client_message_id.to_text()), short(operation.sender.to_text()));
        let outcome = match outcome {
            Outcome::Ok { message_id, partial } => {
                format!("answered with message {}, {} markers", short(message_id.to_text()), partial.len())
            }
            other => format!("{other:?}"),
        };
        let _ = writeln!(
            text,
            "  sent as {client_id} by {sender} to {} devices at {invoked_ms} ms; at {settled_ms} ms {outcome}{}",
            devices.len(),
            if *overtaken { "; may be overtaken" } else { "" }
        );
    }
    let Some((id, part)) = device.and_then(|device| history.devices.iter().nth(device)) else { return };
    let _ = writeln!(
        text,
        "  device {}: head {:?}, revoked {:?}, sessions {:?}",
        short(id.to_text()),
        part.head_seq,
        part.revoked,
        last(&part.sessions)
    );
    let _ = writeln!(text, "  gaps {:?}, jumps {:?}", last(&part.gaps), last(&part.jumps));
    for at in places(violation, operation.and_then(|_| concerned(violation).0), history, part).into_iter().take(3) {
        for delivery in &part.deliveries[at.saturating_sub(AROUND)..(at + AROUND + 1).min(part.deliveries.len())] {
            let (entry, mark) = (&delivery.entry, if std::ptr::eq(delivery, &part.deliveries[at]) { '>' } else { ' ' });
            let _ = writeln!(
                text,
                "  {mark} seq {} at {} ms (written after {}), message {}, sent as {} by {}",
                entry.seq,
                delivery.at_ms,
                delivery.written_after_ms,
                short(entry.message_id.to_text()),
                short(entry.client_message_id.to_text()),
                short(entry.sender.to_text())
            );
        }
        let _ = writeln!(text, "    …");
    }
}

/// Enough of an id to tell it from others.
fn short(id: String) -> String {
    id.chars().take(8).collect()
}

fn last<T>(items: &[T]) -> &[T] {
    &items[items.len().saturating_sub(6)..]
}

/// Where in the device's history the violation is to be seen.
fn places(violation: &Violation, operation: Option<usize>, history: &History, part: &DeviceHistory) -> Vec<usize> {
    let seq = match violation {
        Violation::Hole { seq, .. }
        | Violation::Phantom { seq, .. }
        | Violation::Renumbered { seq, .. }
        | Violation::WrittenAfterRevocation { seq, .. } => Some(*seq),
        Violation::Gap { from_seq, .. } => Some(*from_seq),
        _ => None,
    };
    let client_message_id = operation.map(|index| history.operations[index].client_message_id);
    let suits = |entry: &crate::wire::message::Opened| {
        seq.is_some_and(|seq| entry.seq == seq || entry.seq == seq + 1)
            || Some(entry.client_message_id) == client_message_id
    };
    (0..part.deliveries.len()).filter(|at| suits(&part.deliveries[*at].entry)).collect()
}

/// Operation and device that a violation names.
fn concerned(violation: &Violation) -> (Option<usize>, Option<usize>) {
    match violation {
        Violation::Lost { operation, device }
        | Violation::Stalled { operation, device }
        | Violation::Torn { operation, device }
        | Violation::Repeated { operation, device }
        | Violation::AcceptedAfterRevocation { operation, device }
        | Violation::Altered { operation, device } => (Some(*operation), Some(*device)),
        Violation::Reordered { earlier, device, .. } => (Some(*earlier), Some(*device)),
        Violation::AcceptedTwice { operation }
        | Violation::Refused { operation, .. }
        | Violation::Unsettled { operation } => (Some(*operation), None),
        Violation::Hole { device, .. }
        | Violation::Gap { device, .. }
        | Violation::WrittenAfterRevocation { device, .. }
        | Violation::ServedAfterRevocation { device, .. }
        | Violation::Phantom { device, .. }
        | Violation::Renumbered { device, .. }
        | Violation::Odd { device, .. }
        | Violation::NotBack { device, .. } => (None, Some(*device)),
        Violation::NodeEnded { .. } => (None, None),
    }
}
