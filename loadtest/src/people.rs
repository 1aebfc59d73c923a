//! Accounts and devices for a measurement, made through the public API as anybody's are: registered, linked through an existing device,
//! in a direct conversation. Their keys stay in memory.

use anyhow::{Context as _, Result, anyhow, ensure};
use martlet_client::{
    api::Api,
    identity::{DeviceKeys, NewAccount, PrekeyRing},
};
use martlet_protocol::{
    chain::{
        devices::{DeviceChain, sign_list},
        members::{MAX_CHANGES_PER_LINK, Member, MembershipChain, MembershipChange, MembershipLink, Signer},
    },
    crypto::{DhSecret, KNOWN_SUITES, VerifiedPrekey},
    id::{AccountId, Blob, ConversationId, DeviceId, Hash},
    link::{self, LinkCode},
    rest::{self, SignedDeviceList},
    wire,
};
use prost::Message as _;
use rand::{Rng as _, rngs::StdRng};

use crate::ambient;

/// One-time prekeys per device: one for each sender that may write to it here, and one to spare.
const ONE_TIME_PREKEYS: usize = 2;

/// A device and how it proves itself to the node.
pub struct Device {
    /// Its keys.
    pub keys: DeviceKeys,
    /// The private halves of its prekeys.
    pub prekeys: PrekeyRing,
    /// Its token.
    pub token: String,
}

/// An account with all its devices, the first one first.
pub struct Person {
    /// Its device list.
    pub chain: DeviceChain,
    /// The exact lists, from list 1.
    lists: Vec<SignedDeviceList>,
    /// Its devices.
    pub devices: Vec<Device>,
    username: String,
}

impl Person {
    /// Whose.
    #[must_use]
    pub fn account_id(&self) -> AccountId {
        *self.chain.account_id()
    }
}

/// A name's beginning that no other run uses, for nodes that outlive a run.
#[must_use]
pub fn run_name() -> String {
    format!("load-{:08x}", ambient::system_rng().next_u32())
}

/// Registers an account with one device and no one-time prekeys, and tells its token.
///
/// # Errors
/// When the node refuses.
pub async fn register_bare(api: &Api, username: &str, rng: &mut StdRng) -> Result<String> {
    let account = new_account(username, 0, rng)?;
    Ok(api.register(&account.request).await?.token)
}

/// An account of one device that is a member of large conversations and nothing else.
pub struct Bare {
    /// As membership links name it.
    pub member: Member,
    /// Its device's token.
    pub token: String,
}

/// Registers one, without one-time prekeys.
///
/// # Errors
/// When the node refuses.
pub async fn register_member(api: &Api, username: &str, rng: &mut StdRng) -> Result<Bare> {
    let account = new_account(username, 0, rng)?;
    let token = api.register(&account.request).await?.token;
    let (account_id, fingerprint) = (*account.chain.account_id(), account.chain.fingerprint());
    Ok(Bare { member: Member { account_id, fingerprint, role: rest::Role::Member }, token })
}

/// Creates a large conversation of its owner and all the others, as many links as that takes.
///
/// # Errors
/// When the node refuses.
pub async fn large_conversation(
    api: &Api,
    owner: &Person,
    others: &[Bare],
    rng: &mut StdRng,
) -> Result<ConversationId> {
    let device = &owner.devices[0];
    let api = api.with_token(&device.token);
    let signer = || device.keys.signer(&owner.chain.head());
    let mut nonce = [0; 32];
    rng.fill_bytes(&mut nonce);
    // The owner is one of the first link's.
    let (first, rest) = others.split_at(others.len().min(MAX_CHANGES_PER_LINK - 1));
    let members = first.iter().map(|bare| bare.member);
    let link = MembershipLink::create_large(nonce, signer(), owner.chain.fingerprint(), members, ambient::unix_ms());
    let creation = link.sign(&device.keys.signing);
    let resolve = |of: &Signer| owner.chain.signer_key(of);
    let mut chain = MembershipChain::create(&creation, resolve)?;
    let id = api.create_conversation(&rest::CreateConversation { creation, title: None }).await?.conversation_id;
    for members in rest.chunks(MAX_CHANGES_PER_LINK) {
        let changes = members.iter().map(|bare| MembershipChange::Add(bare.member)).collect();
        let link = chain.change(signer(), changes, ambient::unix_ms()).sign(&device.keys.signing);
        chain = chain.extend(&link, resolve)?;
        api.change_membership(id, &rest::ChangeMembership { link }).await?;
    }
    Ok(id)
}

