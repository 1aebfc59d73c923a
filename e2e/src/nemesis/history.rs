//! What happened in a run with faults: every send with its times, everything that devices were given and when, and revocations.
//!
//! Nothing is judged here; [`super::checker`] does that when all is over. Times are milliseconds since the run began.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use martlet_protocol::id::{ClientMessageId, ConversationId, DeviceId, Hash, MessageId};

pub use crate::history::{GapSeen, Outcome};
use crate::wire::message::Opened;

/// One message of one device, through all its attempts.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Of all attempts.
    pub client_message_id: ClientMessageId,
    /// Which device sends.
    pub sender: DeviceId,
    /// Where to.
    pub conversation_id: ConversationId,
    /// What.
    pub content: Hash,
    /// Every device that the sender named, itself included. The node accepts no other set than the active devices.
    pub devices: Arc<[DeviceId]>,
    /// When the first attempt began.
    pub invoked_ms: u64,
    /// When it was answered or given up; 0 before.
    pub settled_ms: u64,
    /// An attempt was refused without an end to the doubt, and the message was sent again: later messages may have passed it, by its
    /// sender's own doing.
    pub overtaken: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// A later question under the same id was answered with another message id.
    pub answered_otherwise: Option<MessageId>,
}

/// One entry that came over the wire.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// What it was.
    pub entry: Opened,
    /// When it was read.
    pub at_ms: u64,
    /// The last moment at which nothing waited to be read: the node wrote it after that.
    pub written_after_ms: u64,
}

/// Of a device's revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// When it was first asked for: from here on the device may be without.
    pub asked_ms: u64,
    /// When it was answered: from here on the promise holds. None: never.
    pub answered_ms: Option<u64>,
}

/// What one device was given.
#[derive(Debug, Clone, Default)]
pub struct DeviceHistory {
    /// Every entry over the wire, repeats included, in order. The application gets the first of each message id.
    pub deliveries: Vec<Delivery>,
    /// Every gap marker.
    pub gaps: Vec<GapSeen>,
    /// Entries that did not follow the one before them on the same socket: (expected, given).
    pub jumps: Vec<(u64, u64)>,
    /// When sockets were open and read: from, to.
    pub sessions: Vec<(u64, u64)>,
    /// The mailbox's head when all was over; none if nobody could ask (the device is revoked).
    pub head_seq: Option<u64>,
    /// Whether it was revoked.
    pub revoked: Option<Revocation>,
    /// When a socket of the revoked device was still served although it should long have been closed.
    pub served_after_revocation_ms: Option<u64>,
    /// What no node may do: refuse a good cursor, send what can't be opened, change the epoch.
    pub oddities: Vec<String>,
}

/// Everything that happened.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Sends in the order of their invocation.
    pub operations: Vec<Operation>,
    /// By device.
    pub devices: BTreeMap<DeviceId, DeviceHistory>,
    /// When the faults began and when the last was healed.
    pub faults_ms: (u64, u64),
    /// Nodes that ended without being asked to: what they were, and when.
    pub nodes_ended: Vec<(usize, u64)>,
}

impl History {
    /// Notes the start of a send; the number names it.
    pub fn invoke(&mut self, operation: Operation) -> usize {
        self.operations.push(operation);
        self.operations.len() - 1
    }

    /// Notes how a send ended.
    pub fn settle(&mut self, operation: usize, outcome: Outcome, now_ms: u64) {
        let operation = &mut self.operations[operation];
        operation.outcome = outcome;
        operation.settled_ms = now_ms;
    }

    /// Notes the answer to a question that was asked again after it had been answered.
    pub fn answered_again(&mut self, operation: usize, given: MessageId) {
        let operation = &mut self.operations[operation];
        if matches!(&operation.outcome, Outcome::Ok { message_id, .. } if *message_id != given) {
            operation.answered_otherwise = Some(given);
        }
    }

    /// Notes that an answered message was refused when it was sent once more: the first answer is forgotten.
    pub fn refused_again(&mut self, operation: usize, code: &str) {
        let operation = &self.operations[operation];
        if matches!(operation.outcome, Outcome::Ok { .. }) && !self.is_revoked(&operation.sender) {
            let what = format!("its message was accepted, and refused when it was sent again: {code}");
            let sender = operation.sender;
            self.device(sender).oddities.push(what);
        }
    }

    /// How long after the last heal each device got a message that was sent after it, in ms.
    #[must_use]
    pub fn delivered_again(&self) -> BTreeMap<DeviceId, u64> {
        let healed_ms = self.faults_ms.1;
        let recent = self.operations.iter().rev().take_while(|operation| operation.invoked_ms >= healed_ms);
        let recent: HashSet<_> = recent.map(|operation| (operation.sender, operation.client_message_id)).collect();
        let back = |part: &DeviceHistory| {
            let after = part.deliveries.iter().rev().take_while(|given| given.at_ms >= healed_ms);
            let own = after.filter(|given| recent.contains(&(given.entry.sender, given.entry.client_message_id)));
            own.map(|given| given.at_ms - healed_ms).min()
        };
        self.devices.iter().filter_map(|(device, part)| Some((*device, back(part)?))).collect()
    }

    /// A device's part.
    pub fn device(&mut self, device: DeviceId) -> &mut DeviceHistory {
        self.devices.entry(device).or_default()
    }

    /// Whether the device's revocation has been asked for.
    #[must_use]
    pub fn is_revoked(&self, device: &DeviceId) -> bool {
        self.devices.get(device).is_some_and(|part| part.revoked.is_some())
    }
}
