//! Socket tickets: single use, stored hashed.

use diesel::{ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, RunQueryDsl as _};
use martlet_protocol::id::Hash;

use super::{
    Conn, DeviceKey, StorageError,
    conn::on,
    convert::{read_u64, store_u64},
    schema::socket_tickets,
    tokens::{TokenRow, active_device},
};

/// Adds a ticket.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn insert(conn: &mut Conn, hash: &Hash, device_key: DeviceKey, expires_at_ms: u64) -> Result<(), StorageError> {
    on!(conn, c => diesel::insert_into(socket_tickets::table)
        .values((
            socket_tickets::ticket_hash.eq(hash.as_bytes().as_slice()),
            socket_tickets::device_key.eq(device_key),
            socket_tickets::expires_at_ms.eq(store_u64(expires_at_ms)),
        ))
        .execute(c))?;
    Ok(())
}

/// Takes a ticket out and returns whose it was; none if it is unknown, used, expired, or of a device that is not active. Atomic: of
/// any number of redeemers one gets it.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn redeem(conn: &mut Conn, hash: &Hash, now_ms: u64) -> Result<Option<TokenRow>, StorageError> {
    let taken: Option<(DeviceKey, i64)> = on!(conn, c => diesel::delete(
            socket_tickets::table
                .filter(socket_tickets::ticket_hash.eq(hash.as_bytes().as_slice()))
                .filter(socket_tickets::expires_at_ms.gt(store_u64(now_ms))),
        )
        .returning((socket_tickets::device_key, socket_tickets::expires_at_ms))
        .get_result(c)
        .optional())?;
    let Some((device_key, expires_at_ms)) = taken else { return Ok(None) };
    active_device(conn, device_key, read_u64(expires_at_ms)?)
}
