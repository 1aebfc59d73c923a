//! What can go wrong beneath: the database, or the agreement between it and this code.

use diesel::result::Error as DieselError;

/// A query or the store itself failed. Outcomes that a caller must handle (a name that is taken, a head that moved) are enums beside
/// the function that has them.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The writer or a read connection was not free within `DbConfig::wait`, or another process holds the store. Nothing was done; a
    /// retry may succeed.
    #[error("the store is busy")]
    Busy,
    /// The database can't be reached, was shut down, or did not answer in time. What was asked of a write may have been done or not.
    #[error("the store can't be reached")]
    Unavailable(String),
    /// Other transactions were in the way (a deadlock, a lock that took too long). Nothing was done; a retry may succeed.
    #[error("the store gave way to another request")]
    Contended(String),
    /// The database refused or failed.
    #[error("database: {0}")]
    Database(#[source] DieselError),
    /// The store's contents contradict themselves or what this code was told: a bug, or a store edited by hand. The text says what,
    /// never whose.
    #[error("the store is inconsistent: {0}")]
    Inconsistent(&'static str),
    /// The file or database can't be opened or created.
    #[error("the store at {place} can't be opened: {reason}")]
    Open {
        /// The configured path or address, without user and password.
        place: String,
        /// What the database or the file system said.
        reason: String,
    },
    /// A migration failed. The text is the database's.
    #[error("the store can't be migrated: {0}")]
    Migration(String),
    /// A newer release has migrated the store.
    #[error("the store has {0} migrations of a newer release; run that release, or restore the backup of before it")]
    Newer(usize),
    /// The database is not one that this release runs on. The text says why, and what to do.
    #[error("{0}")]
    Unfit(String),
    /// The database does not take the setting that keeps answered messages through a loss of power.
    #[error("the store would lose answered messages with the power: {setting} is {found}, {needed} is needed")]
    NotDurable {
        /// Which setting.
        setting: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        needed: &'static str,
    },
}

impl StorageError {
    /// Whether trying the same again may succeed, without anybody mending anything.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Busy | Self::Unavailable(_) | Self::Contended(_))
    }

    /// For an operator: with what the database said, which is nobody else's business.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Unavailable(said) | Self::Contended(said) => format!("{self}: {said}"),
            _ => self.to_string(),
        }
    }
}

impl From<DieselError> for StorageError {
    fn from(error: DieselError) -> Self {
        if super::sqlite::is_busy(&error) { Self::Busy } else { super::postgres::error(error) }
    }
}

/// Turns a row count that is not the one expected into an error.
pub(crate) fn expect_rows(found: usize, expected: usize, what: &'static str) -> Result<(), StorageError> {
    if found == expected { Ok(()) } else { Err(StorageError::Inconsistent(what)) }
}
