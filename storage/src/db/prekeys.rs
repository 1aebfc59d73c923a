//! Prekeys: the current signed one of a device, and its pool of one-time ones, each given out once.

use diesel::{ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, RunQueryDsl as _};
use martlet_protocol::{
    id::AccountId,
    rest::{PrekeyKind, SignedPrekey},
    wire::{self, control_entry::Event},
};
use prost::Message as _;

use super::{
    Conn, DeviceKey, StorageError,
    conn::on,
    control,
    convert::{read_id, read_message, read_u64, store_u64},
    error::expect_rows,
    schema::{accounts, devices, prekeys},
    store,
};

/// A signed prekey that ends within this time may have ended already by the clock of another node, which then takes the device for
/// dormant. Devices bring the next one weeks before, so it makes no ordinary upload a return.
const CLOCKS_DIFFER_MS: u64 = 60 * 60 * 1000;

/// What a device has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stock {
    /// One-time prekeys that have not expired.
    pub one_time: u32,
    /// Unix milliseconds: end of the signed prekey.
    pub signed_not_after_ms: u64,
}

/// Why an upload is refused; nothing of it is stored.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The id was used for another key.
    #[error("a prekey id was used for another key")]
    IdReused {
        /// Of which kind.
        kind: PrekeyKind,
        /// Which id.
        key_id: u32,
    },
    /// The pool would be over its limit.
    #[error("more one-time prekeys than the pool takes")]
    TooMany,
    /// The query failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What a claim wants of one device.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Which device.
    pub device_key: DeviceKey,
    /// A one-time prekey too (false: the claimer had one lately).
    pub one_time: bool,
}

/// What a claim got of one device.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Which device.
    pub device_key: DeviceKey,
    /// Its current signed prekey.
    pub signed_prekey: SignedPrekey,
    /// Now the claimer's alone; none if the pool is drained.
    pub one_time_prekey: Option<SignedPrekey>,
}

/// Stores prekeys. The caller holds the device ([`super::devices::lock`]). One that is there already with the same key changes nothing,
/// whether claimed, replaced or not. A new signed prekey replaces the current one; if that had ended, the device was dormant, and every node
/// is told to read the account's devices anew: what it remembers of them would go on leaving this one out.
///
/// # Errors
/// [`UploadError`]; the transaction must then be rolled back.
pub fn upload(
    conn: &mut Conn,
    device_key: DeviceKey,
    signed_prekey: Option<&SignedPrekey>,
    one_time_prekeys: &[SignedPrekey],
    max_one_time: u32,
    now_ms: u64,
) -> Result<Stock, UploadError> {
    let epoch = store::epoch(conn)?;
    let mut was_dormant = false;
    for prekey in signed_prekey.into_iter().chain(one_time_prekeys) {
        let put = put(conn, device_key, prekey, epoch)?;
        match (put, prekey.kind) {
            (Put::Reused, kind) => return Err(UploadError::IdReused { kind, key_id: prekey.key_id }),
            (Put::Added, PrekeyKind::Signed) => {
                was_dormant = is_dormant(conn, device_key, now_ms)?;
                replace_signed(conn, device_key, prekey)?;
            }
            (Put::Added, PrekeyKind::OneTime) | (Put::Same, _) => {}
        }
    }
    let stock = stock(conn, device_key, now_ms)?;
    if stock.one_time > max_one_time {
        return Err(UploadError::TooMany);
    }
    if was_dormant {
        // The control stream last: its head is one row, and who holds it must wait for nobody.
        tell_awake(conn, device_key, now_ms)?;
    }
    Ok(stock)
}