/// Registers an account with one device, and links further ones through it.
///
/// # Errors
/// When the node refuses.
pub async fn register(api: &Api, username: &str, devices: usize, rng: &mut StdRng) -> Result<Person> {
    let account = new_account(username, ONE_TIME_PREKEYS, rng)?;
    let session = api.register(&account.request).await?;
    let first = Device { keys: account.keys, prekeys: account.prekeys, token: session.token };
    let mut person =
        Person { chain: account.chain, lists: vec![account.list], devices: vec![first], username: username.to_owned() };
    for _ in 1..devices {
        let device = link_device(api, &mut person, rng).await.context("linking a device")?;
        person.devices.push(device);
    }
    Ok(person)
}

fn new_account(username: &str, one_time: usize, rng: &mut StdRng) -> Result<NewAccount> {
    // Passwords are not what is measured, and the accounts guard nothing.
    Ok(NewAccount::generate(username, "a password for load", label(), one_time, ambient::unix_ms(), rng)?)
}

fn label() -> rest::DeviceLabel {
    rest::DeviceLabel { name: "load".to_owned(), platform: "load".to_owned() }
}

/// Both sides of linking: what a new device and an existing one would do, with a code carried between them.
async fn link_device(api: &Api, person: &mut Person, rng: &mut StdRng) -> Result<Device> {
    let mut keys = DeviceKeys::generate(AccountId::random(rng), rng);
    let ephemeral = DhSecret::generate(rng);
    let offer = wire::LinkOffer {
        device_id: keys.device_id.to_wire(),
        signing_key: keys.signing.public().to_wire(),
        mailbox_key: keys.mailbox.public().to_wire(),
        suites: KNOWN_SUITES.to_vec(),
        ephemeral_key: ephemeral.public().to_wire(),
        name: label().name,
        platform: label().platform,
    };
    let offer = offer.encode_to_vec();
    let started = api.start_link(&rest::LinkStart { offer: Blob::from(offer.clone()) }).await?;
    let code = LinkCode::new(rng, started.link_id, &offer);

    confirm_link(api, person, &code, rng).await?;

    let poll = rest::LinkPoll { poll_secret: started.poll_secret.clone() };
    let answer = api.poll_link(code.link_id, &poll).await?.answer.ok_or_else(|| anyhow!("the answer was not there"))?;
    let answer = link::open_answer(&code, &ephemeral, &answer.0)?;
    let lists: Vec<SignedDeviceList> = answer.lists.iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
    let chain = DeviceChain::replay(&lists)?;
    ensure!(chain.fingerprint() == person.chain.fingerprint(), "the answer names another account");
    let proposed = answer.proposed.as_ref().ok_or_else(|| anyhow!("the answer has no list"))?.try_into()?;
    let list = chain.countersign(&proposed, &keys.device_id, &keys.signing)?;
    person.chain = chain.extend(&list)?;
    keys.account_id = person.account_id();

    let mut prekeys = PrekeyRing::default();
    let head = person.chain.head();
    let upload = prekeys.first_upload(&keys, &head, ONE_TIME_PREKEYS, ambient::unix_ms(), rng);
    person.lists.push(list.clone());
    let complete =
        rest::LinkComplete { poll_secret: started.poll_secret, device_list: list, label: label(), prekeys: upload };
    let session = api.complete_link(code.link_id, &complete).await?;
    Ok(Device { keys, prekeys, token: session.token })
}

