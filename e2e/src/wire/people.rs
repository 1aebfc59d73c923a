//! Accounts, their devices and the conversations between them, made the way the protocol has it, with real keys and signatures.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use martlet_protocol::{
    chain::{
        devices::{DeviceChain, DeviceList, ListedDevice, sign_list},
        members::{Member, MembershipLink, Signer},
    },
    crypto::{DhSecret, SUITE_1, SigningKey, UnsignedPrekey, sign_prekey},
    id::{AccountId, ConversationId, DeviceId, to_base64},
    rest::{self, ListHead, PrekeyKind, SignedDeviceList},
    seal::MailboxOpener,
    wire,
};
use parking_lot::Mutex;
use prost::Message as _;
use rand::{Rng as _, rngs::StdRng};

use super::{Rest, RestError};
use crate::clock;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// One-time prekeys that a device starts with. More only makes registration slower.
const ONE_TIME_PREKEYS: u32 = 8;
/// Of every account here.
pub const PASSWORD: &str = "correct horse battery";

/// A device with its keys and, once it is listed, its token.
pub struct Device {
    /// Drawn by itself.
    pub device_id: DeviceId,
    /// Whose.
    pub account_id: AccountId,
    /// For requests and sockets.
    pub token: String,
    /// Signs lists, memberships, prekeys.
    pub signing: SigningKey,
    pub(super) opener: Mutex<MailboxOpener>,
}

/// A device's keys before it is part of an account.
struct NewDevice {
    device_id: DeviceId,
    signing: SigningKey,
    mailbox: DhSecret,
    prekeys: Vec<(PrekeyKind, u32, DhSecret)>,
}

/// An account and its devices, the first one first.
pub struct Account {
    /// Drawn by the client.
    pub account_id: AccountId,
    /// As registered.
    pub username: String,
    /// Verified like anybody's.
    pub chain: DeviceChain,
    /// Not since revoked.
    pub devices: Vec<Arc<Device>>,
}

/// A device's end, signed and ready to be asked for.
pub struct Revocation {
    device_id: DeviceId,
    chain: DeviceChain,
    request: rest::RevokeRequest,
}

/// Who is in a conversation, as its senders know it.
#[derive(Debug, Clone)]
pub struct Circle {
    /// Hash of the creation record.
    pub conversation_id: ConversationId,
    /// Number of the newest membership link.
    pub membership_m: u64,
    /// The newest list of every member.
    pub members: Vec<ListHead>,
    devices: Vec<DeviceId>,
}

impl NewDevice {
    fn draw(rng: &mut StdRng) -> Self {
        let kinds = std::iter::once(PrekeyKind::Signed).chain((0..ONE_TIME_PREKEYS).map(|_| PrekeyKind::OneTime));
        Self {
            device_id: DeviceId::random(rng),
            signing: SigningKey::generate(rng),
            mailbox: DhSecret::generate(rng),
            prekeys: kinds.zip(1..).map(|(kind, id)| (kind, id, DhSecret::generate(rng))).collect(),
        }
    }

    fn listed(&self, now_ms: u64) -> ListedDevice {
        ListedDevice::new(self.device_id, self.signing.public(), self.mailbox.public(), now_ms)
    }

    fn prekeys(&self, head: &ListHead, now_ms: u64) -> rest::PrekeyUpload {
        let sign = |(kind, key_id, secret): &(PrekeyKind, u32, DhSecret)| {
            let key = UnsignedPrekey {
                suite: SUITE_1,
                kind: *kind,
                key_id: *key_id,
                public_key: secret.public(),
                not_after_ms: now_ms + 60 * DAY_MS,
            };
            sign_prekey(&key, &self.device_id, head, &self.signing)
        };
        let (signed, one_time): (Vec<_>, Vec<_>) =
            self.prekeys.iter().map(sign).partition(|key| key.kind == PrekeyKind::Signed);
        rest::PrekeyUpload { signed_prekey: signed.into_iter().next(), one_time_prekeys: one_time }
    }

    fn join(self, session: rest::DeviceSession) -> Arc<Device> {
        Arc::new(Device {
            device_id: self.device_id,
            account_id: session.account_id,
            token: session.token,
            signing: self.signing,
            opener: Mutex::new(MailboxOpener::new(self.mailbox)),
        })
    }
}

fn label(number: usize) -> rest::DeviceLabel {
    rest::DeviceLabel { name: format!("device {number}"), platform: "test".into() }
}