/// What the device has left.
///
/// # Errors
/// [`StorageError::Inconsistent`] if there is no such device.
pub fn stock(conn: &mut Conn, device_key: DeviceKey, now_ms: u64) -> Result<Stock, StorageError> {
    let epoch = store::epoch(conn)?;
    let one_time: i64 = on!(conn, c => prekeys::table
        .filter(prekeys::device_key.eq(device_key))
        .filter(prekeys::kind.eq(stored_kind(PrekeyKind::OneTime)))
        .filter(prekeys::signed_prekey.is_not_null())
        .filter(prekeys::store_epoch.eq(epoch))
        .filter(prekeys::not_after_ms.gt(store_u64(now_ms)))
        .count()
        .get_result(c))?;
    let signed: Option<i64> = on!(conn, c => devices::table
        .filter(devices::device_key.eq(device_key))
        .select(devices::prekey_not_after_ms)
        .first(c)
        .optional())?;
    let signed = signed.ok_or(StorageError::Inconsistent("prekeys of a device that is not there"))?;
    Ok(Stock { one_time: u32::try_from(one_time).unwrap_or(u32::MAX), signed_not_after_ms: read_u64(signed)? })
}

/// Claims keys: per device the signed prekey and, if wanted and left, one one-time prekey that nobody else gets. Devices without a
/// signed prekey (revoked meanwhile) are left out of the answer, which is in the order asked for. Needs a write transaction.
///
/// # Errors
/// [`StorageError`] if a query fails.
pub fn claim(conn: &mut Conn, wanted: &[Wanted], now_ms: u64) -> Result<Vec<Claimed>, StorageError> {
    let epoch = store::epoch(conn)?;
    let mut claimed = Vec::with_capacity(wanted.len());
    for want in wanted {
        let Some(signed_prekey) = current_signed(conn, want.device_key)? else { continue };
        let one_time_prekey = if want.one_time { take_one_time(conn, want.device_key, epoch, now_ms)? } else { None };
        claimed.push(Claimed { device_key: want.device_key, signed_prekey, one_time_prekey });
    }
    Ok(claimed)
}

/// What became of a prekey that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It is new.
    Added,
    /// The id is there with the same key.
    Same,
    /// The id is there with another key.
    Reused,
}

/// Adds a prekey unless its id was used. `epoch` is the store's.
pub(super) fn put(
    conn: &mut Conn,
    device_key: DeviceKey,
    prekey: &SignedPrekey,
    epoch: i64,
) -> Result<Put, StorageError> {
    let kind = stored_kind(prekey.kind);
    let key_id = i64::from(prekey.key_id);
    let added = on!(conn, c => diesel::insert_into(prekeys::table)
        .values((
            prekeys::device_key.eq(device_key),
            prekeys::kind.eq(kind),
            prekeys::key_id.eq(key_id),
            prekeys::public_key.eq(prekey.public_key.as_bytes().as_slice()),
            prekeys::not_after_ms.eq(store_u64(prekey.not_after_ms)),
            prekeys::signed_prekey.eq(wire::SignedPrekey::from(prekey).encode_to_vec()),
            prekeys::store_epoch.eq(epoch),
        ))
        .on_conflict_do_nothing()
        .execute(c))?;
    if added == 1 {
        return Ok(Put::Added);
    }
    let public_key: Vec<u8> = on!(conn, c => prekeys::table
        .find((device_key, kind, key_id))
        .select(prekeys::public_key)
        .first(c))?;
    Ok(if public_key == prekey.public_key.as_bytes() { Put::Same } else { Put::Reused })
}

/// Whether any node may take the device for dormant.
fn is_dormant(conn: &mut Conn, device_key: DeviceKey, now_ms: u64) -> Result<bool, StorageError> {
    let ends_ms: Option<i64> = on!(conn, c => devices::table
        .filter(devices::device_key.eq(device_key))
        .select(devices::prekey_not_after_ms)
        .first(c)
        .optional())?;
    Ok(ends_ms.is_some_and(|ends_ms| ends_ms <= store_u64(now_ms.saturating_add(CLOCKS_DIFFER_MS))))
}

fn tell_awake(conn: &mut Conn, device_key: DeviceKey, now_ms: u64) -> Result<(), StorageError> {
    let account_id: Vec<u8> = on!(conn, c => devices::table
        .inner_join(accounts::table)
        .filter(devices::device_key.eq(device_key))
        .select(accounts::account_id)
        .first(c))?;
    let account_id: AccountId = read_id(&account_id)?;
    let changed = wire::AccountListChanged { account_id: account_id.to_wire() };
    control::tell(conn, Event::AccountListChanged(changed), now_ms / 1000)
}

