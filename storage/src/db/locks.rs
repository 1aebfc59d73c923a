//! Row locks of PostgreSQL. On SQLite they do nothing: a write transaction there has the whole store to itself.
//!
//! They are taken in one order (see [`super`]), rows of one kind by key; so two transactions never wait for each other.

use diesel::{ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, RunQueryDsl as _};
use martlet_protocol::id::{AccountId, ConversationId};

use super::{
    AccountKey, Conn, ConversationKey, DeviceKey, StorageError,
    schema::{accounts, conversations, devices, log_heads, mailbox_acks, mailbox_heads},
};

/// Keeps others from changing a device: its status, its prekeys.
pub(super) fn device(conn: &mut Conn, device_key: DeviceKey) -> Result<(), StorageError> {
    let Conn::Postgres(c) = conn else { return Ok(()) };
    let query = devices::table.find(device_key).select(devices::device_key).for_no_key_update();
    let _: Option<DeviceKey> = query.get_result(c).optional()?;
    Ok(())
}

/// Keeps others from changing an account's list.
pub(super) fn account(conn: &mut Conn, account_id: &AccountId) -> Result<(), StorageError> {
    let Conn::Postgres(c) = conn else { return Ok(()) };
    let query = accounts::table.filter(accounts::account_id.eq(account_id.as_bytes().as_slice()));
    let _: Option<AccountKey> = query.select(accounts::account_key).for_no_key_update().get_result(c).optional()?;
    Ok(())
}

/// Keeps others from changing a conversation's membership or title.
pub(super) fn conversation(conn: &mut Conn, conversation_id: &ConversationId) -> Result<(), StorageError> {
    let Conn::Postgres(c) = conn else { return Ok(()) };
    let query = conversations::table.filter(conversations::conversation_id.eq(conversation_id.as_bytes().as_slice()));
    let query = query.select(conversations::conversation_key).for_no_key_update();
    let _: Option<ConversationKey> = query.get_result(c).optional()?;
    Ok(())
}

/// Keeps others from appending to these logs.
pub(super) fn log_heads(conn: &mut Conn, logs: &[ConversationKey]) -> Result<(), StorageError> {
    let Conn::Postgres(c) = conn else { return Ok(()) };
    let _: Vec<ConversationKey> = log_heads::table
        .filter(log_heads::conversation_key.eq_any(logs))
        .order(log_heads::conversation_key)
        .select(log_heads::conversation_key)
        .for_update()
        .load(c)?;
    Ok(())
}

/// Keeps sends from reaching any device of the account.
pub(super) fn heads_of_account(conn: &mut Conn, account_key: AccountKey) -> Result<(), StorageError> {
    let Conn::Postgres(c) = conn else { return Ok(()) };
    let of_account = devices::table.filter(devices::account_key.eq(account_key)).select(devices::device_key);
    let _: Vec<DeviceKey> = mailbox_heads::table
        .filter(mailbox_heads::device_key.eq_any(of_account))
        .order(mailbox_heads::device_key)
        .select(mailbox_heads::device_key)
        .for_update()
        .load(c)?;
    Ok(())
}

/// Keeps sends from these mailboxes.
pub(super) fn heads(conn: &mut Conn, devices: &[DeviceKey]) -> Result<(), StorageError> {
    let Conn::Postgres(c) = conn else { return Ok(()) };
    let _: Vec<DeviceKey> = mailbox_heads::table
        .filter(mailbox_heads::device_key.eq_any(devices))
        .order(mailbox_heads::device_key)
        .select(mailbox_heads::device_key)
        .for_update()
        .load(c)?;
    Ok(())
}

/// Keeps others from acknowledging or expiring in these mailboxes.
pub(super) fn acks(conn: &mut Conn, devices: &[DeviceKey]) -> Result<(), StorageError> {
    let Conn::Postgres(c) = conn else { return Ok(()) };
    let _: Vec<DeviceKey> = mailbox_acks::table
        .filter(mailbox_acks::device_key.eq_any(devices))
        .order(mailbox_acks::device_key)
        .select(mailbox_acks::device_key)
        .for_update()
        .load(c)?;
    Ok(())
}

/// Whether this transaction is the one that sweeps now; of several nodes one does.
pub(super) fn sweeper(conn: &mut Conn) -> Result<bool, StorageError> {
    #[derive(diesel::QueryableByName)]
    struct Locked {
        #[diesel(sql_type = diesel::sql_types::Bool)]
        locked: bool,
    }
    let Conn::Postgres(c) = conn else { return Ok(true) };
    let sql = "SELECT pg_try_advisory_xact_lock(hashtext('martlet sweeper')) AS locked";
    let locked: Locked = diesel::sql_query(sql).get_result(c)?;
    Ok(locked.locked)
}
