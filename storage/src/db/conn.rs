//! A connection of either backend, and its transactions.

use std::panic::{self, AssertUnwindSafe};

use diesel::{pg::PgConnection, sqlite::SqliteConnection};

use super::{StorageError, postgres, sqlite};

/// A connection: a closed enum, so that each query is compiled for each backend.
pub enum Conn {
    /// The embedded default.
    Sqlite(SqliteConnection),
    /// Of a cluster.
    Postgres(PgConnection),
}

/// Runs one query on whichever backend it is: `on!(conn, c => query.execute(c))`.
macro_rules! on {
    ($conn:expr, $c:ident => $query:expr) => {
        match $conn {
            $crate::db::Conn::Sqlite($c) => $query,
            $crate::db::Conn::Postgres($c) => $query,
        }
    };
}
pub(crate) use on;

/// How a transaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// To change the store. On SQLite it holds the write lock from its first moment, so that nothing it has read can change under it.
    /// PostgreSQL has no such lock: what must not change is locked row by row, and each statement sees what is committed when it begins.
    Write,
    /// To read one snapshot.
    Read,
}

impl Conn {
    /// Commits what the closure did, or undoes it if it fails or panics. Also tells whether the connection can be used again.
    ///
    /// Diesel's transaction manager stands aside: SQLite ends a transaction by itself when the disk is full, and the manager then
    /// calls the connection broken for good.
    pub(super) fn transaction<T, E>(
        &mut self,
        begin: Begin,
        run: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> (Result<T, E>, bool)
    where
        E: From<StorageError>,
    {
        if let Err(error) = self.begin(begin) {
            return (Err(error.into()), self.is_local());
        }
        match panic::catch_unwind(AssertUnwindSafe(|| run(self))) {
            Ok(Ok(value)) => match self.commit() {
                Ok(()) => (Ok(value), true),
                Err(error) => (Err(error.into()), self.is_local()),
            },
            Ok(Err(error)) => {
                let undone = self.roll_back();
                (Err(error), undone)
            }
            Err(panic) => {
                self.roll_back();
                panic::resume_unwind(panic)
            }
        }
    }

    /// There is no network between it and the store, so that a failure says nothing about the connection.
    fn is_local(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    fn begin(&mut self, begin: Begin) -> Result<(), StorageError> {
        match self {
            Self::Sqlite(c) => sqlite::begin(c, begin),
            Self::Postgres(c) => postgres::begin(c, begin),
        }
    }

    fn commit(&mut self) -> Result<(), StorageError> {
        match self {
            Self::Sqlite(c) => sqlite::commit(c),
            Self::Postgres(c) => postgres::commit(c),
        }
    }

    /// False if the connection is not fit for another transaction.
    fn roll_back(&mut self) -> bool {
        match self {
            Self::Sqlite(c) => {
                sqlite::roll_back(c);
                true
            }
            Self::Postgres(c) => postgres::roll_back(c),
        }
    }
}
