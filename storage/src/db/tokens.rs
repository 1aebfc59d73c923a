//! Device tokens, stored hashed.

use diesel::{ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, RunQueryDsl as _};
use martlet_protocol::{
    id::{AccountId, DeviceId, Hash},
    wire::{self, control_entry::Event},
};

use super::{
    AccountKey, Conn, DeviceKey, StorageError,
    conn::on,
    control,
    convert::{read_id, read_u64, store_u64},
    devices::DeviceStatus,
    schema::{accounts, devices, tokens},
};

/// Whose token or ticket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRow {
    /// The device.
    pub device_key: DeviceKey,
    /// Its public id.
    pub device_id: DeviceId,
    /// Its account.
    pub account_key: AccountKey,
    /// The account's public id.
    pub account_id: AccountId,
    /// Unix milliseconds; the caller compares.
    pub expires_at_ms: u64,
}

/// A token in place of another.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    /// The one that was presented.
    pub old: Hash,
    /// Unix milliseconds: how long the old one still serves, in case the answer is lost. Never lengthens its life.
    pub old_expires_at_ms: u64,
    /// The new one.
    pub new: Hash,
    /// Unix milliseconds.
    pub new_expires_at_ms: u64,
    /// Unix seconds, for the control stream.
    pub now_s: u64,
}

/// Adds a token.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn insert(conn: &mut Conn, hash: &Hash, device_key: DeviceKey, expires_at_ms: u64) -> Result<(), StorageError> {
    on!(conn, c => diesel::insert_into(tokens::table)
        .values((
            tokens::token_hash.eq(hash.as_bytes().as_slice()),
            tokens::device_key.eq(device_key),
            tokens::expires_at_ms.eq(store_u64(expires_at_ms)),
        ))
        .execute(c))?;
    Ok(())
}

/// Finds a token of an active device. Expiry is left to the caller.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn by_hash(conn: &mut Conn, hash: &Hash) -> Result<Option<TokenRow>, StorageError> {
    let found: Option<(DeviceKey, i64)> = on!(conn, c => tokens::table
        .filter(tokens::token_hash.eq(hash.as_bytes().as_slice()))
        .select((tokens::device_key, tokens::expires_at_ms))
        .first(c)
        .optional())?;
    let Some((device_key, expires_at_ms)) = found else { return Ok(None) };
    active_device(conn, device_key, read_u64(expires_at_ms)?)
}

/// Replaces a token; false if the old one is not there. Appends `TokenEnded`, so that caches read the old one's new expiry.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn rotate(conn: &mut Conn, rotation: &Rotation) -> Result<bool, StorageError> {
    let old = tokens::table.filter(tokens::token_hash.eq(rotation.old.as_bytes().as_slice()));
    let found: Option<(DeviceKey, i64)> = on!(conn, c => old
        .select((tokens::device_key, tokens::expires_at_ms))
        .first(c)
        .optional())?;
    let Some((device_key, expires_at_ms)) = found else { return Ok(false) };
    let shortened = expires_at_ms.min(store_u64(rotation.old_expires_at_ms));
    on!(conn, c => diesel::update(old).set(tokens::expires_at_ms.eq(shortened)).execute(c))?;
    insert(conn, &rotation.new, device_key, rotation.new_expires_at_ms)?;
    tell_ended(conn, &rotation.old, rotation.now_s)?;
    Ok(true)
}

/// Ends a token (sign-out) and appends `TokenEnded`; false if it is not there.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn delete(conn: &mut Conn, hash: &Hash, now_s: u64) -> Result<bool, StorageError> {
    let deleted = on!(conn, c => diesel::delete(
            tokens::table.filter(tokens::token_hash.eq(hash.as_bytes().as_slice())),
        )
        .execute(c))?;
    if deleted == 0 {
        return Ok(false);
    }
    tell_ended(conn, hash, now_s)?;
    Ok(true)
}

/// Ends the token with which a device signs out, and appends `SignedOut`, by which every node closes the device's socket; false if the token
/// is not there.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn sign_out(conn: &mut Conn, hash: &Hash, device_id: &DeviceId, now_s: u64) -> Result<bool, StorageError> {
    let ended = delete(conn, hash, now_s)?;
    if ended {
        tell_signed_out(conn, device_id, now_s)?;
    }
    Ok(ended)
}

/// Whether the device has a token that has not expired.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn has_one(conn: &mut Conn, device_key: DeviceKey, now_ms: u64) -> Result<bool, StorageError> {
    let found = tokens::table
        .filter(tokens::device_key.eq(device_key))
        .filter(tokens::expires_at_ms.gt(store_u64(now_ms)))
        .select(tokens::expires_at_ms);
    let first: Option<i64> = on!(conn, c => found.first(c).optional())?;
    Ok(first.is_some())
}

/// Ends every token of a device, each with its `TokenEnded`, and, if there were any, tells every node to close its socket, which one of them
/// may have opened. Returns how many there were. For a device that signs in again.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn delete_of_device(
    conn: &mut Conn,
    device_key: DeviceKey,
    device_id: &DeviceId,
    now_s: u64,
) -> Result<usize, StorageError> {
    let deleted: Vec<Vec<u8>> = on!(conn, c => diesel::delete(
            tokens::table.filter(tokens::device_key.eq(device_key)),
        )
        .returning(tokens::token_hash)
        .get_results(c))?;
    for hash in &deleted {
        tell_ended(conn, &read_id(hash)?, now_s)?;
    }
    if !deleted.is_empty() {
        tell_signed_out(conn, device_id, now_s)?;
    }
    Ok(deleted.len())
}

/// Whose it is, if the device is served.
pub(super) fn active_device(
    conn: &mut Conn,
    device_key: DeviceKey,
    expires_at_ms: u64,
) -> Result<Option<TokenRow>, StorageError> {
    let found: Option<(Vec<u8>, AccountKey, Vec<u8>)> = on!(conn, c => devices::table
        .inner_join(accounts::table)
        .filter(devices::device_key.eq(device_key))
        .filter(devices::status.eq(DeviceStatus::Active.stored()))
        .select((devices::device_id, accounts::account_key, accounts::account_id))
        .first(c)
        .optional())?;
    let Some((device_id, account_key, account_id)) = found else { return Ok(None) };
    Ok(Some(TokenRow {
        device_key,
        device_id: read_id(&device_id)?,
        account_key,
        account_id: read_id(&account_id)?,
        expires_at_ms,
    }))
}

fn tell_ended(conn: &mut Conn, hash: &Hash, now_s: u64) -> Result<(), StorageError> {
    let event = Event::TokenEnded(wire::TokenEnded { token_hash: hash.to_wire() });
    control::tell(conn, event, now_s)
}

fn tell_signed_out(conn: &mut Conn, device_id: &DeviceId, now_s: u64) -> Result<(), StorageError> {
    let event = Event::SignedOut(wire::SignedOut { device_id: device_id.to_wire() });
    control::tell(conn, event, now_s)
}