/// The new signed prekey is stored: the ones before keep their id only, and the device is awake until the new one's end.
fn replace_signed(conn: &mut Conn, device_key: DeviceKey, new: &SignedPrekey) -> Result<(), StorageError> {
    on!(conn, c => diesel::update(prekeys::table)
        .filter(prekeys::device_key.eq(device_key))
        .filter(prekeys::kind.eq(stored_kind(PrekeyKind::Signed)))
        .filter(prekeys::key_id.ne(i64::from(new.key_id)))
        .set(prekeys::signed_prekey.eq(None::<&[u8]>))
        .execute(c))?;
    let updated = on!(conn, c => diesel::update(devices::table)
        .filter(devices::device_key.eq(device_key))
        .set(devices::prekey_not_after_ms.eq(store_u64(new.not_after_ms)))
        .execute(c))?;
    expect_rows(updated, 1, "a signed prekey of a device that is not there")
}

fn current_signed(conn: &mut Conn, device_key: DeviceKey) -> Result<Option<SignedPrekey>, StorageError> {
    let row: Option<Option<Vec<u8>>> = on!(conn, c => prekeys::table
        .filter(prekeys::device_key.eq(device_key))
        .filter(prekeys::kind.eq(stored_kind(PrekeyKind::Signed)))
        .filter(prekeys::signed_prekey.is_not_null())
        .select(prekeys::signed_prekey)
        .first(c)
        .optional())?;
    row.flatten().map(|bytes| read_prekey(&bytes)).transpose()
}

/// Takes the oldest one out of the pool. Its id stays behind, so that it is never used again.
fn take_one_time(
    conn: &mut Conn,
    device_key: DeviceKey,
    epoch: i64,
    now_ms: u64,
) -> Result<Option<SignedPrekey>, StorageError> {
    let kind = stored_kind(PrekeyKind::OneTime);
    let oldest = prekeys::table
        .filter(prekeys::device_key.eq(device_key))
        .filter(prekeys::kind.eq(kind))
        .filter(prekeys::signed_prekey.is_not_null())
        .filter(prekeys::store_epoch.eq(epoch))
        .filter(prekeys::not_after_ms.gt(store_u64(now_ms)))
        .order(prekeys::key_id)
        .select((prekeys::key_id, prekeys::signed_prekey))
        .limit(1);
    let row: Option<(i64, Option<Vec<u8>>)> = match conn {
        Conn::Sqlite(c) => oldest.get_result(c).optional()?,
        // One that another claim is taking is passed over instead of waited for.
        Conn::Postgres(c) => oldest.for_update().skip_locked().get_result(c).optional()?,
    };
    let Some((key_id, Some(bytes))) = row else { return Ok(None) };
    let taken = on!(conn, c => diesel::update(prekeys::table.find((device_key, kind, key_id)))
        .filter(prekeys::signed_prekey.is_not_null())
        .set(prekeys::signed_prekey.eq(None::<&[u8]>))
        .execute(c))?;
    expect_rows(taken, 1, "a one-time prekey was taken within the transaction that takes it")?;
    read_prekey(&bytes).map(Some)
}

fn read_prekey(bytes: &[u8]) -> Result<SignedPrekey, StorageError> {
    let prekey: wire::SignedPrekey = read_message(bytes)?;
    SignedPrekey::try_from(&prekey).map_err(|_| StorageError::Inconsistent("a prekey with a field of another length"))
}

/// One-time prekeys, as the column holds the kind.
pub(super) const ONE_TIME: i16 = 2;

/// As the column holds it: the number in the wire schema.
const fn stored_kind(kind: PrekeyKind) -> i16 {
    match kind {
        PrekeyKind::Signed => 1,
        PrekeyKind::OneTime => ONE_TIME,
    }
}
