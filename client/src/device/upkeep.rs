//! What a device does so that it can go on: prekeys, the hello's news, old records.

use martlet_protocol::{
    id::ConversationId,
    rest::{ListHead, PrekeyKind, PrekeyUpload},
    wire,
};

use super::{
    Device,
    records::{SentRecord, prekey_name},
};
use crate::{
    ambient::DAY_MS,
    event::Event,
    refused::Refused,
    store::{StoreError, Table},
    trust::{HeadRelation, Need},
};

/// One-time prekeys that a device keeps on the server.
pub const ONE_TIME_TARGET: usize = 100;
/// Own messages are kept this long to answer resend requests: as long as mailboxes keep theirs.
const SENT_KEPT_MS: u64 = 30 * DAY_MS;
/// A token is rotated when less than this is left of its life.
const TOKEN_SPARE_MS: u64 = 30 * DAY_MS;

/// What a hello asks the device to do.
#[derive(Debug, Default)]
pub struct HelloAdvice {
    /// What to tell the application.
    pub events: Vec<Event>,
    /// Lists to fetch.
    pub needs: Vec<Need>,
    /// One-time prekeys that the server has left.
    pub one_time_stock: usize,
}

impl Device {
    /// Takes the node's first frame (or a later one of the same kind).
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn on_hello(&mut self, hello: &wire::Hello) -> Result<HelloAdvice, StoreError> {
        let mut advice = HelloAdvice {
            one_time_stock: hello.prekeys.as_ref().map_or(ONE_TIME_TARGET, |stock| stock.one_time as usize),
            ..HelloAdvice::default()
        };
        if let Some(mailbox) = &hello.mailbox
            && mailbox.epoch != self.places.epoch
        {
            if self.places.epoch != 0 {
                advice.events.push(Event::StreamRestarted);
            }
            self.places.epoch = mailbox.epoch;
            self.places.seq = 0;
            self.put_places();
            self.commit()?;
        }
        if let Some(Ok(head)) = hello.list_head.as_ref().map(ListHead::try_from)
            && head.account_id == self.keys.account_id
        {
            self.compare_own_head(&head, &mut advice);
        }
        Ok(advice)
    }

    fn compare_own_head(&self, head: &ListHead, advice: &mut HelloAdvice) {
        let Some(own) = self.trust.account(&self.keys.account_id) else { return };
        let refused = match own.relation(head) {
            HeadRelation::Newer => {
                advice.needs.push(Need::Lists { account_id: head.account_id, after: own.chain().n() });
                return;
            }
            HeadRelation::Known if head.n == own.chain().n() => return,
            HeadRelation::Known => Refused::ListRolledBack,
            HeadRelation::Forked => Refused::ListForked,
        };
        advice.events.push(Event::Refused { refused, seq: self.places.seq, sender_device: None });
    }

    /// Makes what prekeys are due, durably, and returns what the server does not have yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn due_prekeys(&mut self, one_time_stock: usize) -> Result<Option<PrekeyUpload>, StoreError> {
        let now_ms = self.now_ms();
        let head = self.own_head();
        for (kind, key_id) in self.ring.forget_old(now_ms) {
            self.put_prekey(kind, key_id);
        }
        let signed_due = self.ring.newest_signed_at_ms().is_none_or(|made| made.saturating_add(DAY_MS) <= now_ms);
        let pending = self.ring.pending();
        let one_time_due = ONE_TIME_TARGET.saturating_sub(one_time_stock + pending.one_time_prekeys.len());
        // A few missing ones wait, so that not every message costs an upload.
        let one_time_due = if one_time_due * 4 < ONE_TIME_TARGET { 0 } else { one_time_due };
        for (kind, count) in [(PrekeyKind::Signed, usize::from(signed_due)), (PrekeyKind::OneTime, one_time_due)] {
            for made in self.ring.make(kind, count, &self.keys, &head, now_ms, &mut self.rng) {
                self.put_prekey(made.kind, made.key_id);
            }
        }
        self.put_places();
        self.commit()?;
        let upload = self.ring.pending();
        Ok((upload.signed_prekey.is_some() || !upload.one_time_prekeys.is_empty()).then_some(upload))
    }

    /// The server has taken these.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn on_prekeys_uploaded(&mut self, upload: &PrekeyUpload) -> Result<(), StoreError> {
        for (kind, key_id) in self.ring.uploaded(upload, self.clock.now_ms()) {
            self.put_prekey(kind, key_id);
        }
        self.commit()
    }

    /// The server's pool is full: what it did not take is forgotten.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn on_prekeys_refused(&mut self) -> Result<(), StoreError> {
        for (kind, key_id) in self.ring.discard_pending_one_time() {
            self.batch.delete(Table::Prekey, &prekey_name(kind, key_id));
        }
        self.commit()
    }

    /// Whether the token should be rotated now.
    #[must_use]
    pub fn is_token_due(&self) -> bool {
        !self.session.token.is_empty() && self.session.expires_at_ms < self.now_ms().saturating_add(TOKEN_SPARE_MS)
    }

    /// Forgets own messages that nobody can ask for any more, and old notes about resends.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn forget_old(&mut self) -> Result<(), StoreError> {
        let now_ms = self.now_ms();
        for (name, sent) in self.store.all::<SentRecord>(Table::Sent)? {
            if sent.sent_at_ms.saturating_add(SENT_KEPT_MS) < now_ms {
                self.batch.delete(Table::Sent, &name);
            }
        }
        let old = |at: &u64| at.saturating_add(DAY_MS) < now_ms;
        for (name, _) in self.resends.iter().filter(|(_, at)| old(at)) {
            self.batch.delete(Table::Resend, name);
        }
        self.resends.retain(|_, at| !old(at));
        self.commit()
    }

    /// What to fetch to know a conversation's newest links.
    #[must_use]
    pub fn membership_need(&self, conversation_id: ConversationId) -> Need {
        let after = self.trust.conversation(&conversation_id).map_or(0, |known| known.head().m);
        Need::Membership { conversation_id, after }
    }
}
