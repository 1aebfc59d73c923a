//! A device's durable side of sending: messages in their order, kept until they are answered.

use std::collections::VecDeque;

use bytes::Bytes;
use martlet_protocol::id::{ClientMessageId, DeviceId, Hash, MessageId};
use rand::{Rng as _, RngExt as _, rngs::StdRng};

use super::{
    history::{Operation, Outcome},
    world::World,
};
use crate::wire::{Circle, Device, message::Outgoing};

/// One in so many messages is over the size up to which content lies inside the seal.
const LARGE_ONE_IN: u32 = 30;
/// One in so many is over what the relay carries.
const HUGE_ONE_IN: u32 = 200;
/// One in so many messages is given up after a lost answer.
const GIVE_UP_ONE_IN: u32 = 8;
/// One in so many answered messages is asked about again, as by a device that lost its last write.
const ASK_AGAIN_ONE_IN: u32 = 60;
/// How much later that is, at most.
const ASK_AGAIN_AFTER_MS: u64 = 20_000;

/// What a device may hear that asks about a message again: nothing about the message.
const LATER: &[&str] = &["busy", "unavailable", "internal", "rate_limited", "unauthenticated"];

/// A message that was not answered yet.
pub struct Pending {
    pub operation: usize,
    pub outgoing: Outgoing,
    /// Given out over this socket or connection, at that time.
    pub under_way_since_ms: Option<u64>,
    /// An attempt ended without an answer, so that a later refusal proves nothing.
    pub in_doubt: bool,
}

/// An answered message that will be sent once more.
pub struct Again {
    pub operation: usize,
    pub outgoing: Outgoing,
    pub due_ms: u64,
}

/// What a refusal means for the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Nothing.
    GoOn,
    /// Leave the node alone for a moment.
    Pause,
    /// Begin anew: everything unanswered is sent again, in order.
    StartOver,
}

/// Unanswered messages, oldest first.
#[derive(Default)]
pub struct Outbox {
    pub pending: VecDeque<Pending>,
    pub again: Vec<Again>,
}

impl Outbox {
    /// Writes a message to a circle and notes its invocation.
    pub fn compose(&mut self, device: &Device, circle: &Circle, world: &World, rng: &mut StdRng) {
        let size = match () {
            () if rng.random_ratio(1, HUGE_ONE_IN) => rng.random_range(8_300..12_000),
            () if rng.random_ratio(1, LARGE_ONE_IN) => rng.random_range(4_200..8_000),
            () => rng.random_range(200..900),
        };
        let mut content = vec![0; size];
        rng.fill_bytes(&mut content);
        let content = Bytes::from(content);
        let outgoing = Outgoing::new(circle, device, ClientMessageId::random(rng), content.clone());
        let operation = world.history.lock().invoke(Operation {
            client_message_id: outgoing.client_message_id,
            sender: device.device_id,
            conversation_id: circle.conversation_id,
            content: Hash::of(&content),
            devices: circle.devices().collect(),
            invoked_ms: world.now_ms(),
            settled_ms: 0,
            overtaken: false,
            outcome: Outcome::Invoked,
            answered_otherwise: None,
        });
        self.pending.push_back(Pending { operation, outgoing, under_way_since_ms: None, in_doubt: false });
    }

    /// The connection is gone: everything under way is in doubt. A few are given up, so that the history has unknown ones.
    pub fn connection_lost(&mut self, world: &World, rng: &mut StdRng) {
        let (mut history, now_ms) = (world.history.lock(), world.now_ms());
        self.pending.retain_mut(|pending| {
            let under_way = pending.under_way_since_ms.take().is_some();
            pending.in_doubt |= under_way;
            let given_up = under_way && rng.random_ratio(1, GIVE_UP_ONE_IN);
            if given_up {
                history.settle(pending.operation, Outcome::Unknown, now_ms);
            }
            !given_up
        });
    }

    /// The node accepted it.
    pub fn accepted(
        &mut self,
        operation: usize,
        message_id: MessageId,
        partial: Vec<DeviceId>,
        world: &World,
        rng: &mut StdRng,
    ) {
        let Some(at) = self.pending.iter().position(|pending| pending.operation == operation) else {
            // A second answer: it must be the first one again.
            world.history.lock().answered_again(operation, message_id);
            return;
        };
        let Some(pending) = self.pending.remove(at) else { return };
        world.history.lock().settle(operation, Outcome::Ok { message_id, partial }, world.now_ms());
        if rng.random_ratio(1, ASK_AGAIN_ONE_IN) {
            let due_ms = world.now_ms() + rng.random_range(0..ASK_AGAIN_AFTER_MS);
            self.again.push(Again { operation, outgoing: pending.outgoing, due_ms });
        }
    }

    /// The node refused it.
    ///
    /// A mismatch is the last word even after a lost answer, for the node looks for an earlier acceptance first. After "unavailable"
    /// the outcome is open: the same bytes are sent again. What is refused for now and was in doubt is given up.
    pub fn refused(&mut self, operation: usize, code: &str, world: &World) -> After {
        let Some(at) = self.pending.iter().position(|pending| pending.operation == operation) else {
            if !LATER.contains(&code) {
                world.history.lock().refused_again(operation, code);
            }
            return After::GoOn;
        };
        let in_doubt = self.pending[at].in_doubt;
        match code {
            "unavailable" | "internal" => {
                self.pending[at].in_doubt = true;
                // What was under way behind it may have been accepted or refused in any combination, and is sent again behind it.
                let mut history = world.history.lock();
                for pending in self.pending.iter().filter(|pending| pending.under_way_since_ms.is_some()) {
                    history.operations[pending.operation].overtaken = true;
                }
                return After::StartOver;
            }
            "mismatch" => self.settle(at, Outcome::Failed { code: code.to_owned() }, world),
            _ if in_doubt => self.settle(at, Outcome::Unknown, world),
            _ => self.settle(at, Outcome::Failed { code: code.to_owned() }, world),
        }
        After::Pause
    }

    /// Nobody will answer any more: the device is revoked.
    pub fn abandon(&mut self, world: &World) {
        while !self.pending.is_empty() {
            self.settle(0, Outcome::Unknown, world);
        }
        self.again.clear();
    }

    fn settle(&mut self, at: usize, outcome: Outcome, world: &World) {
        if let Some(pending) = self.pending.remove(at) {
            world.history.lock().settle(pending.operation, outcome, world.now_ms());
        }
    }

    /// Since when the oldest message that is under way has waited for its answer.
    #[must_use]
    pub fn waiting_since_ms(&self) -> Option<u64> {
        self.pending.iter().filter_map(|pending| pending.under_way_since_ms).min()
    }
}
