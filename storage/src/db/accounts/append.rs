//! A new list: the head moves, devices come and go, every mailbox of the account learns the new number, and every node is told.

use diesel::{ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, RunQueryDsl as _};
use martlet_protocol::{
    id::{AccountId, DeviceId},
    wire::{self, control_entry::Event},
};

use super::{AppendList, AppendListError, insert_list};
use crate::db::{
    Conn, DeviceKey, StorageError,
    conn::on,
    control,
    convert::{read_id, store_u64},
    devices::{self, DeviceStatus},
    locks, purge,
    schema::{accounts, mailbox_heads},
};

/// Appends a list and everything that follows from it, and returns the keys of the added devices in their order.
///
/// In one transaction: the account's head; the list's number in the mailbox heads of all of the account's devices, which is what makes
/// sends that name the old list a mismatch; removed devices end, with all that was theirs; added devices begin; the control stream
/// says so.
///
/// # Errors
/// [`AppendListError`]; the transaction must then be rolled back.
pub fn append_list(conn: &mut Conn, append: &AppendList<'_>) -> Result<Vec<DeviceKey>, AppendListError> {
    let n = append.expected_n + 1;
    let account_id = move_head(conn, append, n)?.ok_or(AppendListError::Conflict)?;
    // Sends that name the old list are through, or wait and will find the new number.
    locks::heads_of_account(conn, append.account_key)?;
    insert_list(conn, append.account_key, n, append.list)?;
    let mut ended = Vec::with_capacity(append.removed.len());
    for &device_key in append.removed {
        ended.push(devices::set_status(conn, append.account_key, device_key, DeviceStatus::Revoked)?);
    }
    purge::devices(conn, append.removed)?;
    number_heads(conn, append, n)?;
    let added = append
        .added
        .iter()
        .map(|device| devices::insert(conn, append.account_key, n, device).map_err(Into::into))
        .collect::<Result<Vec<_>, AppendListError>>()?;
    // The control stream last: its head is one row, and who holds it must wait for nobody.
    for device_id in ended {
        control::tell(conn, device_ended(device_id), append.now_s)?;
    }
    let changed = wire::AccountListChanged { account_id: account_id.to_wire() };
    control::tell(conn, Event::AccountListChanged(changed), append.now_s)?;
    Ok(added)
}

/// Moves the head if it is the expected one; none if not.
fn move_head(conn: &mut Conn, append: &AppendList<'_>, n: u64) -> Result<Option<AccountId>, StorageError> {
    let id: Option<Vec<u8>> = on!(conn, c => diesel::update(accounts::table)
        .filter(accounts::account_key.eq(append.account_key))
        .filter(accounts::list_n.eq(store_u64(append.expected_n)))
        .set((accounts::list_n.eq(store_u64(n)), accounts::list_hash.eq(append.hash.as_bytes().as_slice())))
        .returning(accounts::account_id)
        .get_result(c)
        .optional())?;
    id.map(|id| read_id(&id)).transpose()
}

fn number_heads(conn: &mut Conn, append: &AppendList<'_>, n: u64) -> Result<(), StorageError> {
    use crate::db::schema::devices as d;
    on!(conn, c => {
        let of_account = d::table.filter(d::account_key.eq(append.account_key)).select(d::device_key);
        diesel::update(mailbox_heads::table)
            .filter(mailbox_heads::device_key.eq_any(of_account))
            .set(mailbox_heads::list_n.eq(store_u64(n)))
            .execute(c)
    })?;
    Ok(())
}

fn device_ended(device_id: DeviceId) -> Event {
    Event::DeviceEnded(wire::DeviceEnded { device_id: device_id.to_wire(), suspended: false })
}
