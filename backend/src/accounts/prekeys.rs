//! Prekeys that devices bring: every signature, suite, life and list head is checked before one is stored.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use martlet_protocol::{
    chain::devices::{DeviceChain, ListedDevice},
    crypto::{KNOWN_SUITES, PrekeyError, verify_prekey},
    id::Hash,
    rest::{PrekeyKind, PrekeyState, PrekeyUpload, SignedPrekey},
};
use martlet_storage::{
    accounts,
    devices::{self, DeviceStatus},
    prekeys::{self, Stock, UploadError},
};

use super::{AccountError, Accounts, DeviceIdentity, Inner, blocking, tokens::millis};

/// How far ahead a prekey's end may lie: the 60 days of a signed prekey, and two for clocks that differ.
const MAX_LIFE: Duration = Duration::from_secs(62 * 24 * 60 * 60);

/// Prekeys that a device brings when it joins: checked, and with a signed one.
pub(super) struct FirstPrekeys {
    pub(super) signed: SignedPrekey,
    pub(super) one_time: Vec<SignedPrekey>,
}

/// The device that a prekey must be of, and the lists that it may name.
struct Owner<'a> {
    chain: &'a DeviceChain,
    /// Hashes by number, of lists from before what the chain at hand begins with.
    older: &'a HashMap<u64, Hash>,
    device: &'a ListedDevice,
    now_ms: u64,
}

impl Accounts {
    /// Stores prekeys. Repeating an upload changes nothing.
    ///
    /// # Errors
    /// Typed per cause; nothing of a refused upload is stored.
    pub async fn upload_prekeys(
        &self,
        identity: &DeviceIdentity,
        upload: PrekeyUpload,
    ) -> Result<PrekeyState, AccountError> {
        let inner = &*self.0;
        inner.check_count(&upload)?;
        let now_ms = inner.clock.now_ms();
        let max = inner.max_one_time();
        let DeviceIdentity { account_id, device_id, device_key, .. } = *identity;
        let named = lists_named(&upload);
        let (chain, older) = inner
            .db
            .read(move |conn| {
                let (account, chain) = super::lists::head_chain(conn, &account_id)?;
                let older = accounts::list_hashes(conn, account.account_key, &named)?;
                Ok::<_, AccountError>((chain, older.into_iter().collect::<HashMap<_, _>>()))
            })
            .await?;
        // Off the writer: a full pool is 200 signatures, some ten milliseconds.
        let upload = blocking(move || {
            let device = chain.device(&device_id).ok_or(AccountError::Unauthenticated)?;
            check_upload(&upload, &Owner { chain: &chain, older: &older, device, now_ms })?;
            Ok(upload)
        })
        .await?;
        let may_have_returned = upload.signed_prekey.is_some();
        let stock = inner
            .db
            .write(move |conn| {
                devices::lock(conn, device_key)?;
                let device = devices::by_id(conn, &device_id)?;
                if device.is_none_or(|device| device.status != DeviceStatus::Active) {
                    return Err(AccountError::Unauthenticated);
                }
                let signed = upload.signed_prekey.as_ref();
                prekeys::upload(conn, device_key, signed, &upload.one_time_prekeys, max, now_ms)
                    .map_err(|error| upload_refused(error, max))
            })
            .await?;
        inner.streams.hello_changed(device_key);
        if may_have_returned {
            // A device that was dormant is one to send to again, and every sender that is told so later costs it messages.
            inner.streams.control_changed();
        }
        Ok(inner.prekey_state(&stock))
    }

    /// What the device has left.
    ///
    /// # Errors
    /// [`AccountError::Storage`].
    pub async fn prekey_stock(&self, identity: &DeviceIdentity) -> Result<PrekeyState, AccountError> {
        let inner = &*self.0;
        let (device_key, now_ms) = (identity.device_key, inner.clock.now_ms());
        let stock = inner.db.read(move |conn| prekeys::stock(conn, device_key, now_ms)).await;
        Ok(inner.prekey_state(&stock.map_err(AccountError::Storage)?))
    }
}