impl Account {
    /// Registers an account and links further devices until it has `devices`.
    ///
    /// # Errors
    /// The node refused.
    pub async fn register(rest: &Rest, rng: &mut StdRng, username: &str, devices: usize) -> Result<Self> {
        let now_ms = clock::now_ms();
        let first = NewDevice::draw(rng);
        let account_id = AccountId::random(rng);
        let list = DeviceList::first(account_id, first.listed(now_ms), now_ms);
        let device_list = SignedDeviceList::sign(&list, &first.device_id, &first.signing);
        let chain = DeviceChain::first(&device_list)?;
        let request = rest::RegisterRequest {
            username: username.to_owned(),
            password: PASSWORD.to_owned(),
            device_list,
            label: label(1),
            prekeys: first.prekeys(&chain.head(), now_ms),
        };
        let session = rest.post("/v1/accounts", None, &request).await.context("registering")?;
        let mut account = Self { account_id, username: username.to_owned(), chain, devices: vec![first.join(session)] };
        while account.devices.len() < devices {
            account.link(rest, rng).await?;
        }
        Ok(account)
    }

    /// Links one device more, through the first.
    ///
    /// # Errors
    /// The node refused.
    pub async fn link(&mut self, rest: &Rest, rng: &mut StdRng) -> Result<Arc<Device>> {
        let now_ms = clock::now_ms();
        let (new, through) = (NewDevice::draw(rng), self.devices[0].clone());
        let offer = wire::LinkOffer {
            device_id: new.device_id.to_wire(),
            signing_key: new.signing.public().to_wire(),
            mailbox_key: new.mailbox.public().to_wire(),
            suites: vec![SUITE_1],
            ephemeral_key: DhSecret::generate(rng).public().to_wire(),
            name: label(0).name,
            platform: label(0).platform,
        };
        let offer = rest::LinkStart { offer: offer.encode_to_vec().into() };
        let started: rest::LinkStarted = rest.post("/v1/links", None, &offer).await.context("offering a link")?;

        // The answer is sealed between the two devices, which here are one program: the node can't tell.
        let mut bytes = [0; 160];
        rng.fill_bytes(&mut bytes);
        let sealed =
            wire::SealedLinkAnswer { enc: bytes[..32].to_vec().into(), ciphertext: bytes[32..].to_vec().into() };
        let answer = rest::LinkAnswered { answer: sealed.encode_to_vec().into() };
        let path = format!("/v1/links/{}", started.link_id.to_text());
        let () =
            rest.put(&format!("{path}/answer"), Some(&through.token), &answer).await.context("answering a link")?;

        let list = self.chain.list().with_device(new.listed(now_ms), now_ms);
        let mut device_list = SignedDeviceList::sign(&list, &through.device_id, &through.signing);
        device_list.signatures.push(sign_list(&device_list.list.0, &new.device_id, &new.signing));
        let chain = self.chain.extend(&device_list)?;
        let complete = rest::LinkComplete {
            poll_secret: started.poll_secret,
            device_list,
            label: label(self.devices.len() + 1),
            prekeys: new.prekeys(&chain.head(), now_ms),
        };
        let session = rest.post(&format!("{path}/complete"), None, &complete).await.context("completing a link")?;
        self.chain = chain;
        let device = new.join(session);
        self.devices.push(device.clone());
        Ok(device)
    }

    /// Revokes one of the devices, by the hand of the first.
    ///
    /// # Errors
    /// The node refused.
    pub async fn revoke(&mut self, rest: &Rest, device_id: DeviceId) -> Result<()> {
        let revocation = self.revocation(device_id)?;
        Ok(self.revoke_by(rest, &revocation).await?)
    }

    /// The signed list without one of the devices, by the hand of the first: the same for every attempt to append it.
    ///
    /// # Errors
    /// It is the last device, or none of the account's.
    pub fn revocation(&self, device_id: DeviceId) -> Result<Revocation> {
        let through = &self.devices[0];
        let list = self.chain.list().without(&[device_id], clock::now_ms());
        let device_list = SignedDeviceList::sign(&list, &through.device_id, &through.signing);
        let chain = self.chain.extend(&device_list)?;
        Ok(Revocation { device_id, chain, request: rest::RevokeRequest { device_list } })
    }

