//! Moving a whole store from SQLite to PostgreSQL or to a new SQLite file, row by row: what `martlet export` reads and `martlet import`
//! writes.
//!
//! In reading order: [`tables`] (every table with its columns and key), [`values`] (rows whose shape is known only at run time), [`read`]
//! (one page of a table, from either backend), [`source`] (the embedded store, locked while it is read), [`target`] (the empty database
//! and the mark of an unfinished import), [`file`] (a new SQLite file in its place).
//!
//! It knows no files: how rows travel from one machine to the other, and how they are hashed, is for the caller. It moves nothing from
//! PostgreSQL to SQLite.

mod file;
mod read;
mod source;
mod tables;
pub(super) mod target;
mod values;

pub use source::{Source, SourceFacts};
pub use tables::{Column, Kind, TABLES, Table};
pub use target::{Done, Target};
pub use values::{Row, Value};

use super::StorageError;

/// Why a store can't be moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// A query or the store failed.
    #[error("{}", .0.reason())]
    Storage(#[from] StorageError),
    /// The store to be read is not a file.
    #[error(
        "only an embedded store is exported; for PostgreSQL there are pg_dump and its backups (unset storage.database_url)"
    )]
    NotEmbedded,
    /// The file to be read is not there.
    #[error("there is no store at {0}; set storage.data_dir to the old node's directory")]
    NoStore(String),
    /// Some process has the embedded store open.
    #[error("a node runs on this store; stop it first: what it accepts during the export would be lost")]
    SourceInUse,
    /// The embedded store was last opened by another release.
    #[error(
        "the store has another schema than this release; start and stop this release's node on it once, then export"
    )]
    OtherSchema,
    /// The SQLite file to be written is there.
    #[error("there is a store at {0} already; set storage.data_dir to a new directory (or storage.database_url)")]
    StoreExists(String),
    /// There is data in the database, and not from this import.
    #[error("the database is not empty (table {0}); import into a new one")]
    NotEmpty(&'static str),
    /// Part of another export is in the database.
    #[error("the database holds an unfinished import of another export; drop and create it, then import again")]
    OtherImport,
    /// Another process imports into the database.
    #[error("another import into this database is running")]
    ImportRuns,
    /// Nodes have the database open.
    #[error("{0} nodes run on this database; stop them first")]
    NodesRun(i64),
}

impl From<diesel::result::Error> for MoveError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Storage(error.into())
    }
}