impl FirstPrekeys {
    /// Checks what a device brings with the list that adds it. The count was checked before.
    pub(super) fn check(
        upload: PrekeyUpload,
        chain: &DeviceChain,
        device: &ListedDevice,
        now_ms: u64,
    ) -> Result<Self, AccountError> {
        // A device that joins signed the newest list itself, so it has no older one to name than the chain at hand.
        check_upload(&upload, &Owner { chain, older: &HashMap::new(), device, now_ms })?;
        let signed = upload.signed_prekey.ok_or(AccountError::PrekeyInvalid("a signed prekey is needed to join"))?;
        Ok(Self { signed, one_time: upload.one_time_prekeys })
    }
}

impl Inner {
    /// Before any signature is checked: each costs about 50 µs.
    pub(super) fn check_count(&self, upload: &PrekeyUpload) -> Result<(), AccountError> {
        let allowed = self.config.prekeys.max_one_time;
        if upload.one_time_prekeys.len() > allowed {
            return Err(AccountError::TooManyPrekeys { allowed });
        }
        Ok(())
    }

    pub(super) fn max_one_time(&self) -> u32 {
        self.config.prekeys.max_one_time.try_into().unwrap_or(u32::MAX)
    }

    pub(super) fn prekey_state(&self, stock: &Stock) -> PrekeyState {
        PrekeyState {
            one_time: stock.one_time,
            low: (stock.one_time as usize) < self.config.prekeys.low_water,
            signed_not_after_ms: stock.signed_not_after_ms,
        }
    }
}

impl Owner<'_> {
    /// The hash of the account's list with this number.
    fn list_hash(&self, n: u64) -> Option<Hash> {
        self.chain.hash_at(n).or_else(|| self.older.get(&n).copied())
    }

    /// Whether somebody could seal to a key of this suite for this device. A node carries suites that it does not know, but there is one
    /// pool and one signed prekey per device: where the device lists a known suite, senders of that one get them, and could use no other.
    fn is_served_by(&self, suite: u32) -> bool {
        let known = |suite: &u32| KNOWN_SUITES.contains(suite);
        known(&suite) || !self.device.suites.iter().any(known)
    }
}

/// Numbers of the lists that the upload's prekeys name, each once.
fn lists_named(upload: &PrekeyUpload) -> Vec<u64> {
    let keys = upload.signed_prekey.iter().chain(&upload.one_time_prekeys);
    keys.map(|key| key.list_n).collect::<BTreeSet<_>>().into_iter().collect()
}

fn check_upload(upload: &PrekeyUpload, owner: &Owner<'_>) -> Result<(), AccountError> {
    if let Some(key) = &upload.signed_prekey {
        check_prekey(key, PrekeyKind::Signed, owner)?;
    }
    for key in &upload.one_time_prekeys {
        check_prekey(key, PrekeyKind::OneTime, owner)?;
    }
    Ok(())
}

fn check_prekey(key: &SignedPrekey, kind: PrekeyKind, owner: &Owner<'_>) -> Result<(), AccountError> {
    let invalid = |what| Err(AccountError::PrekeyInvalid(what));
    if key.kind != kind {
        return invalid("signed and one-time prekeys each have a field of their own");
    }
    if !owner.device.suites.contains(&key.suite) {
        return invalid("its suite is not one that the device is listed with");
    }
    if !owner.is_served_by(key.suite) {
        return invalid("its suite is not known here, and the device lists one that is");
    }
    if key.not_after_ms <= owner.now_ms || key.not_after_ms - owner.now_ms > millis(MAX_LIFE) {
        return invalid("not_after_ms lies in the past or more than 62 days ahead");
    }
    // A device that hasn't heard of a new list yet may go on naming the one before; nobody may name one that isn't.
    if key.list_n > owner.chain.n() || owner.list_hash(key.list_n) != Some(key.list_hash) {
        return invalid("it names a device list that is not of the account's chain");
    }
    match verify_prekey(key, owner.chain.account_id(), &owner.device.device_id, &owner.device.signing_key) {
        Ok(_) => Ok(()),
        Err(PrekeyError::Signature) => Err(AccountError::PrekeySignature { kind, key_id: key.key_id }),
        Err(_) => invalid("its public key is weak"),
    }
}

fn upload_refused(error: UploadError, max_one_time: u32) -> AccountError {
    match error {
        UploadError::IdReused { .. } => AccountError::PrekeyIdReused,
        UploadError::TooMany => AccountError::TooManyPrekeys { allowed: max_one_time as usize },
        UploadError::Storage(error) => AccountError::Storage(error),
    }
}
