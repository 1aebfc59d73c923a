//! A device as a state machine over values: entries and answers go in, requests and events come out. No network, no task, no clock of
//! its own; [`crate::client`] and [`crate::agent`] drive it.
//!
//! Every change goes into one batch, which [`Device::commit`] makes durable; nothing may leave the device (an answer, an ack, an
//! event) before that. A device whose commit failed must be dropped and opened again.
//!
//! In reading order: [`records`] (what is kept), `send`, `claims` and `mismatch` (out), `receive`, `contents` and `resend` (in), `upkeep`
//! (prekeys, hello), `own` (the account's list), `changes` (membership). `history` (what applications read), `receipts` (what arrived or
//! was read), `ephemeral` (what is never stored).

mod changes;
mod claims;
mod contents;
mod ephemeral;
mod history;
mod load;
mod mismatch;
mod own;
mod receipts;
mod receive;
pub mod records;
mod resend;
mod send;
mod upkeep;

use std::collections::{BTreeMap, HashMap};

use martlet_protocol::{
    id::{AccountId, ClientMessageId, ConversationId, DeviceId},
    rest::{ListHead, PrekeyKind, SignedDeviceList, SignedMembershipLink},
    seal::MailboxOpener,
    wire,
};
use rand::rngs::StdRng;

use crate::{
    ambient::Clock,
    error::ClientError,
    identity::{DeviceKeys, PrekeyRing},
    refused::Refused,
    secret::Secret,
    store::{Batch, Store, StoreError, Table},
    targets::Target,
    trust::{Halt, ListChange, Trust},
};
pub use changes::NewConversation;
use ephemeral::Heard;
pub use mismatch::MismatchError;
use receipts::PendingReceipts;
pub use receipts::ReceiptRules;
use records::{
    Counter, IDENTITY, IdentityRecord, Outgoing, PLACES, Places, SESSION, Seen, SessionRecord, counter_name,
};
pub use send::{ACCOUNTS_PER_CLAIM, PrepareError, Prepared, SendHalt};
pub use upkeep::{HelloAdvice, ONE_TIME_TARGET};

/// One device with everything it knows.
pub struct Device {
    store: Store,
    batch: Batch,
    rng: StdRng,
    clock: Clock,
    keys: DeviceKeys,
    opener: MailboxOpener,
    username: String,
    server: String,
    session: SessionRecord,
    places: Places,
    ring: PrekeyRing,
    trust: Trust,
    targets: HashMap<DeviceId, Target>,
    counters: HashMap<(ConversationId, DeviceId), Counter>,
    outbox: BTreeMap<u64, Outgoing>,
    seen: Seen,
    /// Resend requests made and answered, by the name of their record, with their time.
    resends: HashMap<Vec<u8>, u64>,
    receipt_rules: ReceiptRules,
    receipts: PendingReceipts,
    /// Ephemeral messages of late.
    heard: Heard,
}

/// A device's ids, names and keys, before it has a store.
pub struct Founding {
    /// Its keys.
    pub keys: DeviceKeys,
    /// Its prekeys.
    pub prekeys: PrekeyRing,
    /// Its account's lists, from the first to the one that holds it.
    pub lists: Vec<SignedDeviceList>,
    /// Its account's name.
    pub username: String,
    /// The server's address.
    pub server: String,
}

impl Device {
    /// Puts a new device into an empty store, durably, before the server hears of it: keys that were lost after that could not be had
    /// back.
    ///
    /// # Errors
    /// [`ClientError::DeviceExists`], [`ClientError::Store`], [`ClientError::Refused`] for lists that are not valid.
    pub fn found(store: Store, founding: Founding, clock: Clock, rng: StdRng) -> Result<Self, ClientError> {
        if store.get::<IdentityRecord>(Table::Device, IDENTITY)?.is_some() {
            return Err(ClientError::DeviceExists);
        }
        let Founding { keys, prekeys, lists, username, server } = founding;
        let identity = IdentityRecord {
            account_id: keys.account_id,
            device_id: keys.device_id,
            signing: Secret::new(*keys.signing.to_bytes()),
            mailbox: Secret::new(*keys.mailbox.to_bytes()),
            username: username.clone(),
            server: server.clone(),
        };
        let mut device = Self::bare(store, keys, clock, rng);
        device.username = username;
        device.server = server;
        device.batch.put(Table::Device, IDENTITY, &identity);
        device.places.prekey_id = prekeys.last_id();
        for ((kind, key_id), key) in prekeys.iter() {
            device.batch.put(Table::Prekey, &records::prekey_name(kind, key_id), key);
        }
        device.ring = prekeys;
        device.absorb_lists(&device.keys.account_id.clone(), &lists)?;
        device.put_places();
        device.commit()?;
        Ok(device)
    }

