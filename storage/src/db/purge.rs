//! What goes when a device ends: tokens, tickets, prekeys and the whole mailbox. The device's own row stays as a tombstone.

use diesel::{ExpressionMethods as _, NullableExpressionMethods as _, QueryDsl as _, RunQueryDsl as _};

use super::{
    Conn, ContentKey, DeviceKey, StorageError,
    conn::on,
    mailbox,
    schema::{mailbox_acks, mailbox_entries, mailbox_gaps, mailbox_heads, prekeys, socket_tickets, tokens},
};

/// Deletes everything of a device but its row. The caller tells the control stream.
pub(super) fn device(conn: &mut Conn, device_key: DeviceKey) -> Result<(), StorageError> {
    on!(conn, c => diesel::delete(tokens::table.filter(tokens::device_key.eq(device_key))).execute(c))?;
    on!(conn, c => diesel::delete(socket_tickets::table.filter(socket_tickets::device_key.eq(device_key))).execute(c))?;
    on!(conn, c => diesel::delete(prekeys::table.filter(prekeys::device_key.eq(device_key))).execute(c))?;
    mailbox_of(conn, device_key)
}

/// Without a head no send finds the mailbox: one that names the device is a mismatch.
fn mailbox_of(conn: &mut Conn, device_key: DeviceKey) -> Result<(), StorageError> {
    on!(conn, c => diesel::delete(mailbox_heads::table.filter(mailbox_heads::device_key.eq(device_key))).execute(c))?;
    on!(conn, c => diesel::delete(mailbox_acks::table.filter(mailbox_acks::device_key.eq(device_key))).execute(c))?;
    let contents: Vec<ContentKey> = on!(conn, c => mailbox_entries::table
        .filter(mailbox_entries::device_key.eq(device_key))
        .filter(mailbox_entries::content_key.is_not_null())
        .select(mailbox_entries::content_key.assume_not_null())
        .load(c))?;
    on!(conn, c => diesel::delete(mailbox_entries::table.filter(mailbox_entries::device_key.eq(device_key))).execute(c))?;
    on!(conn, c => diesel::delete(mailbox_gaps::table.filter(mailbox_gaps::device_key.eq(device_key))).execute(c))?;
    mailbox::contents::release(conn, contents)
}
