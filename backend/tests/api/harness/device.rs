//! Devices that speak the protocol: they register, link, sign lists and membership links, and send opaque messages.

use martlet::clock::rng;
use martlet_protocol::{
    chain::{
        devices::{DeviceChain, DeviceList, ListedDevice, sign_list},
        members::{Member, MembershipLink, Signer},
    },
    crypto::{DhSecret, SUITE_1, SigningKey, UnsignedPrekey, sign_in_proof, sign_prekey},
    id::{AccountId, Blob, ClientMessageId, ConversationId, DeviceId, LinkId},
    rest::{
        Conversation, CreateConversation, DeviceBundle, DeviceLabel, DeviceSession, Fork, LinkAnswered, LinkComplete,
        LinkStart, LinkStarted, ListHead, NamedList, PrekeyKind, PrekeyUpload, RegisterRequest, Role, SendRequest,
        SignInRequest, SignedDeviceList, SignedPrekey,
    },
    wire,
};
use prost::Message as _;

use super::TestNode;

pub const PASSWORD: &str = "correct horse battery staple";
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// One device with its keys and what it knows of its account.
pub struct TestDevice {
    pub username: String,
    pub account_id: AccountId,
    pub device_id: DeviceId,
    pub signing: SigningKey,
    pub mailbox: DhSecret,
    pub token: String,
    pub chain: DeviceChain,
    next_key_id: u32,
}

/// What a test may spoil before it registers.
pub fn draw_account(node: &TestNode, username: &str) -> (RegisterRequest, TestDevice) {
    let (signing, mailbox) = (SigningKey::generate(&mut rng()), DhSecret::generate(&mut rng()));
    let (account_id, device_id) = (AccountId::random(&mut rng()), DeviceId::random(&mut rng()));
    let listed = ListedDevice::new(device_id, signing.public(), mailbox.public(), node.now_ms());
    let list = DeviceList::first(account_id, listed, node.now_ms());
    let device_list = SignedDeviceList::sign(&list, &device_id, &signing);
    let chain = DeviceChain::first(&device_list).expect("a sound list");
    let mut device = TestDevice {
        username: username.to_owned(),
        account_id,
        device_id,
        signing,
        mailbox,
        token: String::new(),
        chain,
        next_key_id: 1,
    };
    let request = RegisterRequest {
        username: username.to_owned(),
        password: PASSWORD.to_owned(),
        device_list,
        label: label("first"),
        prekeys: device.prekeys(node, 5),
    };
    (request, device)
}

fn label(name: &str) -> DeviceLabel {
    DeviceLabel { name: name.to_owned(), platform: "linux".to_owned() }
}

pub fn unsigned_prekey(node: &TestNode, kind: PrekeyKind, key_id: u32) -> UnsignedPrekey {
    let public_key = DhSecret::generate(&mut rng()).public();
    UnsignedPrekey { suite: SUITE_1, kind, key_id, public_key, not_after_ms: node.now_ms() + 60 * DAY_MS }
}

/// A link as far as the new device's completion, which a test may spoil.
pub struct TestLink {
    pub link_id: LinkId,
    pub device: TestDevice,
    pub complete: LinkComplete,
}

impl TestDevice {
    pub async fn register(node: &TestNode, username: &str) -> Self {
        let (request, mut device) = draw_account(node, username);
        let session: DeviceSession = node.post("/v1/accounts", "", &request).await.ok(201);
        assert_eq!((session.account_id, session.device_id), (device.account_id, device.device_id));
        device.token = session.token;
        device
    }

    /// What it takes to sign in again, now.
    pub fn sign_in(&self, node: &TestNode) -> SignInRequest {
        let signed_at_ms = node.now_ms();
        SignInRequest {
            username: self.username.clone(),
            password: PASSWORD.to_owned(),
            device_id: self.device_id,
            signed_at_ms,
            proof: sign_in_proof(&self.username, &self.device_id, signed_at_ms, &self.signing),
        }
    }

    /// Links a further device to this one's account.
    pub async fn link(&mut self, node: &TestNode) -> Self {
        let link = self.answer_link(node).await;
        let path = format!("/v1/links/{}/complete", link.link_id.to_text());
        let session: DeviceSession = node.post(&path, "", &link.complete).await.ok(201);
        self.chain = link.device.chain.clone();
        Self { token: session.token, ..link.device }
    }

    /// Everything of a link but its completion.
    pub async fn answer_link(&self, node: &TestNode) -> TestLink {
        let mut device = self.draw_sibling();
        let started: LinkStarted = node.post("/v1/links", "", &LinkStart { offer: device.offer() }).await.ok(201);
        let path = format!("/v1/links/{}/answer", started.link_id.to_text());
        let answer = wire::SealedLinkAnswer { enc: vec![1; 32].into(), ciphertext: vec![2; 64].into() };
        node.put(&path, &self.token, &LinkAnswered { answer: Blob::from(answer.encode_to_vec()) }).await.done();
        let device_list = self.list_with(&device, node.now_ms());
        device.chain = self.chain.extend(&device_list).expect("a sound list");
        let prekeys = device.prekeys(node, 5);
        let poll_secret = started.poll_secret;
        let complete = LinkComplete { poll_secret, device_list, label: label("linked"), prekeys };
        TestLink { link_id: started.link_id, device, complete }
    }

    /// Keys of a device that is to join this one's account.
    pub fn draw_sibling(&self) -> Self {
        Self {
            username: self.username.clone(),
            account_id: self.account_id,
            device_id: DeviceId::random(&mut rng()),
            signing: SigningKey::generate(&mut rng()),
            mailbox: DhSecret::generate(&mut rng()),
            token: String::new(),
            chain: self.chain.clone(),
            next_key_id: 1,
        }
    }

