//! Registering an account.

use diesel::{ExpressionMethods as _, OptionalExtension as _, RunQueryDsl as _};

use super::{InsertAccountError, NewAccount, by_username, insert_list};
use crate::db::{AccountKey, Conn, DeviceKey, StorageError, conn::on, devices, schema::accounts};

/// Number of an account's first list.
const FIRST_LIST: u64 = 1;

/// Registers an account: its row, list 1, the first device with mailbox and prekeys.
///
/// # Errors
/// [`InsertAccountError`]; the transaction must then be rolled back, as [`crate::Db::write`] does with every error.
pub fn insert_account(conn: &mut Conn, new: &NewAccount<'_>) -> Result<(AccountKey, DeviceKey), InsertAccountError> {
    let Some(account_key) = insert_row(conn, new)? else {
        let taken = by_username(conn, new.username)?.is_some();
        return Err(if taken { InsertAccountError::UsernameTaken } else { InsertAccountError::IdTaken });
    };
    insert_list(conn, account_key, FIRST_LIST, new.list)?;
    let device_key = devices::insert(conn, account_key, FIRST_LIST, new.device)?;
    Ok((account_key, device_key))
}

/// None if the name or the id is there already.
fn insert_row(conn: &mut Conn, new: &NewAccount<'_>) -> Result<Option<AccountKey>, StorageError> {
    let key = on!(conn, c => diesel::insert_into(accounts::table)
        .values((
            accounts::account_id.eq(new.account_id.as_bytes().as_slice()),
            accounts::username.eq(new.username),
            accounts::password_hash.eq(new.password_hash),
            accounts::fingerprint.eq(new.fingerprint.as_bytes().as_slice()),
            accounts::list_n.eq(1_i64),
            accounts::list_hash.eq(new.fingerprint.as_bytes().as_slice()),
        ))
        .on_conflict_do_nothing()
        .returning(accounts::account_key)
        .get_result(c)
        .optional())?;
    Ok(key)
}
