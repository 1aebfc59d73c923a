//! What the mixture came to, for people, for `grep` and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::{
    drive::Drive,
    lane::{Kind, Lane},
    scene::Scene,
};
use crate::{
    cli::MixedArgs,
    costs::{Clock, Costs, Troubles},
    figures::{Percentiles, grouped, grouped_f64, rate},
    send::Verified,
};

/// All of it.
#[derive(Debug, Serialize)]
pub struct MixedResult {
    /// Accounts, two by two in direct conversations.
    pub accounts: u32,
    /// Their devices, each on a socket of its own.
    pub devices: usize,
    /// Large groups that they are in.
    pub groups: usize,
    /// Stored messages to the devices of a direct conversation.
    pub direct: Option<KindResult>,
    /// Messages to the logs of large groups.
    pub group: Option<KindResult>,
    /// Typing and presence, which are not stored.
    pub presence: Option<KindResult>,
    /// Entries of all kinds that came a second in the time that counts, echoes not counted.
    pub entries_per_second: f64,
    /// Processor time and memory.
    #[serde(flatten)]
    pub costs: Costs,
    /// The check afterwards.
    pub verified: Verified,
    /// What went wrong, and how often.
    pub troubles: Troubles,
}

/// The messages of one kind.
#[derive(Debug, Serialize)]
pub struct KindResult {
    /// That were due a second.
    pub due_per_second: u32,
    /// Messages, those of the warm-up included.
    pub messages: u64,
    /// Messages accepted.
    pub accepted: u64,
    /// Entries that came to devices, echoes to the sending devices included.
    pub entries: u64,
    /// Entries that never came.
    pub lost: u64,
    /// Entries that came beside those that were due.
    pub surplus: u64,
    /// From the moment a message was due to its arrival at a device other than its sender.
    pub delivery: Percentiles,
    /// From the moment a message was due to the answer: that it is durable, or of typing and presence that it is on its way.
    pub answers: Percentiles,
    /// From the moment a message was due to its sending: this program's own part in both.
    pub sending: Percentiles,
}

impl KindResult {
    fn new(due_per_second: u32, lane: &Lane) -> Self {
        Self {
            due_per_second,
            messages: lane.count() as u64,
            accepted: lane.all_accepted(),
            entries: lane.arrived,
            lost: lane.expected.saturating_sub(lane.arrived),
            surplus: lane.arrived.saturating_sub(lane.expected),
            delivery: lane.delivery.percentiles(),
            answers: lane.answers.percentiles(),
            sending: lane.late.percentiles(),
        }
    }

    fn is_clean(&self) -> bool {
        self.accepted == self.messages && self.lost == 0 && self.surplus == 0
    }

    fn write(&self, name: &str, text: &mut String) {
        let _ = writeln!(text, "\n{name}: {} messages/s, {} messages", self.due_per_second, grouped(self.messages));
        let _ = writeln!(text, "delivery: {}", self.delivery);
        let _ = writeln!(text, "answer: {}", self.answers);
        let _ = writeln!(text, "entries: {}   lost: {}", grouped(self.entries), grouped(self.lost + self.surplus));
    }
}

impl MixedResult {
    pub(super) fn new(
        args: &MixedArgs,
        scene: &Scene,
        drive: &Drive<'_>,
        clock: &Clock,
        costs: Costs,
        verified: Verified,
    ) -> Self {
        let kind = |kind, rate| drive.lane(kind).map(|lane| KindResult::new(rate, lane));
        Self {
            accounts: args.accounts,
            devices: scene.devices.len(),
            groups: scene.groups.len(),
            direct: kind(Kind::Direct, args.direct_rate),
            group: kind(Kind::Group, args.group_rate),
            presence: kind(Kind::Presence, args.presence_rate),
            entries_per_second: rate(drive.in_time(), clock.time()),
            costs,
            verified,
            troubles: drive.troubles.clone(),
        }
    }

    fn kinds(&self) -> impl Iterator<Item = (&'static str, &KindResult)> {
        let kinds = [("direct", &self.direct), ("groups", &self.group), ("typing and presence", &self.presence)];
        kinds.into_iter().filter_map(|(name, kind)| Some((name, kind.as_ref()?)))
    }

    /// All was accepted and came once and in order, as it was sent.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.kinds().all(|(_, kind)| kind.is_clean()) && self.verified.is_clean() && self.troubles.is_empty()
    }

    /// The figures, for people and for `grep`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let (accounts, devices) = (grouped(self.accounts.into()), grouped(self.devices as u64));
        let _ = writeln!(text, "accounts: {accounts}   devices: {devices}   groups: {}", self.groups);
        self.kinds().for_each(|(name, kind)| kind.write(name, &mut text));
        let _ = writeln!(text, "\nentries_per_second: {}", grouped_f64(self.entries_per_second));
        self.costs.write(&mut text);
        let Verified { opened, decrypted, lost, faults, fault_count, undrained } = &self.verified;
        let _ = writeln!(
            text,
            "verified: {} seals opened, {} decrypted whole; lost {lost}, repeated or wrong {fault_count}, mailboxes not drained {undrained}",
            grouped(*opened),
            grouped(*decrypted)
        );
        for fault in faults {
            let _ = writeln!(text, "wrong: {fault}");
        }
        self.troubles.write(&mut text);
        text
    }
}
