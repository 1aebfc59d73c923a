//! Two or more accounts and an honest carrier between them, all in memory.

use std::collections::HashMap;

use martlet_client::{
    Clock, Device, Event, Refused, StoredMessage,
    device::{Founding, MismatchError, NewConversation, PrepareError, SendHalt},
    identity::{DeviceKeys, NewAccount, PrekeyRing},
    store::Store,
    trust::{Halt, Need},
};
use martlet_protocol::{
    chain::devices::DeviceChain,
    id::{AccountId, ConversationId, DeviceId, EntryId, Hash, MessageId},
    rest::{
        Accepted, AccountLists, ClaimAnswer, ClaimRequest, DeviceBundle, DeviceLabel, Mismatch, PrekeyUpload,
        SignedDeviceList, SignedMembershipLink,
    },
    seal::MailboxSealer,
    suite1::echo_header,
    wire::{self, content::Body},
};
use rand::{SeedableRng as _, rngs::StdRng};

pub const START_MS: u64 = 1_900_000_000_000;
const ONE_TIME: usize = 5;

/// One device and what the server holds of it.
pub struct Peer {
    pub device: Device,
    pub stock: PrekeyUpload,
    pub seq: u64,
}

/// The server's knowledge, and all devices.
pub struct World {
    pub clock: Clock,
    pub rng: StdRng,
    pub peers: Vec<Peer>,
    pub lists: HashMap<AccountId, Vec<SignedDeviceList>>,
    pub links: HashMap<ConversationId, Vec<SignedMembershipLink>>,
}

/// Alice's first device, her second, and Bob's.
pub const ALICE: usize = 0;
pub const BOB: usize = 1;

impl World {
    /// Alice and Bob with a device each, who know each other and have a direct conversation.
    pub fn pair() -> (Self, ConversationId) {
        let mut world = Self::new();
        world.register("alice");
        world.register("bob");
        let conversation = world.direct(ALICE, BOB);
        (world, conversation)
    }

    pub fn new() -> Self {
        Self {
            clock: Clock::manual(START_MS),
            rng: StdRng::seed_from_u64(1701),
            peers: Vec::new(),
            lists: HashMap::new(),
            links: HashMap::new(),
        }
    }

    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub fn fork_rng(&mut self) -> StdRng {
        StdRng::from_rng(&mut self.rng)
    }

    pub fn register(&mut self, username: &str) -> usize {
        let label = DeviceLabel { name: "d".into(), platform: "test".into() };
        let now_ms = self.now_ms();
        let new = NewAccount::generate(username, "password", label, ONE_TIME, now_ms, &mut self.rng).unwrap();
        let lists = vec![new.list];
        self.lists.insert(new.keys.account_id, lists.clone());
        let founding = Founding {
            keys: new.keys,
            prekeys: new.prekeys,
            lists,
            username: username.into(),
            server: "http://test".into(),
        };
        self.found(founding, new.request.prekeys)
    }

    fn found(&mut self, founding: Founding, stock: PrekeyUpload) -> usize {
        let rng = self.fork_rng();
        let mut device = Device::found(Store::memory(), founding, self.clock.clone(), rng).unwrap();
        let hello = wire::Hello {
            mailbox: Some(wire::MailboxState { epoch: 1, head_seq: 0, acked_seq: 0 }),
            ..wire::Hello::default()
        };
        device.on_hello(&hello).unwrap();
        self.peers.push(Peer { device, stock, seq: 0 });
        self.peers.len() - 1
    }

    /// A further device of a peer's account, by a list that both signed. The peer itself knows it; others don't yet.
    pub fn link_device(&mut self, existing: usize) -> usize {
        let (keys, prekeys, stock, list) = self.next_device(existing);
        let account_id = keys.account_id;
        self.lists.get_mut(&account_id).unwrap().push(list);
        let lists = self.lists[&account_id].clone();
        self.peers[existing].device.absorb_lists(&account_id, &lists).unwrap();
        let founding = Founding { keys, prekeys, lists, username: "u".into(), server: "http://test".into() };
        self.found(founding, stock)
    }

    /// Keys of a further device and the list that would add it, which nobody has seen yet.
    pub fn next_device(&mut self, existing: usize) -> (DeviceKeys, PrekeyRing, PrekeyUpload, SignedDeviceList) {
        let now_ms = self.now_ms();
        let account_id = self.account(existing);
        let keys = DeviceKeys::generate(account_id, &mut self.rng);
        let chain = self.chain(existing);
        let next = chain.list().with_device(keys.listed(now_ms), now_ms);
        let signer = self.peers[existing].device.keys();
        let proposed = SignedDeviceList::sign(&next, &signer.device_id, &signer.signing);
        let list = chain.countersign(&proposed, &keys.device_id, &keys.signing).unwrap();
        let head = chain.extend(&list).unwrap().head();
        let mut prekeys = PrekeyRing::default();
        let stock = prekeys.first_upload(&keys, &head, ONE_TIME, now_ms, &mut self.rng);
        (keys, prekeys, stock, list)
    }