    /// One attempt at a revocation. It may be made again, at any node.
    ///
    /// # Errors
    /// [`RestError`].
    pub async fn revoke_by(&mut self, rest: &Rest, revocation: &Revocation) -> Result<(), RestError> {
        let token = self.devices[0].token.clone();
        let _: serde_json::Value = rest.post("/v1/devices/revoke", Some(&token), &revocation.request).await?;
        self.chain = revocation.chain.clone();
        self.devices.retain(|device| device.device_id != revocation.device_id);
        Ok(())
    }
}

impl Device {
    /// Claims keys of all devices of these accounts, as a sender does before its first message to them.
    ///
    /// # Errors
    /// [`RestError`].
    pub async fn claim(&self, rest: &Rest, accounts: &[&Account]) -> Result<rest::ClaimAnswer, RestError> {
        let accounts = accounts
            .iter()
            .map(|account| rest::ClaimAccount {
                account_id: account.account_id,
                known_n: account.chain.n(),
                device_ids: account
                    .devices
                    .iter()
                    .map(|device| device.device_id)
                    .filter(|device| *device != self.device_id)
                    .collect(),
            })
            // An empty list would mean all.
            .filter(|account| !account.device_ids.is_empty())
            .collect();
        rest.post("/v1/bundles", Some(&self.token), &rest::ClaimRequest { accounts }).await
    }
}

impl Circle {
    /// A direct conversation of two accounts, created by the first device of the first.
    ///
    /// # Errors
    /// The node refused.
    pub async fn direct(rest: &Rest, rng: &mut StdRng, one: &Account, other: &Account) -> Result<Self> {
        let link = MembershipLink::create_direct(
            nonce(rng),
            Signer::new(one.devices[0].device_id, &one.chain.head()),
            one.chain.fingerprint(),
            other.account_id,
            other.chain.fingerprint(),
            clock::now_ms(),
        );
        Self::create(rest, &link, &[one, other]).await
    }

    /// A group, created by the first device of the first account, which becomes its owner.
    ///
    /// # Errors
    /// The node refused.
    pub async fn group(rest: &Rest, rng: &mut StdRng, accounts: &[&Account]) -> Result<Self> {
        let owner = accounts[0];
        let others = accounts[1..].iter().map(|account| Member {
            account_id: account.account_id,
            fingerprint: account.chain.fingerprint(),
            role: rest::Role::Member,
        });
        let link = MembershipLink::create_group(
            nonce(rng),
            Signer::new(owner.devices[0].device_id, &owner.chain.head()),
            owner.chain.fingerprint(),
            others,
            clock::now_ms(),
        );
        Self::create(rest, &link, accounts).await
    }

    async fn create(rest: &Rest, link: &MembershipLink, accounts: &[&Account]) -> Result<Self> {
        let creator = &accounts[0].devices[0];
        let creation = link.sign(&creator.signing);
        let request = rest::CreateConversation { creation, title: None };
        let made: rest::Conversation =
            rest.post("/v1/conversations", Some(&creator.token), &request).await.context("creating a conversation")?;
        Ok(Self::known(made.conversation_id, made.membership_m, accounts))
    }

    /// A conversation that exists, with its members as they are now.
    #[must_use]
    pub fn known(conversation_id: ConversationId, membership_m: u64, accounts: &[&Account]) -> Self {
        let devices = accounts.iter().flat_map(|account| account.devices.iter().map(|device| device.device_id));
        let members = accounts.iter().map(|account| account.chain.head()).collect();
        Self::of(conversation_id, membership_m, members, devices.collect())
    }

    /// A conversation that exists, with the newest lists of its members and all devices on them.
    #[must_use]
    pub fn of(
        conversation_id: ConversationId,
        membership_m: u64,
        members: Vec<ListHead>,
        devices: Vec<DeviceId>,
    ) -> Self {
        Self { conversation_id, membership_m, members, devices }
    }

    /// Every device of every member.
    pub fn devices(&self) -> impl Iterator<Item = DeviceId> {
        self.devices.iter().copied()
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn has(&self, device: &DeviceId) -> bool {
        self.devices.contains(device)
    }
}

fn nonce(rng: &mut StdRng) -> [u8; 32] {
    let mut nonce = [0; 32];
    rng.fill_bytes(&mut nonce);
    nonce
}

/// A username that no other test draws.
pub fn username(prefix: &str, rng: &mut StdRng) -> String {
    let mut bytes = [0; 6];
    rng.fill_bytes(&mut bytes);
    format!("{prefix}-{}", to_base64(&bytes).to_lowercase())
}
