//! Reading a device back from its store.

use martlet_protocol::{
    crypto::{DhSecret, SigningKey},
    id::{ConversationId, DeviceId, MessageId},
    rest::PrekeyKind,
};
use rand::rngs::StdRng;

use super::{
    Device,
    records::{Counter, IDENTITY, IdentityRecord, Outgoing, PLACES, Places, SESSION, SeenRecord, SessionRecord},
};
use crate::{
    ambient::Clock,
    error::ClientError,
    identity::{DeviceKeys, Prekey, PrekeyRing},
    store::{Store, StoreError, Table},
    targets::Target,
    trust::{AccountRecord, ConversationRecord, Halt, KnownAccount},
};

impl Device {
    /// Opens the device that the store holds, checking all chains anew.
    ///
    /// # Errors
    /// [`ClientError::NoDevice`], [`ClientError::Store`].
    pub fn open(store: Store, clock: Clock, rng: StdRng) -> Result<Self, ClientError> {
        let identity: IdentityRecord = store.get(Table::Device, IDENTITY)?.ok_or(ClientError::NoDevice)?;
        let keys = DeviceKeys {
            account_id: identity.account_id,
            device_id: identity.device_id,
            signing: SigningKey::from_bytes(identity.signing.expose()),
            mailbox: DhSecret::from_bytes(identity.mailbox.expose()),
        };
        let mut device = Self::bare(store, keys, clock, rng);
        device.username = identity.username;
        device.server = identity.server;
        device.session = device.store.get::<SessionRecord>(Table::Device, SESSION)?.unwrap_or_default();
        device.places = device.store.get::<Places>(Table::Device, PLACES)?.unwrap_or_default();
        device.load_prekeys()?;
        device.load_trust()?;
        device.load_traffic()?;
        Ok(device)
    }

    /// Whether the store holds a device.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn exists(store: &Store) -> Result<bool, StoreError> {
        Ok(store.get::<IdentityRecord>(Table::Device, IDENTITY)?.is_some())
    }

    /// Forgets the device, which the server never took.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn abandon(mut self) -> Result<(), StoreError> {
        self.store.clear()
    }

    fn load_prekeys(&mut self) -> Result<(), StoreError> {
        let mut keys = Vec::new();
        for (name, key) in self.store.all::<Prekey>(Table::Prekey)? {
            let (kind, id) = name.split_first().ok_or(StoreError::Unreadable(Table::Prekey))?;
            let id = id.try_into().map(u32::from_be_bytes).map_err(|_| StoreError::Unreadable(Table::Prekey))?;
            let kind = if *kind == 1 { PrekeyKind::Signed } else { PrekeyKind::OneTime };
            keys.push(((kind, id), key));
        }
        self.ring = PrekeyRing::restore(keys, self.places.prekey_id);
        Ok(())
    }

    fn load_trust(&mut self) -> Result<(), StoreError> {
        for (_, record) in self.store.all::<AccountRecord>(Table::Account)? {
            let account = KnownAccount::restore(record).map_err(|_| StoreError::Unreadable(Table::Account))?;
            self.trust.restore_account(account);
        }
        for (name, record) in self.store.all::<ConversationRecord>(Table::Conversation)? {
            let unreadable = StoreError::Unreadable(Table::Conversation);
            let Ok(id) = ConversationId::try_from(name.as_slice()) else { return Err(unreadable) };
            self.trust.restore_conversation(id, record).map_err(|_: Halt| unreadable)?;
        }
        Ok(())
    }

    fn load_traffic(&mut self) -> Result<(), StoreError> {
        for (name, target) in self.store.all::<Target>(Table::Bundle)? {
            let id = DeviceId::try_from(name.as_slice()).map_err(|_| StoreError::Unreadable(Table::Bundle))?;
            self.targets.insert(id, target);
        }
        for (name, counter) in self.store.all::<Counter>(Table::Counter)? {
            let unreadable = || StoreError::Unreadable(Table::Counter);
            let (conversation, device) = name.split_at_checked(ConversationId::LEN).ok_or_else(unreadable)?;
            let conversation = ConversationId::try_from(conversation).map_err(|_| unreadable())?;
            let device = DeviceId::try_from(device).map_err(|_| unreadable())?;
            self.counters.insert((conversation, device), counter);
        }
        self.outbox = self.store.after::<Outgoing>(Table::Outbox, 0, usize::MAX)?.into_iter().collect();
        let now_ms = self.now_ms();
        for (name, record) in self.store.all::<SeenRecord>(Table::Seen)? {
            if record.is_forgettable(now_ms) {
                self.batch.delete(Table::Seen, &name);
                continue;
            }
            let id = MessageId::try_from(name.as_slice()).map_err(|_| StoreError::Unreadable(Table::Seen))?;
            self.seen.insert(id, record);
        }
        self.resends = self.store.all::<u64>(Table::Resend)?.into_iter().collect();
        self.load_receipts()
    }
}
