//! The server's "you encrypted for other devices than there are": followed only as far as signed links bear it out.
//!
//! `missing` and `extra` are hints. A device is added only if a signed list holds it, and left out only if a signed list or
//! membership removed it, or if its own signed prekey has run out. Otherwise the server could slip in a ghost, or hide a device.

use std::collections::BTreeSet;

use martlet_protocol::{
    chain::devices::DeviceChain,
    id::{ConversationId, DeviceId},
    rest::Mismatch,
};

use super::{
    Device,
    records::{ComposedRecord, Outgoing, OutgoingState},
};
use crate::{
    error::ClientError,
    event::Event,
    refused::Refused,
    store::Table,
    trust::{Halt, HeadRelation, Need},
};

/// A message that was encrypted anew so often without success is held: the server never gets enough.
const MAX_REBUILDS: u32 = 16;

/// Why a mismatch was not followed.
#[derive(Debug, thiserror::Error)]
pub enum MismatchError {
    /// Chains to fetch, or what the server was caught at.
    #[error(transparent)]
    Halt(#[from] Halt),
    /// The store failed.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl From<Refused> for MismatchError {
    fn from(refused: Refused) -> Self {
        Self::Halt(Halt::Refused(refused))
    }
}

impl Device {
    /// Follows a mismatch answer. The message is then due again: it will be encrypted anew, with the same id, counter and predecessor.
    ///
    /// # Errors
    /// [`MismatchError`]; the message stays as it was. With a need, fetch it and call this again with the same answer.
    pub fn on_mismatch(&mut self, number: u64, mismatch: &Mismatch) -> Result<Vec<Event>, MismatchError> {
        let Some(outgoing) = self.outbox.get(&number).cloned() else { return Ok(Vec::new()) };
        let OutgoingState::Composed(composed) = &outgoing.state else { return Ok(Vec::new()) };
        let events = self.absorb_mismatch(&outgoing.conversation_id, mismatch)?;
        self.check_progress(&outgoing, composed)?;
        let rebuilt = Outgoing { state: OutgoingState::Waiting, rebuilt: outgoing.rebuilt + 1, ..outgoing };
        self.put_outbox(number, rebuilt);
        self.commit().map_err(ClientError::from)?;
        Ok(events)
    }

    /// Takes what a mismatch brings, as far as it is signed.
    pub(super) fn absorb_mismatch(
        &mut self,
        conversation_id: &ConversationId,
        mismatch: &Mismatch,
    ) -> Result<Vec<Event>, MismatchError> {
        let mut events = Vec::new();
        for lists in &mismatch.lists {
            let change = self.absorb_lists(&lists.account_id, &lists.lists)?;
            events.extend(super::claims::devices_changed(lists.account_id, change));
        }
        if self.absorb_membership(conversation_id, &mismatch.membership)? > 0 {
            events.push(Event::MembershipChanged { conversation_id: *conversation_id });
        }
        self.check_stale(mismatch)?;
        self.check_extra(conversation_id, mismatch)?;
        for bundle in &mismatch.missing {
            self.check_missing(conversation_id, &bundle.device_id)?;
            events.extend(self.absorb_bundle(bundle)?);
        }
        Ok(events)
    }

    /// Heads that the server claims must lie on the chains, and not before what is known.
    fn check_stale(&self, mismatch: &Mismatch) -> Result<(), Halt> {
        for head in &mismatch.stale {
            let Some(account) = self.trust.account(&head.account_id) else {
                return Err(Halt::Need(Need::Lists { account_id: head.account_id, after: 0 }));
            };
            match account.relation(head) {
                HeadRelation::Forked => return Err(Refused::ListForked.into()),
                HeadRelation::Newer => {
                    let after = account.chain().n();
                    return Err(Halt::Need(Need::Lists { account_id: head.account_id, after }));
                }
                HeadRelation::Known if head.n < account.chain().n() => return Err(Refused::ListRolledBack.into()),
                HeadRelation::Known => {}
            }
        }
        Ok(())
    }

    fn check_extra(&mut self, conversation_id: &ConversationId, mismatch: &Mismatch) -> Result<(), Refused> {
        let now_ms = self.now_ms();
        for device_id in &mismatch.extra {
            if self.listed_member(conversation_id, device_id).is_none() {
                continue;
            }
            let target = self.targets.entry(*device_id).or_default();
            if !target.is_provably_dormant(now_ms) {
                return Err(Refused::DeviceHidden);
            }
            target.leave_out(now_ms);
            self.batch.put(Table::Bundle, device_id.as_bytes(), target);
        }
        Ok(())
    }

    fn check_missing(&self, conversation_id: &ConversationId, device_id: &DeviceId) -> Result<(), Refused> {
        match self.listed_member(conversation_id, device_id) {
            Some(_) => Ok(()),
            None => Err(Refused::RecipientNotListed),
        }
    }

    /// The chain of the member that lists a device now.
    fn listed_member(&self, conversation_id: &ConversationId, device_id: &DeviceId) -> Option<&DeviceChain> {
        let members = &self.trust.conversation(conversation_id)?.head().members;
        members
            .keys()
            .filter_map(|account_id| self.trust.account(account_id))
            .map(|account| account.chain())
            .find(|chain| chain.device(device_id).is_some())
    }

    /// Encrypting anew must come to something else than was refused, or it would go on for ever.
    fn check_progress(&self, outgoing: &Outgoing, composed: &ComposedRecord) -> Result<(), Halt> {
        let conversation = self.trust.conversation(&outgoing.conversation_id).ok_or(Refused::MismatchUnexplained)?;
        if outgoing.rebuilt >= MAX_REBUILDS {
            return Err(Refused::MismatchUnexplained.into());
        }
        let heads = self.trust.heads_of_members(conversation.head())?;
        if conversation.head().m != composed.membership_m || heads != composed.heads {
            return Ok(());
        }
        let request = <martlet_protocol::wire::SendRequest as prost::Message>::decode(composed.request.0.clone())
            .map_err(|_| Refused::MismatchUnexplained)?;
        let before: BTreeSet<_> = request.forks.iter().map(|fork| fork.device_id.to_vec()).collect();
        let now: BTreeSet<_> = self
            .targets
            .iter()
            .filter(|(id, target)| !target.left_out && self.listed_member(&outgoing.conversation_id, id).is_some())
            .map(|(id, _)| id.as_bytes().to_vec())
            .collect();
        if before == now { Err(Refused::MismatchUnexplained.into()) } else { Ok(()) }
    }
}
