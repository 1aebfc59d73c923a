//! Device lists: reading them, appending them, and the devices they remove. Devices are added in [`super::linking`] only.
//!
//! A list is appended only to the exact head; whoever is not there gets the lists to rebase on.

use martlet_protocol::{
    chain::devices::{DeviceChain, DeviceList, ListError},
    id::{AccountId, DeviceId, Hash},
    rest::{AccountLists, AccountRef, OwnDevice, OwnDevices, SignedDeviceList},
};
use martlet_storage::{
    Conn, DeviceKey, StorageError,
    accounts::{self, AccountRow, AppendList},
    devices::{self, DeviceStatus},
};

use super::{
    AccountError, Accounts, DeviceIdentity,
    parse::{self, Username},
};

impl Accounts {
    /// Who stands behind a username.
    ///
    /// # Errors
    /// [`AccountError::NotFound`].
    pub async fn by_name(&self, username: &str) -> Result<AccountRef, AccountError> {
        // No account has a name of another form.
        let username = Username::parse(username).map_err(|_| AccountError::NotFound)?;
        let row = self.0.db.read(move |conn| accounts::by_username(conn, username.as_str())).await;
        let row = row.map_err(AccountError::Storage)?.ok_or(AccountError::NotFound)?;
        Ok(AccountRef { account_id: row.account_id, fingerprint: row.fingerprint })
    }

    /// The account's lists after number `n`.
    ///
    /// # Errors
    /// [`AccountError::NotFound`].
    pub async fn lists_after(&self, account_id: AccountId, n: u64) -> Result<AccountLists, AccountError> {
        self.0
            .db
            .read(move |conn| {
                let account = accounts::by_id(conn, &account_id)?.ok_or(AccountError::NotFound)?;
                Ok(AccountLists { account_id, lists: accounts::lists_after(conn, account.account_key, n)? })
            })
            .await
    }

    /// The account's own devices.
    ///
    /// # Errors
    /// [`AccountError::Storage`].
    pub async fn own_devices(&self, identity: &DeviceIdentity) -> Result<OwnDevices, AccountError> {
        let now_ms = self.0.clock.now_ms();
        let identity = *identity;
        let rows = self.0.db.read(move |conn| devices::by_account(conn, identity.account_key)).await;
        let devices = rows.map_err(AccountError::Storage)?.into_iter().map(|row| OwnDevice {
            device_id: row.device_id,
            label: martlet_protocol::rest::DeviceLabel { name: row.name, platform: row.platform },
            linked_at_ms: row.linked_at_ms,
            is_this: row.device_id == identity.device_id,
            suspended: row.status == DeviceStatus::Suspended,
            dormant: row.prekey_not_after_ms <= now_ms,
        });
        Ok(OwnDevices { devices: devices.collect() })
    }

    /// Names one of the account's own devices.
    ///
    /// # Errors
    /// [`AccountError::TextInvalid`], [`AccountError::NotFound`].
    pub async fn rename_device(
        &self,
        identity: &DeviceIdentity,
        device_id: DeviceId,
        name: String,
    ) -> Result<(), AccountError> {
        parse::name(&name)?;
        let account_key = identity.account_key;
        self.0
            .db
            .write(move |conn| {
                let own = devices::by_account(conn, account_key)?;
                let row = own.iter().find(|row| row.device_id == device_id).ok_or(AccountError::NotFound)?;
                Ok(devices::rename(conn, row.device_key, &name)?)
            })
            .await
    }

