//! Devices: reading and renaming. They come and go with lists (see [`super::accounts`]).

use diesel::{ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, RunQueryDsl as _};
use martlet_protocol::id::{DeviceId, PublicKey};

use super::{
    AccountKey, Conn, DeviceKey, KEYS_PER_QUERY, StorageError,
    accounts::NewDevice,
    conn::on,
    convert::{read_id, read_u64, store_u64},
    error::expect_rows,
    locks, prekeys,
    schema::{devices, mailbox_acks, mailbox_heads},
    store,
};

/// Whether a device is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceStatus {
    /// Served.
    Active,
    /// Listed, not served, not required in sends.
    Suspended,
    /// A tombstone.
    Revoked,
}

impl DeviceStatus {
    /// As the column holds it.
    pub(super) const fn stored(self) -> i16 {
        match self {
            Self::Active => 0,
            Self::Suspended => 1,
            Self::Revoked => 2,
        }
    }

    fn read(value: i16) -> Result<Self, StorageError> {
        match value {
            0 => Ok(Self::Active),
            1 => Ok(Self::Suspended),
            2 => Ok(Self::Revoked),
            _ => Err(StorageError::Inconsistent("an unknown device status")),
        }
    }
}

/// A device as it rests.
#[derive(Debug, Clone)]
pub struct DeviceRow {
    /// Its row and mailbox.
    pub device_key: DeviceKey,
    /// Its public id.
    pub device_id: DeviceId,
    /// Whose.
    pub account_key: AccountKey,
    /// Its label's name.
    pub name: String,
    /// Its label's platform.
    pub platform: String,
    /// Ed25519.
    pub signing_key: PublicKey,
    /// X25519.
    pub mailbox_key: PublicKey,
    /// Whether it is served.
    pub status: DeviceStatus,
    /// Unix milliseconds.
    pub linked_at_ms: u64,
    /// Unix milliseconds; from then on the device is dormant.
    pub prekey_not_after_ms: u64,
}

/// Why a device can't be inserted.
pub(super) enum InsertError {
    /// Its id was used before.
    IdTaken,
    /// Two of its prekeys have one kind and id.
    PrekeyIdReused,
    /// The query failed.
    Storage(StorageError),
}

impl From<StorageError> for InsertError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<diesel::result::Error> for InsertError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Storage(error.into())
    }
}

/// The account's listed devices (active and suspended, no tombstones) in the order of their linking.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn by_account(conn: &mut Conn, account_key: AccountKey) -> Result<Vec<DeviceRow>, StorageError> {
    by_accounts(conn, &[account_key])
}

/// As [`by_account`], of several accounts, ordered by account and linking.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn by_accounts(conn: &mut Conn, account_keys: &[AccountKey]) -> Result<Vec<DeviceRow>, StorageError> {
    let mut account_keys = account_keys.to_vec();
    account_keys.sort_unstable();
    let mut found = Vec::new();
    for keys in account_keys.chunks(KEYS_PER_QUERY) {
        let rows: Vec<DeviceColumns> = on!(conn, c => devices::table
            .filter(devices::account_key.eq_any(keys))
            .filter(devices::status.ne(DeviceStatus::Revoked.stored()))
            .order((devices::account_key, devices::device_key))
            .load(c))?;
        for row in rows {
            found.push(device_row(row)?);
        }
    }
    Ok(found)
}

/// Finds a device, tombstones included.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn by_id(conn: &mut Conn, device_id: &DeviceId) -> Result<Option<DeviceRow>, StorageError> {
    let row: Option<DeviceColumns> = on!(conn, c => devices::table
        .filter(devices::device_id.eq(device_id.as_bytes().as_slice()))
        .first(c)
        .optional())?;
    row.map(device_row).transpose()
}

/// Keeps others from changing the device (its status, its prekeys) until the transaction's end. What was read of it before may be old.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn lock(conn: &mut Conn, device_key: DeviceKey) -> Result<(), StorageError> {
    locks::device(conn, device_key)
}

/// Sets the name of a listed device.
///
/// # Errors
/// [`StorageError::Inconsistent`] if there is no such device.
pub fn rename(conn: &mut Conn, device_key: DeviceKey, name: &str) -> Result<(), StorageError> {
    let renamed = on!(conn, c => diesel::update(devices::table)
        .filter(devices::device_key.eq(device_key))
        .filter(devices::status.ne(DeviceStatus::Revoked.stored()))
        .set(devices::name.eq(name))
        .execute(c))?;
    expect_rows(renamed, 1, "a device to rename is not there")
}

