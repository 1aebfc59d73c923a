//! Accounts and their chains of device lists.

mod append;
mod insert;

use diesel::{ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, RunQueryDsl as _};
use martlet_protocol::{
    id::{AccountId, DeviceId, Hash, PublicKey},
    rest::{DeviceLabel, SignedDeviceList, SignedPrekey},
    wire,
};
use prost::Message as _;

use super::{
    AccountKey, Conn, DeviceKey, KEYS_PER_QUERY, StorageError,
    conn::on,
    convert::{read_id, read_message, read_u64, store_u64},
    devices::InsertError,
    locks,
    schema::{accounts, device_lists},
};

pub use append::append_list;
pub use insert::insert_account;

/// An account to be registered, with its first device. The caller has verified list 1 and the prekeys.
#[derive(Debug, Clone, Copy)]
pub struct NewAccount<'a> {
    /// Drawn by the client.
    pub account_id: AccountId,
    /// Unique, in the form that the node allows.
    pub username: &'a str,
    /// As argon2 writes it.
    pub password_hash: &'a str,
    /// List 1.
    pub list: &'a SignedDeviceList,
    /// SHA-256 of list 1: fingerprint and first head.
    pub fingerprint: Hash,
    /// Its only device.
    pub device: &'a NewDevice,
}

/// A device that a list adds.
#[derive(Debug, Clone)]
pub struct NewDevice {
    /// Drawn by the device; ids of revoked devices are refused.
    pub device_id: DeviceId,
    /// What it shows of itself.
    pub label: DeviceLabel,
    /// Ed25519, from the list.
    pub signing_key: PublicKey,
    /// X25519, from the list.
    pub mailbox_key: PublicKey,
    /// Unix milliseconds.
    pub linked_at_ms: u64,
    /// Its first signed prekey.
    pub signed_prekey: SignedPrekey,
    /// Its first pool.
    pub one_time_prekeys: Vec<SignedPrekey>,
}

/// Why an account can't be inserted.
#[derive(Debug, thiserror::Error)]
pub enum InsertAccountError {
    /// Another account has the name.
    #[error("the username is taken")]
    UsernameTaken,
    /// The account's or the device's id was used before.
    #[error("the id was used before")]
    IdTaken,
    /// Two of its prekeys have one kind and id.
    #[error("two prekeys have the same id")]
    PrekeyIdReused,
    /// The query failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// An account as it rests.
#[derive(Clone)]
pub struct AccountRow {
    /// Its row.
    pub account_key: AccountKey,
    /// Its public id.
    pub account_id: AccountId,
    /// As argon2 wrote it.
    pub password_hash: String,
    /// SHA-256 of list 1.
    pub fingerprint: Hash,
    /// Number of the newest list.
    pub list_n: u64,
    /// Its hash.
    pub list_hash: Hash,
}

/// A list to be appended. The caller has verified that it extends the head.
#[derive(Debug, Clone, Copy)]
pub struct AppendList<'a> {
    /// Whose.
    pub account_key: AccountKey,
    /// The head that it extends.
    pub expected_n: u64,
    /// As it was signed.
    pub list: &'a SignedDeviceList,
    /// SHA-256 of its bytes.
    pub hash: Hash,
    /// Devices that it adds.
    pub added: &'a [NewDevice],
    /// Devices that it removes.
    pub removed: &'a [DeviceKey],
    /// Unix seconds, for the control stream.
    pub now_s: u64,
}

/// Why a list can't be appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendListError {
    /// The head is not the expected one (any more): nothing was changed.
    #[error("the list's head has moved")]
    Conflict,
    /// An added device's id was used before.
    #[error("the id was used before")]
    IdTaken,
    /// Two prekeys of an added device have one kind and id.
    #[error("two prekeys have the same id")]
    PrekeyIdReused,
    /// The query failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

type AccountColumns = (AccountKey, Vec<u8>, String, Vec<u8>, i64, Vec<u8>);

const ACCOUNT_COLUMNS: (
    accounts::account_key,
    accounts::account_id,
    accounts::password_hash,
    accounts::fingerprint,
    accounts::list_n,
    accounts::list_hash,
) = (
    accounts::account_key,
    accounts::account_id,
    accounts::password_hash,
    accounts::fingerprint,
    accounts::list_n,
    accounts::list_hash,
);

fn account_row(
    (account_key, account_id, password_hash, fingerprint, list_n, list_hash): AccountColumns,
) -> Result<AccountRow, StorageError> {
    Ok(AccountRow {
        account_key,
        account_id: read_id(&account_id)?,
        password_hash,
        fingerprint: read_id(&fingerprint)?,
        list_n: read_u64(list_n)?,
        list_hash: read_id(&list_hash)?,
    })
}

/// Keeps others from changing the account's list until the transaction's end. What was read of it before may be old.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn lock(conn: &mut Conn, account_id: &AccountId) -> Result<(), StorageError> {
    locks::account(conn, account_id)
}

/// Finds an account by its name.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn by_username(conn: &mut Conn, username: &str) -> Result<Option<AccountRow>, StorageError> {
    let row: Option<AccountColumns> = on!(conn, c => accounts::table
        .filter(accounts::username.eq(username))
        .select(ACCOUNT_COLUMNS)
        .first(c)
        .optional())?;
    row.map(account_row).transpose()
}

