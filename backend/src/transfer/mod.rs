//! Moving an embedded deployment to PostgreSQL: `martlet export` writes a folder, `martlet import` reads it. The operator's guide and the
//! format are in docs/MIGRATION.md.
//!
//! In reading order: [`manifest`] (what a folder holds), [`rows`] (a table as a file, and its hash), [`export`], [`import`], [`progress`].
//!
//! It knows no table: which there are, and how they are read and written, is `storage::transfer`'s. It never changes a row, and it moves
//! nothing back.

mod export;
mod import;
mod manifest;
mod progress;
mod rows;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use martlet_storage::{StorageError, transfer::MoveError};

use crate::secrets::SecretsError;

pub use export::export;
pub use import::{Import, import};
pub use manifest::{Manifest, TableSum};
pub use progress::Progress;

/// The nodes' secret in an export.
const SECRET_FILE: &str = "node.secret";

/// Why an export or an import ended early. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A file or folder could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The store can't be moved.
    #[error(transparent)]
    Store(#[from] MoveError),
    /// The secret could not be read or copied.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// A secret that the store was not made with.
    #[error(
        "{0} is not the secret that the exported store was made with; move it away, or set storage.secret_file to the right one"
    )]
    OtherSecret(PathBuf),
    /// The folder to be written holds something else.
    #[error("{0} is not empty; name a new folder for the export")]
    Occupied(PathBuf),
    /// The folder to be written holds a finished export.
    #[error("{0} holds a finished export; remove it, or name a new folder")]
    AlreadyExported(PathBuf),
    /// The folder to be read is none, or its manifest can't be read.
    #[error("{path} is not an export of this program: {reason}")]
    NoExport {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The export did not end.
    #[error("the export in {0} has not ended; run martlet export again, it begins anew")]
    Unfinished(PathBuf),
    /// The export is of another release.
    #[error(
        "the export has the schema {exported}, this release {own}; import with the release that exported ({release})"
    )]
    OtherSchema {
        /// The newest migration of the exported store.
        exported: String,
        /// The newest migration of the database.
        own: String,
        /// Which release exported.
        release: String,
    },
    /// A file is not what the export wrote.
    #[error("{0} is not as it was exported; copy the export again, or export again")]
    Damaged(PathBuf),
    /// What is in the database after the import is not what was exported.
    #[error("table {0} in the database is not what was exported; drop and create the database, then import again")]
    Differs(&'static str),
    /// As many pages as were asked for are written.
    #[error("stopped before the end, as asked; the next import goes on where this one was")]
    Stopped,
}

impl From<StorageError> for TransferError {
    fn from(error: StorageError) -> Self {
        Self::Store(error.into())
    }
}

/// What was moved: for the operator to read, and to compare between the two machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// What the folder holds.
    pub manifest: Manifest,
    /// SHA-256 of the manifest, in hexadecimal: one value for the whole export.
    pub fingerprint: String,
    /// Whether the secret is where it belongs: in the export, or where the config says.
    pub has_secret: bool,
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<18} {:>12}  sha256", "table", "rows")?;
        for sum in &self.manifest.tables {
            writeln!(f, "{:<18} {:>12}  {}", sum.table, sum.rows, sum.sha256)?;
        }
        let rows: u64 = self.manifest.tables.iter().map(|sum| sum.rows).sum();
        write!(f, "{:<18} {rows:>12}  {}", "all", self.fingerprint)
    }
}

/// Says of which path an error is.
fn at(path: &Path) -> impl FnOnce(io::Error) -> TransferError {
    let path = path.to_owned();
    move |source| TransferError::Io { path, source }
}

/// A new file that only this user can read.
fn create_private(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// As `sha256sum` prints it.
fn hexadecimal(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