    fn bare(store: Store, keys: DeviceKeys, clock: Clock, rng: StdRng) -> Self {
        Self {
            store,
            batch: Batch::default(),
            rng,
            heard: Heard::since(clock.now_ms()),
            clock,
            opener: MailboxOpener::new(keys.mailbox.clone()),
            keys,
            username: String::new(),
            server: String::new(),
            session: SessionRecord::default(),
            places: Places::default(),
            ring: PrekeyRing::default(),
            trust: Trust::default(),
            targets: HashMap::new(),
            counters: HashMap::new(),
            outbox: BTreeMap::new(),
            seen: Seen::default(),
            resends: HashMap::new(),
            receipt_rules: ReceiptRules::default(),
            receipts: PendingReceipts::default(),
        }
    }

    /// Makes everything since the last commit durable.
    ///
    /// # Errors
    /// [`StoreError`]: drop the device and open it again.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        self.store.commit(std::mem::take(&mut self.batch), &mut self.rng)
    }

    /// This device's account.
    #[must_use]
    pub fn account_id(&self) -> AccountId {
        self.keys.account_id
    }

    /// This device.
    #[must_use]
    pub fn device_id(&self) -> DeviceId {
        self.keys.device_id
    }

    /// This device's keys.
    #[must_use]
    pub fn keys(&self) -> &DeviceKeys {
        &self.keys
    }

    /// The account's name.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The server's address.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// What this device believes.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Unix milliseconds, by this device's clock.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// The generator, for what is drawn on this device's behalf.
    pub fn rng(&mut self) -> &mut StdRng {
        &mut self.rng
    }

    /// The token, empty if there is none (yet).
    #[must_use]
    pub fn session(&self) -> &SessionRecord {
        &self.session
    }

    /// Remembers a token. Commit it before it is used for long.
    pub fn set_session(&mut self, session: &martlet_protocol::rest::DeviceSession) {
        self.session = SessionRecord { token: session.token.clone(), expires_at_ms: session.token_expires_at_ms };
        self.batch.put(Table::Device, SESSION, &self.session);
    }

    /// Where to go on reading; none before the first connection.
    #[must_use]
    pub fn cursor(&self) -> Option<wire::Cursor> {
        (self.places.epoch != 0).then_some(wire::Cursor { epoch: self.places.epoch, seq: self.places.seq })
    }

    /// The head of the own account's chain.
    ///
    /// # Panics
    /// Never: a device is founded with its account's lists.
    #[must_use]
    pub fn own_head(&self) -> ListHead {
        self.trust.account(&self.keys.account_id).expect("a device knows its own account").chain().head()
    }

    /// Takes lists of an account that the server showed.
    ///
    /// # Errors
    /// [`Refused`]; nothing is taken then.
    pub fn absorb_lists(&mut self, account_id: &AccountId, lists: &[SignedDeviceList]) -> Result<ListChange, Refused> {
        self.absorb_lists_of(account_id, lists, None)
    }

    /// The same for an account whose fingerprint is known from elsewhere.
    ///
    /// # Errors
    /// [`Refused`]; nothing is taken then.
    pub fn absorb_lists_of(
        &mut self,
        account_id: &AccountId,
        lists: &[SignedDeviceList],
        fingerprint: Option<martlet_protocol::id::Hash>,
    ) -> Result<ListChange, Refused> {
        let result = self.trust.absorb_lists(account_id, lists, fingerprint);
        // What puts an account in dispute is remembered even though the lists are refused.
        let is_news = match &result {
            Ok(change) => !change.is_empty(),
            Err(refused) => matches!(refused, Refused::ListForked | Refused::FingerprintChanged),
        };
        if is_news {
            self.put_account(account_id);
        }
        result
    }

    /// The name that an account was looked up by, or this account's own.
    #[must_use]
    pub fn name_of(&self, account_id: &AccountId) -> Option<String> {
        if *account_id == self.keys.account_id {
            return Some(self.username.clone());
        }
        self.trust.account(account_id)?.username().map(str::to_owned)
    }

    /// A human has compared safety numbers with an account that showed a new chain: sending goes on, to the pinned one.
    ///
    /// # Errors
    /// [`ClientError::NoSuchAccount`]; [`ClientError::Refused`] if its own devices signed two lists, which nothing mends.
    pub fn confirm_account(&mut self, account_id: &AccountId) -> Result<(), ClientError> {
        let account = self.trust.account_mut(account_id).ok_or(ClientError::NoSuchAccount)?;
        if !account.confirm() {
            return Err(Refused::ListForked.into());
        }
        self.put_account(account_id);
        Ok(self.commit()?)
    }

    /// Remembers a conversation's title.
    pub fn set_title(&mut self, id: &ConversationId, title: &str) {
        if let Some(conversation) = self.trust.conversation_mut(id) {
            conversation.title = Some(title.to_owned());
            self.put_conversation(id);
        }
    }

    /// Remembers the name that an account was looked up by.
    pub fn name_account(&mut self, account_id: &AccountId, username: &str) {
        if let Some(account) = self.trust.account_mut(account_id) {
            account.set_username(username);
            self.put_account(account_id);
        }
    }

    /// Takes links of a conversation's membership. Returns how many were new.
    ///
    /// # Errors
    /// [`Halt`]; links before the one that halts were taken.
    pub fn absorb_membership(&mut self, id: &ConversationId, links: &[SignedMembershipLink]) -> Result<usize, Halt> {
        let before = self.trust.conversation(id).map_or(0, |known| known.head().m);
        let result = self.trust.absorb_membership(id, links);
        let own = self.keys.account_id;
        if let Some(conversation) = self.trust.conversation_mut(id)
            && conversation.head().m > before
        {
            conversation.gone = !conversation.head().members.contains_key(&own);
            self.put_conversation(id);
        }
        result
    }

    /// Remembers which lists an accepted message named, for judging later membership links.
    fn note_lists(&mut self, id: &ConversationId, heads: &[ListHead]) {
        if self.trust.note_lists(id, heads) {
            self.put_conversation(id);
        }
    }

    fn put_account(&mut self, account_id: &AccountId) {
        if let Some(account) = self.trust.account(account_id) {
            self.batch.put(Table::Account, account_id.as_bytes(), account.record());
        }
    }

    fn put_conversation(&mut self, id: &ConversationId) {
        if let Some(conversation) = self.trust.conversation(id) {
            self.batch.put(Table::Conversation, id.as_bytes(), &conversation.record());
        }
    }

    fn put_places(&mut self) {
        self.places.prekey_id = self.ring.last_id();
        self.batch.put(Table::Device, PLACES, &self.places);
    }

    fn put_prekey(&mut self, kind: PrekeyKind, key_id: u32) {
        let name = records::prekey_name(kind, key_id);
        match self.ring.get(kind, key_id) {
            Some(key) => self.batch.put(Table::Prekey, &name, key),
            None => self.batch.delete(Table::Prekey, &name),
        }
    }

    fn put_counter(&mut self, conversation_id: ConversationId, device_id: DeviceId, counter: Counter) {
        self.batch.put(Table::Counter, &counter_name(&conversation_id, &device_id), &counter);
        self.counters.insert((conversation_id, device_id), counter);
    }

    /// All own messages that are not in the history yet.
    pub fn outgoings(&self) -> impl Iterator<Item = &Outgoing> {
        self.outbox.values()
    }

    /// The id of a message by its number in the outbox.
    #[must_use]
    pub fn outgoing_id(&self, number: u64) -> Option<ClientMessageId> {
        self.outbox.get(&number).map(|outgoing| outgoing.client_message_id)
    }

    /// The state of an own message that is not in the history yet.
    #[must_use]
    pub fn outgoing(&self, client_message_id: ClientMessageId) -> Option<&Outgoing> {
        self.outbox.values().find(|outgoing| outgoing.client_message_id == client_message_id)
    }
}
