//! What happened in a run: every send from its invocation to its outcome, and everything that devices were given.
//!
//! Nothing is judged here; [`crate::checker`] does that when all is over.

use std::collections::BTreeMap;

use martlet_protocol::{
    id::{ClientMessageId, ConversationId, DeviceId, Hash, MessageId},
    wire,
};

use crate::wire::message::Opened;

/// How a send ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Not yet answered; at the end of a run a mistake of the test's.
    Invoked,
    /// The node accepted it.
    Ok {
        /// As answered.
        message_id: MessageId,
        /// Devices that the answer says got a gap marker instead.
        partial: Vec<DeviceId>,
    },
    /// The node refused it, and nothing earlier could have been accepted.
    Failed {
        /// The stable code.
        code: String,
    },
    /// The answer was lost and the sender gave up: it may have happened, at most once.
    Unknown,
}

/// One send of one device.
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
    /// Every device of every member at the time, the sender included.
    pub devices: Vec<DeviceId>,
    /// How it ended.
    pub outcome: Outcome,
}

/// A range of a mailbox that was discarded, as the node said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GapSeen {
    /// First number.
    pub from_seq: u64,
    /// Last number.
    pub to_seq: u64,
    /// Why.
    pub reason: wire::GapReason,
}

/// What one device was given.
#[derive(Debug, Clone, Default)]
pub struct DeviceHistory {
    /// Everything that came over the wire, repeats included, in order.
    pub wire: Vec<Opened>,
    /// What the application got, after dropping repeated message ids, in order.
    pub applied: Vec<Opened>,
    /// Every gap marker.
    pub gaps: Vec<GapSeen>,
    /// Entries that did not follow the one before them: (expected, given).
    pub jumps: Vec<(u64, u64)>,
    /// The mailbox's head when all was over.
    pub head_seq: u64,
}

/// Everything that happened.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Sends in the order of their invocation.
    pub operations: Vec<Operation>,
    /// By device.
    pub devices: BTreeMap<DeviceId, DeviceHistory>,
}

impl History {
    /// Notes the start of a send; the number names it.
    pub fn invoke(&mut self, operation: Operation) -> usize {
        self.operations.push(operation);
        self.operations.len() - 1
    }

    /// Notes how a send ended.
    pub fn settle(&mut self, operation: usize, outcome: Outcome) {
        self.operations[operation].outcome = outcome;
    }

    /// Sends that the node accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.operations.iter().filter(|operation| matches!(operation.outcome, Outcome::Ok { .. })).count()
    }

    /// A device's part.
    pub fn device(&mut self, device: DeviceId) -> &mut DeviceHistory {
        self.devices.entry(device).or_default()
    }
}
