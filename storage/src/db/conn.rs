//! A connection of either backend, and its transactions.

use std::panic::{self, AssertUnwindSafe};

use diesel::{
    connection::{AnsiTransactionManager, TransactionManager},
    sqlite::SqliteConnection,
};

use super::StorageError;

/// A connection: a closed enum, so that each query is compiled for each backend.
pub enum Conn {
    /// The embedded default.
    Sqlite(SqliteConnection),
}

/// Runs one query on whichever backend it is: `on!(conn, c => query.execute(c))`.
macro_rules! on {
    ($conn:expr, $c:ident => $query:expr) => {
        match $conn {
            $crate::db::Conn::Sqlite($c) => $query,
        }
    };
}
pub(crate) use on;

impl Conn {
    /// A transaction that holds the write lock from its first moment, so that nothing it has read can change under it.
    pub(super) fn write<T, E>(&mut self, run: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E>
    where
        E: From<StorageError>,
    {
        self.transaction("BEGIN IMMEDIATE", run)
    }

    /// A transaction over one snapshot.
    pub(super) fn read<T, E>(&mut self, run: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E>
    where
        E: From<StorageError>,
    {
        self.transaction("BEGIN DEFERRED", run)
    }

    /// Commits what the closure did, or undoes it if it fails or panics: the connection goes back to others either way.
    fn transaction<T, E>(&mut self, begin: &str, run: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E>
    where
        E: From<StorageError>,
    {
        self.recover()?;
        on!(self, c => AnsiTransactionManager::begin_transaction_sql(c, begin)).map_err(StorageError::from)?;
        let result = panic::catch_unwind(AssertUnwindSafe(|| run(self)));
        match result {
            Ok(Ok(value)) => {
                on!(self, c => AnsiTransactionManager::commit_transaction(c)).map_err(StorageError::from)?;
                Ok(value)
            }
            Ok(Err(error)) => {
                self.roll_back();
                Err(error)
            }
            Err(panic) => {
                self.roll_back();
                panic::resume_unwind(panic)
            }
        }
    }

    /// A roll-back that fails leaves the connection in its transaction; [`Self::recover`] tries again before the next one.
    fn roll_back(&mut self) {
        if let Err(error) = on!(self, c => AnsiTransactionManager::rollback_transaction(c)) {
            tracing::warn!(%error, "a transaction could not be rolled back");
        }
    }

    /// Ends a transaction that an earlier call could not end.
    fn recover(&mut self) -> Result<(), StorageError> {
        let depth = on!(self, c => AnsiTransactionManager::transaction_manager_status_mut(c).transaction_depth());
        match depth {
            Ok(None) => Ok(()),
            Ok(Some(_)) | Err(_) => {
                on!(self, c => AnsiTransactionManager::rollback_transaction(c)).map_err(StorageError::from)
            }
        }
    }
}