/// Finds an account by its public id.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn by_id(conn: &mut Conn, account_id: &AccountId) -> Result<Option<AccountRow>, StorageError> {
    let row: Option<AccountColumns> = on!(conn, c => accounts::table
        .filter(accounts::account_id.eq(account_id.as_bytes().as_slice()))
        .select(ACCOUNT_COLUMNS)
        .first(c)
        .optional())?;
    row.map(account_row).transpose()
}

/// Finds accounts by their public ids, in no particular order; unknown ids are left out.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn by_ids(conn: &mut Conn, account_ids: &[AccountId]) -> Result<Vec<AccountRow>, StorageError> {
    let mut found = Vec::with_capacity(account_ids.len());
    for ids in account_ids.chunks(KEYS_PER_QUERY) {
        let ids = ids.iter().map(|id| id.as_bytes().as_slice());
        let rows: Vec<AccountColumns> = on!(conn, c => accounts::table
            .filter(accounts::account_id.eq_any(ids))
            .select(ACCOUNT_COLUMNS)
            .load(c))?;
        for row in rows {
            found.push(account_row(row)?);
        }
    }
    Ok(found)
}

/// Finds accounts by key, in no particular order; unknown keys are left out.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn by_keys(conn: &mut Conn, account_keys: &[AccountKey]) -> Result<Vec<AccountRow>, StorageError> {
    let mut found = Vec::with_capacity(account_keys.len());
    for keys in account_keys.chunks(KEYS_PER_QUERY) {
        let rows: Vec<AccountColumns> = on!(conn, c => accounts::table
            .filter(accounts::account_key.eq_any(keys))
            .select(ACCOUNT_COLUMNS)
            .load(c))?;
        for row in rows {
            found.push(account_row(row)?);
        }
    }
    Ok(found)
}

/// The lists after number `n`, in order.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn lists_after(conn: &mut Conn, account_key: AccountKey, n: u64) -> Result<Vec<SignedDeviceList>, StorageError> {
    let rows: Vec<(Vec<u8>, Vec<u8>)> = on!(conn, c => device_lists::table
        .filter(device_lists::account_key.eq(account_key))
        .filter(device_lists::n.gt(store_u64(n)))
        .order(device_lists::n)
        .select((device_lists::list, device_lists::signatures))
        .load(c))?;
    rows.into_iter().map(|(list, signatures)| signed_list(list, &signatures)).collect()
}

/// Hashes of the account's lists with these numbers, in no particular order; numbers that it has not are left out.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn list_hashes(
    conn: &mut Conn,
    account_key: AccountKey,
    numbers: &[u64],
) -> Result<Vec<(u64, Hash)>, StorageError> {
    let mut found = Vec::with_capacity(numbers.len());
    for numbers in numbers.chunks(KEYS_PER_QUERY) {
        let rows: Vec<(i64, Vec<u8>)> = on!(conn, c => device_lists::table
            .filter(device_lists::account_key.eq(account_key))
            .filter(device_lists::n.eq_any(numbers.iter().map(|n| store_u64(*n))))
            .select((device_lists::n, device_lists::list))
            .load(c))?;
        for (n, list) in rows {
            found.push((read_u64(n)?, Hash::of(&list)));
        }
    }
    Ok(found)
}

/// Puts another hash of the same password in the place of one that is still there; otherwise nothing changes.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn renew_password_hash(
    conn: &mut Conn,
    account_key: AccountKey,
    before: &str,
    after: &str,
) -> Result<(), StorageError> {
    on!(conn, c => diesel::update(accounts::table)
        .filter(accounts::account_key.eq(account_key))
        .filter(accounts::password_hash.eq(before))
        .set(accounts::password_hash.eq(after))
        .execute(c))?;
    Ok(())
}

fn signed_list(list: Vec<u8>, signatures: &[u8]) -> Result<SignedDeviceList, StorageError> {
    let mut signed: wire::SignedDeviceList = read_message(signatures)?;
    signed.list = list.into();
    SignedDeviceList::try_from(&signed).map_err(|_| StorageError::Inconsistent("a signature of another length"))
}

/// Stores a list as it was signed: its bytes, and the signatures apart from them.
fn insert_list(
    conn: &mut Conn,
    account_key: AccountKey,
    n: u64,
    signed: &SignedDeviceList,
) -> Result<(), StorageError> {
    let mut signatures = wire::SignedDeviceList::from(signed);
    let list = std::mem::take(&mut signatures.list);
    on!(conn, c => diesel::insert_into(device_lists::table)
        .values((
            device_lists::account_key.eq(account_key),
            device_lists::n.eq(store_u64(n)),
            device_lists::list.eq(list.as_ref()),
            device_lists::signatures.eq(signatures.encode_to_vec()),
        ))
        .execute(c))?;
    Ok(())
}

impl From<InsertError> for InsertAccountError {
    fn from(error: InsertError) -> Self {
        match error {
            InsertError::IdTaken => Self::IdTaken,
            InsertError::PrekeyIdReused => Self::PrekeyIdReused,
            InsertError::Storage(error) => Self::Storage(error),
        }
    }
}

impl From<InsertError> for AppendListError {
    fn from(error: InsertError) -> Self {
        match error {
            InsertError::IdTaken => Self::IdTaken,
            InsertError::PrekeyIdReused => Self::PrekeyIdReused,
            InsertError::Storage(error) => Self::Storage(error),
        }
    }
}
