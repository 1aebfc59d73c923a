//! A further device, through an existing one. The node carries offer and answer without being able to read or forge them; what it
//! checks is that the list at the end adds exactly the device that was offered.
//!
//! Offer and poll come from a device without an account: the poll secret, stored hashed, is what it proves itself with.

use martlet_protocol::{
    chain::devices::{DeviceChain, ListedDevice},
    id::{Blob, DeviceId, Hash, LinkId, PublicKey},
    rest::{
        DeviceLabel, DeviceSession, LinkComplete, LinkOffered, LinkPolled, LinkStart, LinkStarted, SignedDeviceList,
    },
    wire,
};
use martlet_storage::{
    Conn, StorageError,
    accounts::{self, AccountRow, AppendList, AppendListError, NewDevice},
    links::{self, LinkRow},
};
use prost::Message as _;
use subtle::ConstantTimeEq as _;

use super::{
    AccountError, Accounts, DeviceIdentity, blocking, lists, parse,
    prekeys::FirstPrekeys,
    tokens::{Secret, millis, store_token},
};

const POLL_PREFIX: &str = "mtl_";
const MAX_OFFER_BYTES: usize = 1024;
/// An answer carries the account's whole chain: about 1 KiB per list.
const MAX_ANSWER_BYTES: usize = 512 * 1024;

/// What a completion is checked against.
struct Opened {
    link: LinkRow,
    account: AccountRow,
    head: DeviceChain,
}

impl Accounts {
    /// Keeps a new device's offer for a few minutes.
    ///
    /// # Errors
    /// [`AccountError::Malformed`] if it is no `LinkOffer`.
    pub async fn start_link(&self, start: LinkStart) -> Result<LinkStarted, AccountError> {
        let inner = &*self.0;
        check_offer(&start.offer.0)?;
        let mut rng = crate::clock::rng();
        let link_id = LinkId::random(&mut rng);
        let poll = Secret::draw(POLL_PREFIX, &mut rng);
        let expires_at_ms = inner.clock.now_ms() + millis(inner.config.accounts.link_lifetime);
        let (hash, offer) = (poll.hash, start.offer.0);
        inner
            .db
            .write(move |conn| links::insert(conn, &link_id, &hash, &offer, expires_at_ms))
            .await
            .map_err(AccountError::Storage)?;
        Ok(LinkStarted { link_id, poll_secret: poll.text, expires_at_ms })
    }

    /// The offer, for an existing device that was shown its code.
    ///
    /// # Errors
    /// [`AccountError::NotFound`] if it is missing, over its life, or answered by another account.
    pub async fn link_offer(&self, identity: &DeviceIdentity, link_id: LinkId) -> Result<LinkOffered, AccountError> {
        let now_ms = self.0.clock.now_ms();
        let account_key = identity.account_key;
        let link = self.0.db.read(move |conn| links::by_id(conn, &link_id, now_ms)).await;
        let link = link.map_err(AccountError::Storage)?;
        let link = link.filter(|link| link.account_key.is_none_or(|by| by == account_key));
        let link = link.ok_or(AccountError::NotFound)?;
        Ok(LinkOffered { offer: Blob(link.offer), expires_at_ms: link.expires_at_ms })
    }

    /// An existing device's answer. The same answer again changes nothing.
    ///
    /// # Errors
    /// [`AccountError::LinkInvalid`] if there is another answer already.
    pub async fn answer_link(
        &self,
        identity: &DeviceIdentity,
        link_id: LinkId,
        answer: Blob,
    ) -> Result<(), AccountError> {
        let answer = answer.0;
        if answer.len() > MAX_ANSWER_BYTES {
            let (what, given) = ("the answer", answer.len());
            return Err(AccountError::TooLarge { what, given, allowed: MAX_ANSWER_BYTES });
        }
        wire::SealedLinkAnswer::decode(answer.clone())
            .map_err(|_| AccountError::Malformed("the answer is not a SealedLinkAnswer"))?;
        let (account_key, now_ms) = (identity.account_key, self.0.clock.now_ms());
        self.0
            .db
            .write(move |conn| {
                if links::answer(conn, &link_id, account_key, &answer, now_ms)? {
                    return Ok(());
                }
                match links::by_id(conn, &link_id, now_ms)?.filter(|link| link.account_key == Some(account_key)) {
                    Some(link) if link.answer.as_ref() == Some(&answer) => Ok(()),
                    Some(_) => Err(AccountError::LinkInvalid("it was answered before")),
                    None => Err(AccountError::NotFound),
                }
            })
            .await
    }

    /// What the new device asks until there is an answer.
    ///
    /// # Errors
    /// [`AccountError::NotFound`] if the link is missing or over its life, or the secret is not its.
    pub async fn poll_link(&self, link_id: LinkId, poll_secret: &str) -> Result<LinkPolled, AccountError> {
        let (poll_hash, now_ms) = (Hash::of(poll_secret.as_bytes()), self.0.clock.now_ms());
        let link = self.0.db.read(move |conn| own_link(conn, &link_id, &poll_hash, now_ms)).await?;
        Ok(LinkPolled { answer: link.answer.map(Blob) })
    }