    /// The list that removes a device, taken by the signer and the server only.
    pub fn remove_device(&mut self, signer: usize, gone: usize) -> SignedDeviceList {
        let id = self.device_id(gone);
        let list = self.peers[signer].device.list_without(&[id]).unwrap();
        let account_id = self.account(signer);
        self.lists.get_mut(&account_id).unwrap().push(list.clone());
        self.peers[signer].device.absorb_lists(&account_id, std::slice::from_ref(&list)).unwrap();
        list
    }

    pub fn account(&self, peer: usize) -> AccountId {
        self.peers[peer].device.account_id()
    }

    pub fn device_id(&self, peer: usize) -> DeviceId {
        self.peers[peer].device.device_id()
    }

    pub fn chain(&self, peer: usize) -> DeviceChain {
        DeviceChain::replay(&self.lists[&self.account(peer)]).unwrap()
    }

    /// Shows a peer what the server has of another's account.
    pub fn introduce(&mut self, peer: usize, other: usize) {
        let id = self.account(other);
        let lists = self.lists[&id].clone();
        self.peers[peer].device.absorb_lists(&id, &lists).unwrap();
    }

    pub fn direct(&mut self, one: usize, other: usize) -> ConversationId {
        self.introduce(one, other);
        self.introduce(other, one);
        let new = NewConversation::Direct(self.account(other));
        self.create(one, &[one, other], &new)
    }

    pub fn create(&mut self, creator: usize, members: &[usize], new: &NewConversation) -> ConversationId {
        let (id, link) = self.peers[creator].device.creation_link(new).unwrap();
        self.links.insert(id, vec![link.clone()]);
        for member in members {
            self.peers[*member].device.absorb_membership(&id, std::slice::from_ref(&link)).unwrap();
        }
        id
    }

    /// What an honest server answers to a claim.
    pub fn claim(&mut self, request: &ClaimRequest) -> ClaimAnswer {
        let mut bundles = Vec::new();
        for account in &request.accounts {
            for peer in self.peers.iter_mut().filter(|peer| account.device_ids.contains(&peer.device.device_id())) {
                bundles.push(bundle(peer));
            }
        }
        let lists = request
            .accounts
            .iter()
            .map(|account| AccountLists {
                account_id: account.account_id,
                lists: self.lists[&account.account_id].iter().skip(account.known_n as usize).cloned().collect(),
            })
            .collect();
        ClaimAnswer { bundles, lists, dormant: Vec::new() }
    }

    /// Makes a peer say something, up to the request that would go to the server; `lie` may change what it is told on the way.
    pub fn compose_with(
        &mut self,
        peer: usize,
        conversation: ConversationId,
        text: &str,
        lie: impl Fn(&mut Self, &mut ClaimAnswer),
    ) -> Result<(u64, wire::SendRequest), Refused> {
        self.peers[peer].device.enqueue(conversation, &text_content(text), 0).unwrap();
        self.prepare_with(peer, conversation, lie)
    }

    /// The same for what is in the outbox already.
    pub fn prepare_with(
        &mut self,
        peer: usize,
        conversation: ConversationId,
        lie: impl Fn(&mut Self, &mut ClaimAnswer),
    ) -> Result<(u64, wire::SendRequest), Refused> {
        let due = self.peers[peer].device.due();
        let number = due.into_iter().find(|(_, id)| *id == conversation).expect("something is due").0;
        loop {
            match self.peers[peer].device.prepare(number) {
                Ok(prepared) => return Ok((number, prepared.expect("it is in the outbox").request)),
                Err(PrepareError::Halt(SendHalt::Claim(request))) => {
                    let mut answer = self.claim(&request);
                    lie(self, &mut answer);
                    self.peers[peer].device.absorb_claim(&request, &answer)?;
                }
                Err(PrepareError::Halt(SendHalt::Need(need))) => self.meet(peer, need)?,
                Err(PrepareError::Halt(SendHalt::Refused(refused))) => return Err(refused),
                Err(other) => panic!("{other}"),
            }
        }
    }

    pub fn compose(&mut self, peer: usize, conversation: ConversationId, text: &str) -> (u64, wire::SendRequest) {
        self.compose_with(peer, conversation, text, |_, _| {}).unwrap()
    }

    /// A whole honest send: composed and accepted.
    pub fn send(&mut self, peer: usize, conversation: ConversationId, text: &str) -> wire::SendRequest {
        let (number, request) = self.compose(peer, conversation, text);
        self.accept(peer, number);
        request
    }

    pub fn accept(&mut self, peer: usize, number: u64) -> MessageId {
        let message_id = MessageId::random(&mut self.rng);
        let accepted =
            Accepted { message_id, accepted_at_ms: self.now_ms(), partial_device_ids: Vec::new(), log_seq: None };
        self.peers[peer].device.on_accepted(number, &accepted).unwrap();
        message_id
    }