    pub fn offer(&self) -> Blob {
        let offer = wire::LinkOffer {
            device_id: self.device_id.to_wire(),
            signing_key: self.signing.public().to_wire(),
            mailbox_key: self.mailbox.public().to_wire(),
            suites: vec![SUITE_1],
            ephemeral_key: DhSecret::generate(&mut rng()).public().to_wire(),
            name: "linked".to_owned(),
            platform: "linux".to_owned(),
        };
        Blob::from(offer.encode_to_vec())
    }

    /// List n+1 with the other device, signed by both.
    pub fn list_with(&self, other: &Self, now_ms: u64) -> SignedDeviceList {
        let listed = ListedDevice::new(other.device_id, other.signing.public(), other.mailbox.public(), now_ms);
        let mut signed = self.signed(&self.chain.list().with_device(listed, now_ms));
        signed.signatures.push(sign_list(&signed.list.0, &other.device_id, &other.signing));
        signed
    }

    /// List n+1 without the devices.
    pub fn list_without(&self, gone: &[DeviceId], now_ms: u64) -> SignedDeviceList {
        self.signed(&self.chain.list().without(gone, now_ms))
    }

    pub fn signed(&self, list: &DeviceList) -> SignedDeviceList {
        SignedDeviceList::sign(list, &self.device_id, &self.signing)
    }

    pub fn head(&self) -> ListHead {
        self.chain.head()
    }

    pub fn prekey(&self, key: &UnsignedPrekey) -> SignedPrekey {
        sign_prekey(key, &self.device_id, &self.head(), &self.signing)
    }

    /// A fresh signed prekey and so many one-time ones.
    pub fn prekeys(&mut self, node: &TestNode, one_time: u32) -> PrekeyUpload {
        let first = self.next_key_id;
        self.next_key_id += one_time + 1;
        let keys = (first + 1..self.next_key_id)
            .map(|key_id| self.prekey(&unsigned_prekey(node, PrekeyKind::OneTime, key_id)))
            .collect();
        let signed = self.prekey(&unsigned_prekey(node, PrekeyKind::Signed, first));
        PrekeyUpload { signed_prekey: Some(signed), one_time_prekeys: keys }
    }

    pub fn signer(&self) -> Signer {
        Signer::new(self.device_id, &self.head())
    }

    pub fn member(&self, role: Role) -> Member {
        Member { account_id: self.account_id, fingerprint: self.chain.fingerprint(), role }
    }

    pub fn direct_with(&self, node: &TestNode, other: &Self) -> CreateConversation {
        let nonce = *martlet_protocol::id::Hash::random(&mut rng()).as_bytes();
        let (own, others) = (self.chain.fingerprint(), other.chain.fingerprint());
        let link = MembershipLink::create_direct(nonce, self.signer(), own, other.account_id, others, node.now_ms());
        CreateConversation { creation: link.sign(&self.signing), title: None }
    }

    pub fn group_with(&self, node: &TestNode, others: &[Member]) -> CreateConversation {
        let nonce = *martlet_protocol::id::Hash::random(&mut rng()).as_bytes();
        let own = self.chain.fingerprint();
        let others = others.iter().copied();
        let link = MembershipLink::create_group(nonce, self.signer(), own, others, node.now_ms());
        CreateConversation { creation: link.sign(&self.signing), title: None }
    }

    pub fn large_with(&self, node: &TestNode, others: &[Member]) -> CreateConversation {
        let nonce = *martlet_protocol::id::Hash::random(&mut rng()).as_bytes();
        let (own, others) = (self.chain.fingerprint(), others.iter().copied());
        let link = MembershipLink::create_large(nonce, self.signer(), own, others, node.now_ms());
        CreateConversation { creation: link.sign(&self.signing), title: None }
    }

    /// An opaque message for a log.
    pub fn log_message(content: &[u8]) -> SendRequest {
        SendRequest {
            client_message_id: ClientMessageId::random(&mut rng()),
            suite: 200,
            membership_m: 0,
            lists: Vec::new(),
            content: Blob::from(content.to_vec()),
            forks: Vec::new(),
            lifetime_seconds: 0,
            group_epoch: None,
        }
    }

    pub async fn create(&self, node: &TestNode, create: &CreateConversation) -> Conversation {
        node.post("/v1/conversations", &self.token, create).await.ok(201)
    }

    /// An opaque message for exactly these devices.
    pub fn message(&self, membership_m: u64, recipients: &[&Self]) -> SendRequest {
        let mut lists = vec![NamedList { account_id: self.account_id, n: self.chain.n() }];
        for device in recipients {
            if lists.iter().all(|list| list.account_id != device.account_id) {
                lists.push(NamedList { account_id: device.account_id, n: device.chain.n() });
            }
        }
        let fork = |device: &&Self| Fork { device_id: device.device_id, header: Blob::from(vec![1; 85]) };
        SendRequest {
            client_message_id: ClientMessageId::random(&mut rng()),
            suite: SUITE_1,
            membership_m,
            lists,
            content: Blob::from(vec![7; 300]),
            forks: recipients.iter().map(fork).collect(),
            lifetime_seconds: 0,
            group_epoch: None,
        }
    }

    pub fn messages_path(conversation_id: &ConversationId) -> String {
        format!("/v1/conversations/{}/messages", conversation_id.to_text())
    }
}

/// The bundle of a device, if it is there.
pub fn bundle_of<'a>(bundles: &'a [DeviceBundle], device: &TestDevice) -> Option<&'a DeviceBundle> {
    bundles.iter().find(|bundle| bundle.device_id == device.device_id)
}