    /// Adds the new device: appends the list that both devices signed, once.
    ///
    /// # Errors
    /// Typed per cause; nothing of a refused completion is stored, and the link stays open.
    pub async fn complete_link(&self, link_id: LinkId, complete: LinkComplete) -> Result<DeviceSession, AccountError> {
        let inner = &*self.0;
        let LinkComplete { poll_secret, device_list, label, prekeys } = complete;
        parse::label(&label)?;
        inner.check_count(&prekeys)?;
        let (poll_hash, now_ms) = (Hash::of(poll_secret.as_bytes()), inner.clock.now_ms());
        let list = device_list.clone();
        let (opened, next) = inner
            .db
            .read(move |conn| {
                let opened = open(conn, &link_id, &poll_hash, now_ms)?;
                let next = lists::extend(conn, &opened.account, &opened.head, &list)?;
                Ok::<_, AccountError>((opened, next))
            })
            .await?;
        inner.check_devices(&next)?;
        let (chain, offer) = (next.clone(), opened.link.offer.clone());
        let device = blocking(move || {
            let listed = offered_device(&chain, &opened.head, &offer)?;
            let prekeys = FirstPrekeys::check(prekeys, &chain, listed, now_ms)?;
            Ok(new_device(listed, label, prekeys, now_ms))
        })
        .await?;

        let token = Secret::token(&mut crate::clock::rng());
        let session = inner.session(*next.account_id(), device.device_id, &token);
        let (stored, account) = (session.clone(), opened.account);
        inner
            .db
            .write(move |conn| {
                links::consume(conn, &link_id, now_ms)?.ok_or(AccountError::LinkInvalid("it is not open any more"))?;
                let device_key = append(conn, &account, &next, &device_list, device, now_ms / 1000)?;
                Ok::<_, AccountError>(store_token(conn, device_key, &token.hash, &stored)?)
            })
            .await?;
        inner.streams.control_changed();
        Ok(session)
    }
}

impl super::Inner {
    fn check_devices(&self, chain: &DeviceChain) -> Result<(), AccountError> {
        let allowed = self.config.accounts.max_devices;
        if chain.list().devices.len() > allowed { Err(AccountError::TooManyDevices { allowed }) } else { Ok(()) }
    }
}

/// The link, if the secret is its.
fn own_link(conn: &mut Conn, link_id: &LinkId, poll_hash: &Hash, now_ms: u64) -> Result<LinkRow, AccountError> {
    let link = links::by_id(conn, link_id, now_ms)?;
    link.filter(|link| bool::from(link.poll_hash.as_bytes().ct_eq(poll_hash.as_bytes()))).ok_or(AccountError::NotFound)
}

fn open(conn: &mut Conn, link_id: &LinkId, poll_hash: &Hash, now_ms: u64) -> Result<Opened, AccountError> {
    let link = own_link(conn, link_id, poll_hash, now_ms)?;
    let account_key = link.account_key.ok_or(AccountError::LinkInvalid("it has no answer yet"))?;
    let account = accounts::by_keys(conn, &[account_key])?.pop();
    let account = account.ok_or(StorageError::Inconsistent("a link's account has no row"))?;
    let head = lists::chain_of(conn, &account)?;
    Ok(Opened { link, account, head })
}

/// The one device that the list adds, which must be the one that was offered, key by key.
fn offered_device<'a>(
    next: &'a DeviceChain,
    head: &'a DeviceChain,
    offer: &[u8],
) -> Result<&'a ListedDevice, AccountError> {
    if next.removed(head).next().is_some() {
        return Err(AccountError::ListUnfit("a link removes no device"));
    }
    let mut added = next.added(head);
    let (Some(listed), None) = (added.next(), added.next()) else {
        return Err(AccountError::ListUnfit("a link adds exactly one device"));
    };
    let offer = check_offer(offer)?;
    let same = offer.device_id == listed.device_id.as_bytes().as_slice()
        && offer.signing_key == listed.signing_key.as_bytes().as_slice()
        && offer.mailbox_key == listed.mailbox_key.as_bytes().as_slice()
        && offer.suites == listed.suites;
    if same { Ok(listed) } else { Err(AccountError::ListUnfit("it adds another device than the link offered")) }
}

fn new_device(listed: &ListedDevice, label: DeviceLabel, prekeys: FirstPrekeys, now_ms: u64) -> NewDevice {
    NewDevice {
        device_id: listed.device_id,
        label,
        signing_key: listed.signing_key,
        mailbox_key: listed.mailbox_key,
        linked_at_ms: now_ms,
        signed_prekey: prekeys.signed,
        one_time_prekeys: prekeys.one_time,
    }
}

fn append(
    conn: &mut Conn,
    account: &AccountRow,
    next: &DeviceChain,
    signed: &SignedDeviceList,
    device: NewDevice,
    now_s: u64,
) -> Result<martlet_storage::DeviceKey, AccountError> {
    let append = AppendList {
        account_key: account.account_key,
        expected_n: account.list_n,
        list: signed,
        hash: next.hash(),
        added: &[device],
        removed: &[],
        now_s,
    };
    match accounts::append_list(conn, &append) {
        Ok(keys) => keys.first().copied().ok_or(StorageError::Inconsistent("an added device got no row").into()),
        Err(AppendListError::Conflict) => Err(lists::conflict(conn, account, signed)?),
        Err(error) => Err(error.into()),
    }
}

fn check_offer(bytes: &[u8]) -> Result<wire::LinkOffer, AccountError> {
    if bytes.len() > MAX_OFFER_BYTES {
        let (what, given) = ("the offer", bytes.len());
        return Err(AccountError::TooLarge { what, given, allowed: MAX_OFFER_BYTES });
    }
    let malformed = AccountError::Malformed("the offer is not a LinkOffer");
    let Ok(offer) = wire::LinkOffer::decode(bytes) else { return Err(malformed) };
    let keys = [&offer.signing_key, &offer.mailbox_key, &offer.ephemeral_key];
    let sound = DeviceId::try_from(offer.device_id.as_ref()).is_ok()
        && keys.into_iter().all(|key| PublicKey::try_from(key.as_ref()).is_ok());
    if sound { Ok(offer) } else { Err(malformed) }
}
