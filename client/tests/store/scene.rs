//! A sender in memory and a reader on disk, and the store's file.

use std::path::Path;

use martlet_client::{
    Clock, Device, StoredMessage,
    device::{Founding, NewConversation, PrepareError, SendHalt},
    identity::NewAccount,
    store::{KdfCost, Store, StoreError},
};
use martlet_protocol::{
    id::{ConversationId, EntryId, MessageId},
    rest::{Accepted, ClaimAnswer, DeviceBundle, DeviceLabel, PrekeyUpload, SignedDeviceList},
    seal::MailboxSealer,
    wire::{self, content::Body},
};
use rand::{SeedableRng as _, rngs::StdRng};

const COST: KdfCost = KdfCost { memory_kib: 64, iterations: 1 };
pub const NOW_MS: u64 = 1_900_000_000_000;

pub fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

pub fn file(folder: &Path, passphrase: &str) -> Result<Store, StoreError> {
    Store::file(&folder.join("device.store"), passphrase, COST, &mut rng(1))
}

/// A sender in memory, and a reader on disk that can crash.
pub struct Scene {
    pub folder: tempfile::TempDir,
    pub sender: Device,
    pub stock: PrekeyUpload,
    pub reader: Option<Device>,
    pub conversation: ConversationId,
    pub seq: u64,
    pub rng: StdRng,
}

impl Scene {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut random = rng(9);
        let (mut sender, sender_lists, _) = found(Store::memory(), "alice", &mut random);
        let (mut reader, reader_lists, stock) = found(file(folder.path(), "p").unwrap(), "bob", &mut random);
        sender.absorb_lists(&reader.account_id(), &reader_lists).unwrap();
        reader.absorb_lists(&sender.account_id(), &sender_lists).unwrap();
        let (conversation, link) = sender.creation_link(&NewConversation::Direct(reader.account_id())).unwrap();
        for device in [&mut sender, &mut reader] {
            device.absorb_membership(&conversation, std::slice::from_ref(&link)).unwrap();
            device.commit().unwrap();
        }
        Self { folder, sender, stock, reader: Some(reader), conversation, seq: 0, rng: random }
    }

    pub fn reader(&mut self) -> &mut Device {
        self.reader.as_mut().expect("it is running")
    }

    /// The process dies, and starts again from the disk.
    pub fn crash(&mut self) {
        self.reader = None;
        let store = file(self.folder.path(), "p").unwrap();
        self.reader = Some(Device::open(store, Clock::manual(NOW_MS), rng(77)).unwrap());
    }

    /// A message as the reader's mailbox holds it.
    pub fn entry(&mut self, text: &str) -> wire::MailboxEntry {
        self.entry_of(&text_content(text))
    }

    /// The same of any content.
    pub fn entry_of(&mut self, content: &wire::Content) -> wire::MailboxEntry {
        self.sender.enqueue(self.conversation, content, 0).unwrap();
        let number = self.sender.due()[0].0;
        let request = loop {
            match self.sender.prepare(number) {
                Ok(prepared) => break prepared.unwrap().request,
                Err(PrepareError::Halt(SendHalt::Claim(claim))) => {
                    let bundle = DeviceBundle {
                        account_id: claim.accounts[0].account_id,
                        device_id: claim.accounts[0].device_ids[0],
                        signed_prekey: self.stock.signed_prekey.clone().unwrap(),
                        one_time_prekey: self.stock.one_time_prekeys.pop(),
                    };
                    let answer = ClaimAnswer { bundles: vec![bundle], lists: Vec::new(), dormant: Vec::new() };
                    self.sender.absorb_claim(&claim, &answer).unwrap();
                }
                Err(other) => panic!("{other}"),
            }
        };
        let message_id = MessageId::random(&mut self.rng);
        let accepted = Accepted { message_id, accepted_at_ms: NOW_MS, partial_device_ids: Vec::new(), log_seq: None };
        self.sender.on_accepted(number, &accepted).unwrap();
        let sealed = wire::SealedMessage {
            message_id: message_id.to_wire(),
            sender_account_id: self.sender.account_id().to_wire(),
            sender_device_id: self.sender.device_id().to_wire(),
            conversation_id: request.conversation_id.clone(),
            client_message_id: request.client_message_id.clone(),
            accepted_at_ms: NOW_MS,
            suite: request.suite,
            fork_header: request.forks[0].header.clone(),
            content: request.content.clone(),
            content_sha256: bytes::Bytes::new(),
        };
        self.seq += 1;
        let entry_id = EntryId::random(&mut self.rng);
        let keys = self.reader().keys().clone();
        let sealer = MailboxSealer::new(&mut self.rng, &keys.mailbox.public()).unwrap();
        let sealed = sealer.seal(&keys.device_id, &entry_id, &sealed);
        wire::MailboxEntry { seq: self.seq, entry_id: entry_id.to_wire(), sealed, content: bytes::Bytes::new() }
    }

    pub fn texts(&mut self) -> Vec<String> {
        let history = self.reader().history(0, usize::MAX).unwrap();
        history.iter().filter_map(StoredMessage::text).collect()
    }

    pub fn cursor(&mut self) -> u64 {
        self.reader().cursor().map_or(0, |cursor| cursor.seq)
    }
}

pub fn found(store: Store, username: &str, rng: &mut StdRng) -> (Device, Vec<SignedDeviceList>, PrekeyUpload) {
    let label = DeviceLabel { name: "d".into(), platform: "test".into() };
    let new = NewAccount::generate(username, "password", label, 3, NOW_MS, rng).unwrap();
    let lists = vec![new.list];
    let founding = Founding {
        keys: new.keys,
        prekeys: new.prekeys,
        lists: lists.clone(),
        username: username.into(),
        server: "http://test".into(),
    };
    let mut device = Device::found(store, founding, Clock::manual(NOW_MS), StdRng::from_rng(rng)).unwrap();
    let mailbox = Some(wire::MailboxState { epoch: 5, head_seq: 0, acked_seq: 0 });
    device.on_hello(&wire::Hello { mailbox, ..wire::Hello::default() }).unwrap();
    (device, lists, new.request.prekeys)
}

pub fn text_content(text: &str) -> wire::Content {
    wire::Content { body: Some(Body::Text(wire::Text { text: text.into(), reply_to: None })) }
}
