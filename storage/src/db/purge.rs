//! What goes when a device ends: tokens, tickets, prekeys and the whole mailbox. The device's own row stays as a tombstone.

use diesel::{ExpressionMethods as _, NullableExpressionMethods as _, QueryDsl as _, RunQueryDsl as _};

use super::{
    Conn, ContentKey, DeviceKey, StorageError,
    conn::on,
    locks, mailbox,
    schema::{mailbox_acks, mailbox_entries, mailbox_gaps, mailbox_heads, prekeys, socket_tickets, tokens},
};

/// Deletes everything of these devices but their rows. The caller has locked their heads, and tells the control stream.
///
/// All of them at once: rows of one kind are locked by key before the next kind is, as acks and expiry do beside it.
pub(super) fn devices(conn: &mut Conn, devices: &[DeviceKey]) -> Result<(), StorageError> {
    if devices.is_empty() {
        return Ok(());
    }
    on!(conn, c => diesel::delete(tokens::table.filter(tokens::device_key.eq_any(devices))).execute(c))?;
    on!(conn, c => diesel::delete(socket_tickets::table.filter(socket_tickets::device_key.eq_any(devices))).execute(c))?;
    on!(conn, c => diesel::delete(prekeys::table.filter(prekeys::device_key.eq_any(devices))).execute(c))?;
    mailboxes_of(conn, devices)
}

/// Without a head no send finds the mailbox: one that names the device is a mismatch.
fn mailboxes_of(conn: &mut Conn, devices: &[DeviceKey]) -> Result<(), StorageError> {
    locks::acks(conn, devices)?;
    on!(conn, c => diesel::delete(mailbox_heads::table.filter(mailbox_heads::device_key.eq_any(devices))).execute(c))?;
    on!(conn, c => diesel::delete(mailbox_acks::table.filter(mailbox_acks::device_key.eq_any(devices))).execute(c))?;
    let contents: Vec<ContentKey> = on!(conn, c => mailbox_entries::table
        .filter(mailbox_entries::device_key.eq_any(devices))
        .filter(mailbox_entries::content_key.is_not_null())
        .select(mailbox_entries::content_key.assume_not_null())
        .load(c))?;
    on!(conn, c => diesel::delete(mailbox_entries::table.filter(mailbox_entries::device_key.eq_any(devices))).execute(c))?;
    on!(conn, c => diesel::delete(mailbox_gaps::table.filter(mailbox_gaps::device_key.eq_any(devices))).execute(c))?;
    mailbox::contents::release(conn, contents)
}
