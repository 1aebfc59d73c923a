//! A device's durable side of sending: messages in their order, kept until they are answered.

use std::collections::VecDeque;

use bytes::Bytes;
use martlet_protocol::id::{ClientMessageId, Hash, MessageId};
use rand::{Rng as _, RngExt as _, rngs::StdRng};

use super::participant::Shared;
use crate::{
    history::{Operation, Outcome},
    wire::{Circle, Device, message::Outgoing},
};

/// One in so many messages is over the size up to which content lies inside the seal.
const LARGE_ONE_IN: u32 = 25;
/// One in so many messages is given up after a lost answer.
const GIVE_UP_ONE_IN: u32 = 6;

/// A message that was not answered yet.
pub struct Pending {
    pub operation: usize,
    pub outgoing: Outgoing,
    /// Given out at least once over this socket or connection.
    pub under_way: bool,
    /// An attempt ended without an answer, so that a later refusal proves nothing.
    pub in_doubt: bool,
}

/// Unanswered messages, oldest first.
#[derive(Default)]
pub struct Outbox {
    pub pending: VecDeque<Pending>,
}

impl Outbox {
    /// Writes a message to one of the circles and notes its invocation.
    pub fn compose(&mut self, device: &Device, circle: &Circle, shared: &Shared, rng: &mut StdRng) {
        let size = if rng.random_ratio(1, LARGE_ONE_IN) {
            rng.random_range(4_200..9_000)
        } else {
            rng.random_range(256..1_200)
        };
        let mut content = vec![0; size];
        rng.fill_bytes(&mut content);
        let content = Bytes::from(content);
        let outgoing = Outgoing::new(circle, device, ClientMessageId::random(rng), content.clone());
        let operation = shared.history.lock().invoke(Operation {
            client_message_id: outgoing.client_message_id,
            sender: device.device_id,
            conversation_id: circle.conversation_id,
            content: Hash::of(&content),
            devices: circle.devices().collect(),
            outcome: Outcome::Invoked,
        });
        self.pending.push_back(Pending { operation, outgoing, under_way: false, in_doubt: false });
    }

    /// The connection is gone: everything under way is in doubt. A few are given up, so that the history has unknown ones.
    pub fn connection_lost(&mut self, shared: &Shared, rng: &mut StdRng) {
        let mut history = shared.history.lock();
        self.pending.retain_mut(|pending| {
            let given_up = pending.under_way && rng.random_ratio(1, GIVE_UP_ONE_IN);
            if given_up {
                history.settle(pending.operation, Outcome::Unknown);
            }
            pending.in_doubt |= pending.under_way;
            pending.under_way = false;
            !given_up
        });
    }

    /// The node accepted it.
    pub fn accepted(
        &mut self,
        operation: usize,
        message_id: MessageId,
        partial: Vec<martlet_protocol::id::DeviceId>,
        shared: &Shared,
    ) {
        self.settle(operation, Outcome::Ok { message_id, partial }, shared);
    }

    /// The node refused it. If an earlier attempt may have been accepted, only an acceptance would end the doubt.
    pub fn refused(&mut self, operation: usize, code: &str, shared: &Shared) {
        let in_doubt = self.pending.iter().any(|pending| pending.operation == operation && pending.in_doubt);
        let outcome = if in_doubt { Outcome::Unknown } else { Outcome::Failed { code: code.to_owned() } };
        self.settle(operation, outcome, shared);
    }

    fn settle(&mut self, operation: usize, outcome: Outcome, shared: &Shared) {
        let before = self.pending.len();
        self.pending.retain(|pending| pending.operation != operation);
        // A second answer to a message that was settled says nothing new.
        if self.pending.len() < before {
            shared.history.lock().settle(operation, outcome);
        }
    }
}
