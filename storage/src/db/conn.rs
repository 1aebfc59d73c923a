//! A connection of either backend, and its transactions.

use std::panic::{self, AssertUnwindSafe};

use diesel::sqlite::SqliteConnection;

use super::{StorageError, sqlite};

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
    ///
    /// Diesel's transaction manager stands aside: SQLite ends a transaction by itself when the disk is full, and the manager then
    /// calls the connection broken for good.
    fn transaction<T, E>(&mut self, begin: &str, run: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E>
    where
        E: From<StorageError>,
    {
        on!(self, c => sqlite::begin(c, begin))?;
        let result = panic::catch_unwind(AssertUnwindSafe(|| run(self)));
        match result {
            Ok(Ok(value)) => {
                on!(self, c => sqlite::commit(c))?;
                Ok(value)
            }
            Ok(Err(error)) => {
                on!(self, c => sqlite::roll_back(c));
                Err(error)
            }
            Err(panic) => {
                on!(self, c => sqlite::roll_back(c));
                panic::resume_unwind(panic)
            }
        }
    }
}
