//! The store's own row: which store this is, and which secret belongs to it.

use diesel::{ExpressionMethods as _, QueryDsl as _, RunQueryDsl as _};

use super::{Conn, StorageError, conn::on, schema::store};

/// What a node learns of the store before it serves from it.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreFacts {
    /// Drawn when the store was made.
    pub store_id: Vec<u8>,
    /// MAC of `store_id` under the nodes' secret; none before the first start.
    pub secret_check: Option<Vec<u8>>,
}

/// Reads them.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn facts(conn: &mut Conn) -> Result<StoreFacts, StorageError> {
    let (store_id, secret_check) =
        on!(conn, c => store::table.select((store::store_id, store::secret_check)).get_result(c))?;
    Ok(StoreFacts { store_id, secret_check })
}

/// Binds the store to a secret, unless it is bound: of several nodes that start at once, one does.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn bind_secret(conn: &mut Conn, secret_check: &[u8]) -> Result<(), StorageError> {
    on!(conn, c => diesel::update(store::table)
        .filter(store::secret_check.is_null())
        .set(store::secret_check.eq(secret_check))
        .execute(c))?;
    Ok(())
}

/// The store's part of every stream's epoch.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub(super) fn epoch(conn: &mut Conn) -> Result<i64, StorageError> {
    Ok(on!(conn, c => store::table.select(store::epoch).first(c))?)
}
