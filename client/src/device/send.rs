//! Own messages: stored first, encrypted once, sent unchanged until the server has answered.
//!
//! In one conversation the next message is encrypted when the one before is accepted, because it names that one's hash.

use bytes::Bytes;
use martlet_protocol::{
    crypto::VerifiedPrekey,
    id::{Blob, ClientMessageId, ConversationId, DeviceId},
    problem::Code,
    rest::{Accepted, ClaimAccount, ClaimRequest, ConversationKind, ListHead},
    wire,
};
use prost::Message as _;

use super::{
    Device,
    receipts::check_storable,
    records::{AcceptedRecord, ComposedRecord, Counter, Outgoing, OutgoingState, SentRecord},
};
use crate::{
    compose::{Draft, compose},
    error::ClientError,
    event::Event,
    refused::Refused,
    store::Table,
    trust::{Halt, Need},
};

/// Accounts whose keys are claimed at once. A node counts a claim by its accounts, so a large conversation is claimed in parts: each
/// is stored as soon as it came, and a part that has to wait costs nothing of those before it.
pub const ACCOUNTS_PER_CLAIM: usize = 32;

/// A message that is ready to go.
pub struct Prepared {
    /// Its number in the outbox.
    pub number: u64,
    /// Its id.
    pub client_message_id: ClientMessageId,
    /// The exact request.
    pub request: wire::SendRequest,
}

/// Whom a message goes to.
pub(super) struct Audience {
    /// The membership that it is for.
    pub membership: wire::MembershipHead,
    /// The lists of all members.
    pub heads: Vec<ListHead>,
    /// Their devices, this one excepted, each with the key to seal to.
    pub recipients: Vec<VerifiedPrekey>,
}

/// Why a message is not ready.
#[derive(Debug, thiserror::Error)]
pub enum SendHalt {
    /// Chains to fetch first.
    #[error("chains have to be fetched first")]
    Need(Need),
    /// Keys to claim first; there may be more after these.
    #[error("keys have to be claimed first")]
    Claim(ClaimRequest),
    /// The server was caught at something; sending stops.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It will never be ready: this account is no member.
    #[error("this account is not a member of the conversation (any more)")]
    Gone,
}

impl From<Halt> for SendHalt {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Need(need) => Self::Need(need),
            Halt::Refused(refused) => Self::Refused(refused),
        }
    }
}

impl Device {
    /// Takes a message over, durably. It is sent when the device is connected, however often that takes.
    ///
    /// # Errors
    /// [`ClientError::NoSuchConversation`], [`ClientError::Store`]; [`ClientError::NotAllowed`] for a content that is only sent
    /// ephemerally.
    pub fn enqueue(
        &mut self,
        conversation_id: ConversationId,
        body: &wire::Content,
        lifetime_seconds: u32,
    ) -> Result<ClientMessageId, ClientError> {
        check_storable(body)?;
        let known = self.trust.conversation(&conversation_id).ok_or(ClientError::NoSuchConversation)?;
        if known.gone {
            return Err(ClientError::NoSuchConversation);
        }
        if known.kind() == ConversationKind::Large {
            return Err(ClientError::NotAllowed(
                "large conversations need a suite that this release does not have".into(),
            ));
        }
        let id = self.put_outgoing(conversation_id, body, lifetime_seconds);
        self.commit()?;
        Ok(id)
    }

    pub(super) fn put_outgoing(
        &mut self,
        conversation_id: ConversationId,
        body: &wire::Content,
        lifetime_seconds: u32,
    ) -> ClientMessageId {
        let outgoing = Outgoing {
            conversation_id,
            client_message_id: ClientMessageId::random(&mut self.rng),
            body: Blob(body.encode_to_vec().into()),
            created_at_ms: self.now_ms(),
            lifetime_seconds,
            state: OutgoingState::Waiting,
            rebuilt: 0,
        };
        let id = outgoing.client_message_id;
        self.places.outbox += 1;
        let number = self.places.outbox;
        self.put_places();
        self.put_outbox(number, outgoing);
        id
    }

    pub(super) fn put_outbox(&mut self, number: u64, outgoing: Outgoing) {
        self.batch.put(Table::Outbox, &number.to_be_bytes(), &outgoing);
        self.outbox.insert(number, outgoing);
    }

    pub(super) fn remove_outbox(&mut self, number: u64) {
        self.batch.delete(Table::Outbox, &number.to_be_bytes());
        self.outbox.remove(&number);
    }