/// Inserts a device with its mailbox and its prekeys. `list_n` is the list that adds it.
pub(super) fn insert(
    conn: &mut Conn,
    account_key: AccountKey,
    list_n: u64,
    new: &NewDevice,
) -> Result<DeviceKey, InsertError> {
    let device_key = insert_row(conn, account_key, new)?.ok_or(InsertError::IdTaken)?;
    insert_mailbox(conn, device_key, list_n)?;
    let epoch = store::epoch(conn)?;
    for prekey in std::iter::once(&new.signed_prekey).chain(&new.one_time_prekeys) {
        match prekeys::put(conn, device_key, prekey, epoch)? {
            prekeys::Put::Added => {}
            prekeys::Put::Same | prekeys::Put::Reused => return Err(InsertError::PrekeyIdReused),
        }
    }
    Ok(device_key)
}

/// None if the id was used before.
fn insert_row(conn: &mut Conn, account_key: AccountKey, new: &NewDevice) -> Result<Option<DeviceKey>, StorageError> {
    let key = on!(conn, c => diesel::insert_into(devices::table)
        .values((
            devices::device_id.eq(new.device_id.as_bytes().as_slice()),
            devices::account_key.eq(account_key),
            devices::name.eq(&new.label.name),
            devices::platform.eq(&new.label.platform),
            devices::signing_key.eq(new.signing_key.as_bytes().as_slice()),
            devices::mailbox_key.eq(new.mailbox_key.as_bytes().as_slice()),
            devices::status.eq(DeviceStatus::Active.stored()),
            devices::linked_at_ms.eq(store_u64(new.linked_at_ms)),
            devices::prekey_not_after_ms.eq(store_u64(new.signed_prekey.not_after_ms)),
        ))
        .on_conflict_do_nothing()
        .returning(devices::device_key)
        .get_result(c)
        .optional())?;
    Ok(key)
}

/// An empty mailbox: its head and its acks.
fn insert_mailbox(conn: &mut Conn, device_key: DeviceKey, list_n: u64) -> Result<(), StorageError> {
    on!(conn, c => diesel::insert_into(mailbox_heads::table)
        .values((
            mailbox_heads::device_key.eq(device_key),
            mailbox_heads::epoch.eq(0_i64),
            mailbox_heads::head_seq.eq(0_i64),
            mailbox_heads::list_n.eq(store_u64(list_n)),
            mailbox_heads::added_bytes.eq(0_i64),
            mailbox_heads::added_entries.eq(0_i64),
        ))
        .execute(c))?;
    on!(conn, c => diesel::insert_into(mailbox_acks::table)
        .values((
            mailbox_acks::device_key.eq(device_key),
            mailbox_acks::acked_seq.eq(0_i64),
            mailbox_acks::removed_bytes.eq(0_i64),
            mailbox_acks::removed_entries.eq(0_i64),
        ))
        .execute(c))?;
    Ok(())
}

/// Sets the status of a listed device of the account and returns its public id.
pub(super) fn set_status(
    conn: &mut Conn,
    account_key: AccountKey,
    device_key: DeviceKey,
    status: DeviceStatus,
) -> Result<DeviceId, StorageError> {
    let id: Option<Vec<u8>> = on!(conn, c => diesel::update(devices::table)
        .filter(devices::device_key.eq(device_key))
        .filter(devices::account_key.eq(account_key))
        .filter(devices::status.ne(DeviceStatus::Revoked.stored()))
        .set(devices::status.eq(status.stored()))
        .returning(devices::device_id)
        .get_result(c)
        .optional())?;
    read_id(&id.ok_or(StorageError::Inconsistent("a device to end is not a listed one of the account"))?)
}

type DeviceColumns = (DeviceKey, Vec<u8>, AccountKey, String, String, Vec<u8>, Vec<u8>, i16, i64, i64);

fn device_row(
    (device_key, id, account_key, name, platform, signing, mailbox, status, linked_at, not_after): DeviceColumns,
) -> Result<DeviceRow, StorageError> {
    Ok(DeviceRow {
        device_key,
        device_id: read_id(&id)?,
        account_key,
        name,
        platform,
        signing_key: read_id(&signing)?,
        mailbox_key: read_id(&mailbox)?,
        status: DeviceStatus::read(status)?,
        linked_at_ms: read_u64(linked_at)?,
        prekey_not_after_ms: read_u64(not_after)?,
    })
}