/// The existing device's side: checks the offer against the code, proposes list n+1, answers sealed.
async fn confirm_link(api: &Api, person: &Person, code: &LinkCode, rng: &mut StdRng) -> Result<()> {
    let existing = &person.devices[0];
    let api = api.with_token(&existing.token);
    let offered = api.link(code.link_id).await?;
    let offer = link::check_offer(code, &offered.offer.0)?;
    let now_ms = ambient::unix_ms();
    let list = person.chain.list().with_device(offer.listed(now_ms), now_ms);
    let bytes = list.to_bytes();
    let signatures = vec![sign_list(&bytes, &existing.keys.device_id, &existing.keys.signing)];
    let proposed = SignedDeviceList { list: bytes.into(), signatures };
    let answer = wire::LinkAnswer {
        account_id: person.account_id().to_wire(),
        username: person.username.clone(),
        lists: person.lists.iter().map(Into::into).collect(),
        proposed: Some((&proposed).into()),
    };
    let answer = Blob(link::seal_answer(rng, code, &offer, &answer)?);
    Ok(api.answer_link(code.link_id, &rest::LinkAnswered { answer }).await?)
}

/// A direct conversation as its sending device sees it, with keys to write to every other device.
pub struct Conversation {
    /// SHA-256 of its creation record.
    pub id: ConversationId,
    /// The membership link to name.
    pub membership: wire::MembershipHead,
    /// The lists to name.
    pub list_heads: Vec<wire::ListHead>,
    /// Every device but the sending one.
    pub recipients: Vec<Recipient>,
}

/// A device to write to.
pub struct Recipient {
    /// Which.
    pub device_id: DeviceId,
    /// For the first message.
    pub one_time: Option<VerifiedPrekey>,
    /// For those that follow.
    pub signed: VerifiedPrekey,
}

/// Creates a direct conversation by the first device of `person`, and claims what it needs to write to all other devices.
///
/// # Errors
/// When the node refuses, or its bundles don't verify.
pub async fn converse(api: &Api, person: &Person, peer: &Person, rng: &mut StdRng) -> Result<Conversation> {
    let sender = &person.devices[0];
    let api = api.with_token(&sender.token);
    let mut nonce = [0; 32];
    rng.fill_bytes(&mut nonce);
    let creation = MembershipLink::create_direct(
        nonce,
        sender.keys.signer(&person.chain.head()),
        person.chain.fingerprint(),
        peer.account_id(),
        peer.chain.fingerprint(),
        ambient::unix_ms(),
    );
    let creation = creation.sign(&sender.keys.signing);
    let hash = Hash::of(&creation.link.0);
    let created = api.create_conversation(&rest::CreateConversation { creation, title: None }).await?;
    ensure!(created.conversation_id.as_bytes() == hash.as_bytes(), "the conversation's id is not its record's hash");
    let chains = [&person.chain, &peer.chain];
    Ok(Conversation {
        id: created.conversation_id,
        membership: wire::MembershipHead { m: 1, hash: hash.to_wire() },
        list_heads: chains.iter().map(|chain| (&chain.head()).into()).collect(),
        recipients: claim(&api, &chains, &sender.keys.device_id).await?,
    })
}

async fn claim(api: &Api, chains: &[&DeviceChain], own: &DeviceId) -> Result<Vec<Recipient>> {
    let account = |chain: &&DeviceChain| rest::ClaimAccount {
        account_id: *chain.account_id(),
        known_n: chain.n(),
        device_ids: chain.list().devices.iter().map(|device| device.device_id).filter(|id| id != own).collect(),
    };
    // Naming no device would ask for all of them.
    let accounts = chains.iter().map(account).filter(|account| !account.device_ids.is_empty()).collect();
    let answer = api.claim(&rest::ClaimRequest { accounts }).await?;
    let now_ms = ambient::unix_ms();
    let recipients: Result<Vec<Recipient>> = answer
        .bundles
        .iter()
        .map(|bundle| {
            let chain = chains.iter().find(|chain| *chain.account_id() == bundle.account_id);
            let chain = chain.ok_or_else(|| anyhow!("a bundle of a stranger"))?;
            let check = |key| chain.check_prekey(key, &bundle.device_id, now_ms);
            let one_time = bundle.one_time_prekey.as_ref().map(check).transpose()?;
            Ok(Recipient { device_id: bundle.device_id, one_time, signed: check(&bundle.signed_prekey)? })
        })
        .collect();
    let recipients = recipients?;
    let expected: usize = chains.iter().map(|chain| chain.list().devices.len()).sum::<usize>() - 1;
    ensure!(recipients.len() == expected, "the node gave {} bundles, not {expected}", recipients.len());
    Ok(recipients)
}