    /// The message that is due in each conversation, oldest first.
    #[must_use]
    pub fn due(&self) -> Vec<(u64, ConversationId)> {
        let mut due: Vec<(u64, ConversationId)> = Vec::new();
        for (number, outgoing) in &self.outbox {
            let is_open = !matches!(outgoing.state, OutgoingState::Accepted(_));
            if is_open && due.iter().all(|(_, conversation)| *conversation != outgoing.conversation_id) {
                due.push((*number, outgoing.conversation_id));
            }
        }
        due
    }

    /// How many messages the server has not accepted yet.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.outbox.values().filter(|outgoing| !matches!(outgoing.state, OutgoingState::Accepted(_))).count()
    }

    /// The exact request of a message: the stored one, or a new one, which is durable when this returns.
    ///
    /// # Errors
    /// [`SendHalt`] says what to do first. `Ok(None)`: it isn't in the outbox any more.
    pub fn prepare(&mut self, number: u64) -> Result<Option<Prepared>, PrepareError> {
        let Some(outgoing) = self.outbox.get(&number).cloned() else { return Ok(None) };
        let client_message_id = outgoing.client_message_id;
        let request = match &outgoing.state {
            OutgoingState::Accepted(_) => return Ok(None),
            OutgoingState::Composed(composed) => composed.request.0.clone(),
            OutgoingState::Waiting => self.compose_outgoing(number, outgoing)?,
        };
        let request = wire::SendRequest::decode(request)
            .map_err(|_| ClientError::Store(crate::store::StoreError::Unreadable(Table::Outbox)))?;
        Ok(Some(Prepared { number, client_message_id, request }))
    }

    fn compose_outgoing(&mut self, number: u64, mut outgoing: Outgoing) -> Result<Bytes, PrepareError> {
        let conversation_id = outgoing.conversation_id;
        let Audience { membership, heads, recipients } =
            self.audience(conversation_id, Some(outgoing.client_message_id))?;
        let membership_m = membership.m;
        let body = outgoing.content();
        let last = self.counters.get(&(conversation_id, self.keys.device_id)).copied();
        let draft = Draft {
            conversation_id,
            membership,
            list_heads: &heads,
            client_message_id: outgoing.client_message_id,
            sent_at_ms: outgoing.created_at_ms,
            counter: last.map_or(0, |last| last.counter) + 1,
            previous: last.map(|last| last.hash),
            body: &body,
            lifetime_seconds: outgoing.lifetime_seconds,
            ephemeral_until_ms: 0,
        };
        let composed = compose(&self.keys, &draft, &recipients, &mut self.rng)
            .map_err(|_| SendHalt::Refused(Refused::PrekeyNotVouchedFor))?;
        let request: Bytes = composed.request.encode_to_vec().into();
        outgoing.state = OutgoingState::Composed(Box::new(ComposedRecord {
            request: Blob(request.clone()),
            content_hash: composed.content_hash,
            content_bytes: composed.request.content.len() as u64,
            forks: composed.request.forks.len() as u64,
            counter: draft.counter,
            membership_m,
            heads,
        }));
        self.put_outbox(number, outgoing);
        self.commit().map_err(ClientError::from)?;
        Ok(request)
    }

    /// Whom something for a conversation goes to, as the chains stand now. Only a message that is stored may use one-time keys.
    pub(super) fn audience(
        &mut self,
        conversation_id: ConversationId,
        stored: Option<ClientMessageId>,
    ) -> Result<Audience, PrepareError> {
        let conversation = self.trust.conversation(&conversation_id).ok_or(SendHalt::Gone)?;
        let membership = conversation.head().clone();
        if conversation.gone || !membership.members.contains_key(&self.keys.account_id) {
            return Err(SendHalt::Gone.into());
        }
        let is_listed = self.own_list()?.device(&self.keys.device_id).is_some();
        if !is_listed {
            return Err(ClientError::Ended("it was removed from the account".into()).into());
        }
        let heads = self.trust.heads_of_members(&membership).map_err(SendHalt::from)?;
        let recipients = self.recipients(&heads, stored)?;
        Ok(Audience { membership: membership.head(), heads, recipients })
    }

    /// The devices of the named lists, this one excepted, each with the key to seal to.
    fn recipients(
        &mut self,
        heads: &[ListHead],
        stored: Option<ClientMessageId>,
    ) -> Result<Vec<VerifiedPrekey>, SendHalt> {
        let now_ms = self.now_ms();
        let claims = self.stale_targets(heads, now_ms);
        if !claims.is_empty() {
            let accounts = claims.into_iter().take(ACCOUNTS_PER_CLAIM).collect();
            return Err(SendHalt::Claim(ClaimRequest { accounts }));
        }
        let mut recipients = Vec::new();
        for head in heads {
            let Some(account) = self.trust.account(&head.account_id) else { continue };
            for device in account.chain().list().devices.iter().filter(|d| d.device_id != self.keys.device_id) {
                let Some(target) = self.targets.get_mut(&device.device_id) else { continue };
                let Some(message) = stored else {
                    recipients.extend(target.signed_key(account.chain(), &device.device_id, now_ms)?);
                    continue;
                };
                if let Some(key) = target.key_for(account.chain(), &device.device_id, message, now_ms)? {
                    recipients.push(key);
                    self.batch.put(Table::Bundle, device.device_id.as_bytes(), target);
                }
            }
        }
        Ok(recipients)
    }

    fn stale_targets(&self, heads: &[ListHead], now_ms: u64) -> Vec<ClaimAccount> {
        let mut claims = Vec::new();
        for head in heads {
            let Some(account) = self.trust.account(&head.account_id) else { continue };
            let devices = account.chain().list().devices.iter().map(|device| device.device_id);
            let stale: Vec<DeviceId> = devices
                .filter(|id| *id != self.keys.device_id)
                .filter(|id| self.targets.get(id).is_none_or(|target| target.is_stale(now_ms)))
                .collect();
            if !stale.is_empty() {
                claims.push(ClaimAccount { account_id: head.account_id, known_n: head.n, device_ids: stale });
            }
        }
        claims
    }

    /// The server has accepted a message: it is durable for every device.
    ///
    /// # Errors
    /// [`ClientError::Store`].
    pub fn on_accepted(&mut self, number: u64, accepted: &Accepted) -> Result<Option<Event>, ClientError> {
        let Some(mut outgoing) = self.outbox.get(&number).cloned() else { return Ok(None) };
        let OutgoingState::Composed(composed) = &outgoing.state else { return Ok(None) };
        let record = AcceptedRecord {
            message_id: accepted.message_id,
            accepted_at_ms: accepted.accepted_at_ms,
            content_hash: composed.content_hash,
            content_bytes: composed.content_bytes,
            forks: composed.forks,
            counter: composed.counter,
        };
        self.settle(&outgoing, &composed.clone());
        outgoing.state = OutgoingState::Accepted(Box::new(record));
        let client_message_id = outgoing.client_message_id;
        self.put_outbox(number, outgoing);
        self.commit()?;
        Ok(Some(Event::Sent {
            client_message_id,
            message_id: accepted.message_id,
            partial: accepted.partial_device_ids.clone(),
        }))
    }

    /// What acceptance means for the next message: counter and predecessor move on, one-time keys are used up, and the body is kept
    /// for resend requests.
    pub(super) fn settle(&mut self, outgoing: &Outgoing, composed: &ComposedRecord) {
        let counter = Counter { counter: composed.counter, hash: composed.content_hash };
        self.put_counter(outgoing.conversation_id, self.keys.device_id, counter);
        self.release_targets(outgoing.client_message_id);
        self.note_lists(&outgoing.conversation_id, &composed.heads);
        let sent = SentRecord {
            conversation_id: outgoing.conversation_id,
            body: outgoing.body.clone(),
            sent_at_ms: outgoing.created_at_ms,
            members: composed.heads.iter().map(|head| head.account_id).collect(),
        };
        self.batch.put(Table::Sent, outgoing.client_message_id.as_bytes(), &sent);
    }

    fn release_targets(&mut self, message: ClientMessageId) {
        for (device_id, target) in &mut self.targets {
            if target.release(message) {
                self.batch.put(Table::Bundle, device_id.as_bytes(), target);
            }
        }
    }

    /// The server refused a message for good, and stored nothing of it.
    ///
    /// # Errors
    /// [`ClientError::Store`].
    pub fn on_failed(&mut self, number: u64, code: Option<Code>, why: String) -> Result<Option<Event>, ClientError> {
        let Some(outgoing) = self.outbox.get(&number).cloned() else { return Ok(None) };
        if code == Some(Code::NotFound)
            && let Some(conversation) = self.trust.conversation_mut(&outgoing.conversation_id)
        {
            conversation.gone = true;
            self.put_conversation(&outgoing.conversation_id);
        }
        self.release_targets(outgoing.client_message_id);
        self.remove_outbox(number);
        self.commit()?;
        Ok(Some(Event::SendFailed { client_message_id: outgoing.client_message_id, why }))
    }
}

/// Why [`Device::prepare`] has nothing to send.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Something has to be done first.
    #[error(transparent)]
    Halt(#[from] SendHalt),
    /// The store failed.
    #[error(transparent)]
    Client(#[from] ClientError),
}