    /// Appends a list without the devices that go. Their sockets close and their mailboxes are purged; repeating it changes nothing.
    ///
    /// # Errors
    /// [`AccountError::ListConflict`] if it does not extend the head, [`AccountError::List`] if it breaks a rule,
    /// [`AccountError::ListUnfit`] if it adds a device or removes none.
    pub async fn revoke_devices(
        &self,
        identity: &DeviceIdentity,
        signed: SignedDeviceList,
    ) -> Result<(), AccountError> {
        let (account_id, now_s) = (identity.account_id, self.0.clock.now_s());
        // Read, checked and appended in one transaction: a device that is linked meanwhile can't be overlooked.
        let removed = self.0.db.write(move |conn| revoke(conn, &account_id, &signed, now_s)).await?;
        // Other nodes and open sockets hear of it by the control stream; here no request passes any more.
        self.0.tokens.forget_devices(&removed);
        self.0.streams.control_changed();
        Ok(())
    }
}

/// Returns whom the list removed; nobody if it is the head already.
fn revoke(
    conn: &mut Conn,
    account_id: &AccountId,
    signed: &SignedDeviceList,
    now_s: u64,
) -> Result<Vec<DeviceKey>, AccountError> {
    accounts::lock(conn, account_id)?;
    let (account, head) = head_chain(conn, account_id)?;
    let hash = Hash::of(&signed.list.0);
    if hash == account.list_hash {
        return Ok(Vec::new());
    }
    let next = extend(conn, &account, &head, signed)?;
    if next.added(&head).next().is_some() {
        return Err(AccountError::ListUnfit("devices are added by linking them"));
    }
    let own = devices::by_account(conn, account.account_key)?;
    let removed: Vec<DeviceKey> = next
        .removed(&head)
        .map(|gone| own.iter().find(|row| row.device_id == gone.device_id).map(|row| row.device_key))
        .collect::<Option<_>>()
        .ok_or(StorageError::Inconsistent("a listed device has no row"))?;
    if removed.is_empty() {
        return Err(AccountError::ListUnfit("it removes no device"));
    }
    let append = AppendList {
        account_key: account.account_key,
        expected_n: head.n(),
        list: signed,
        hash,
        added: &[],
        removed: &removed,
        now_s,
    };
    accounts::append_list(conn, &append)?;
    Ok(removed)
}

/// The account's head, as the node verified it when it was appended.
pub(super) fn head_chain(conn: &mut Conn, account_id: &AccountId) -> Result<(AccountRow, DeviceChain), AccountError> {
    let account = accounts::by_id(conn, account_id)?.ok_or(AccountError::NotFound)?;
    let chain = chain_of(conn, &account)?;
    Ok((account, chain))
}

pub(super) fn chain_of(conn: &mut Conn, account: &AccountRow) -> Result<DeviceChain, AccountError> {
    let lists = accounts::lists_after(conn, account.account_key, account.list_n.saturating_sub(1))?;
    let broken = StorageError::Inconsistent("an account's head is not its last list");
    let chain = lists.first().and_then(|head| DeviceChain::trusted(&head.list.0, account.fingerprint).ok());
    Ok(chain.filter(|chain| chain.n() == account.list_n && chain.hash() == account.list_hash).ok_or(broken)?)
}

/// The head with one list more, or what the sender of the list must know to make a better one.
pub(super) fn extend(
    conn: &mut Conn,
    account: &AccountRow,
    head: &DeviceChain,
    signed: &SignedDeviceList,
) -> Result<DeviceChain, AccountError> {
    match head.extend(signed) {
        Ok(next) => Ok(next),
        Err(ListError::Shorter | ListError::WrongNumber { .. } | ListError::OtherBranch) => {
            Err(conflict(conn, account, signed)?)
        }
        Err(error) => Err(AccountError::List(error)),
    }
}

/// The lists after the one that the refused list meant to extend; at least the head, so that another branch is seen for what it is.
pub(super) fn conflict(
    conn: &mut Conn,
    account: &AccountRow,
    signed: &SignedDeviceList,
) -> Result<AccountError, AccountError> {
    let named = DeviceList::parse(&signed.list.0).map_or(u64::MAX, |list| list.n.saturating_sub(1));
    let after = named.min(account.list_n.saturating_sub(1));
    Ok(AccountError::ListConflict(accounts::lists_after(conn, account.account_key, after)?))
}