    fn meet(&mut self, peer: usize, need: Need) -> Result<(), Refused> {
        let taken = match need {
            Need::Lists { account_id, after } => {
                let lists: Vec<_> = self.lists[&account_id].iter().skip(after as usize).cloned().collect();
                self.peers[peer].device.absorb_lists(&account_id, &lists).map(|change| !change.is_empty())
            }
            Need::Membership { conversation_id, .. } => {
                let links = self.links[&conversation_id].clone();
                match self.peers[peer].device.absorb_membership(&conversation_id, &links) {
                    Ok(new) => Ok(new > 0),
                    Err(Halt::Refused(refused)) => Err(refused),
                    Err(Halt::Need(deeper)) => return self.meet(peer, deeper),
                }
            }
        };
        if taken? { Ok(()) } else { Err(Refused::ChainWithheld) }
    }

    /// What the node writes around a request for one device.
    pub fn envelope(&mut self, sender: usize, request: &wire::SendRequest, recipient: usize) -> wire::SealedMessage {
        let id = self.device_id(recipient).to_wire();
        let header = request.forks.iter().find(|fork| fork.device_id == id).map(|fork| fork.header.clone());
        wire::SealedMessage {
            message_id: MessageId::random(&mut self.rng).to_wire(),
            sender_account_id: self.account(sender).to_wire(),
            sender_device_id: self.device_id(sender).to_wire(),
            conversation_id: request.conversation_id.clone(),
            client_message_id: request.client_message_id.clone(),
            accepted_at_ms: self.now_ms(),
            suite: request.suite,
            fork_header: header.unwrap_or_else(echo_header),
            content: request.content.clone(),
            content_sha256: bytes::Bytes::new(),
        }
    }

    /// Seals an envelope and puts it into a peer's mailbox; returns what the peer made of it.
    pub fn deliver(&mut self, recipient: usize, envelope: &wire::SealedMessage) -> Vec<Event> {
        let entry = self.seal(recipient, envelope);
        self.receive(recipient, &entry)
    }

    pub fn seal(&mut self, recipient: usize, envelope: &wire::SealedMessage) -> wire::MailboxEntry {
        let entry_id = EntryId::random(&mut self.rng);
        let public = self.peers[recipient].device.keys().mailbox.public();
        let sealer = MailboxSealer::new(&mut self.rng, &public).unwrap();
        let peer = &mut self.peers[recipient];
        peer.seq += 1;
        let sealed = sealer.seal(&peer.device.device_id(), &entry_id, envelope);
        wire::MailboxEntry { seq: peer.seq, entry_id: entry_id.to_wire(), sealed, content: bytes::Bytes::new() }
    }

    pub fn receive(&mut self, recipient: usize, entry: &wire::MailboxEntry) -> Vec<Event> {
        loop {
            match self.peers[recipient].device.receive(entry) {
                Ok(events) => {
                    self.peers[recipient].device.commit().unwrap();
                    return events;
                }
                Err(need) => {
                    if let Err(refused) = self.meet(recipient, need) {
                        return self.peers[recipient].device.refuse_entry(entry, refused);
                    }
                }
            }
        }
    }

    /// Sends honestly and delivers honestly.
    pub fn say(&mut self, sender: usize, conversation: ConversationId, text: &str, recipient: usize) -> Vec<Event> {
        let request = self.send(sender, conversation, text);
        let envelope = self.envelope(sender, &request, recipient);
        self.deliver(recipient, &envelope)
    }

    pub fn texts(&self, peer: usize) -> Vec<String> {
        self.history(peer).iter().filter_map(StoredMessage::text).collect()
    }

    pub fn history(&self, peer: usize) -> Vec<StoredMessage> {
        self.peers[peer].device.history(0, usize::MAX).unwrap()
    }
}

/// What an honest server hands out for a device: a one-time key while there are some.
pub fn bundle(peer: &mut Peer) -> DeviceBundle {
    DeviceBundle {
        account_id: peer.device.account_id(),
        device_id: peer.device.device_id(),
        signed_prekey: peer.stock.signed_prekey.clone().expect("a device registers with one"),
        one_time_prekey: peer.stock.one_time_prekeys.pop(),
    }
}

pub fn text_content(text: &str) -> wire::Content {
    wire::Content { body: Some(Body::Text(wire::Text { text: text.into(), reply_to: None })) }
}

/// What was refused, if anything was.
pub fn refused(events: &[Event]) -> Vec<Refused> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Refused { refused, .. } => Some(*refused),
            _ => None,
        })
        .collect()
}

/// What a mismatch was refused with.
pub fn mismatch_refused(world: &mut World, peer: usize, number: u64, mismatch: &Mismatch) -> Refused {
    match world.peers[peer].device.on_mismatch(number, mismatch) {
        Err(MismatchError::Halt(Halt::Refused(refused))) => refused,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the mismatch was followed"),
    }
}

pub fn list_hash(list: &SignedDeviceList) -> Hash {
    Hash::of(&list.list.0)
}
