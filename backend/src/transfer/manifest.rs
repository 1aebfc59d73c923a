//! What an export's folder holds: `manifest.json`, written twice, at the beginning as unfinished and at the end with the sums.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use martlet_storage::transfer::{TABLES, Table};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{TransferError, at, create_private, hexadecimal};

/// The format that this release writes and reads.
const FORMAT: u32 = 1;
const FILE: &str = "manifest.json";
/// A manifest is some kilobytes.
const MAX_BYTES: u64 = 1 << 20;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of the folder.
    pub format: u32,
    /// Which release exported.
    pub release: String,
    /// When, Unix milliseconds.
    pub exported_at_ms: u64,
    /// The newest migration of the store.
    pub schema: String,
    /// Which store it is, in hexadecimal.
    pub store_id: String,
    /// The store's part of every stream's epoch.
    pub epoch: i64,
    /// MAC of the store's id under its secret, in hexadecimal: tells the secret that belongs to it.
    pub secret_check: String,
    /// Whether the secret itself is in the folder.
    pub has_secret: bool,
    /// In the order in which they are written.
    pub tables: Vec<TableSum>,
    /// The export came to its end.
    pub complete: bool,
}

/// A table as it was exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSum {
    /// Its name; its file is that and `.rows`.
    pub table: String,
    /// How many rows.
    pub rows: u64,
    /// Length of its file.
    pub bytes: u64,
    /// SHA-256 of its file, in hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// For an export that begins.
    pub(super) fn begin(schema: String, store_id: &[u8], epoch: i64, secret_check: &[u8], now_ms: u64) -> Self {
        Self {
            format: FORMAT,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            exported_at_ms: now_ms,
            schema,
            store_id: hexadecimal(store_id),
            epoch,
            secret_check: hexadecimal(secret_check),
            has_secret: false,
            tables: Vec::new(),
            complete: false,
        }
    }

    /// Writes it durably: whole, or not at all.
    ///
    /// # Errors
    /// [`TransferError::Io`].
    pub(super) fn write(&self, folder: &Path) -> Result<String, TransferError> {
        let (path, draft) = (folder.join(FILE), folder.join(format!("{FILE}.draft")));
        let mut text = serde_json::to_string_pretty(self).map_err(io::Error::from).map_err(at(&path))?;
        text.push('\n');
        remove(&draft)?;
        let written = create_private(&draft).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(at(&draft))?;
        fs::rename(&draft, &path).map_err(at(&path))?;
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))?;
        Ok(hexadecimal(&Sha256::digest(text.as_bytes())))
    }

    /// Reads one, finished or not, and its SHA-256; `None` if there is none.
    ///
    /// # Errors
    /// [`TransferError::NoExport`] and [`TransferError::Io`].
    pub(super) fn read(folder: &Path) -> Result<Option<(Self, Vec<u8>)>, TransferError> {
        let path = folder.join(FILE);
        let refused = |reason: String| TransferError::NoExport { path: path.clone(), reason };
        let length = match fs::metadata(&path) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&path)(error)),
        };
        if length > MAX_BYTES {
            return Err(refused("it is too long".to_owned()));
        }
        let text = fs::read(&path).map_err(at(&path))?;
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| refused(error.to_string()))?;
        if manifest.format != FORMAT {
            return Err(refused(format!("its format is {}, this release knows {FORMAT}", manifest.format)));
        }
        Ok(Some((manifest, Sha256::digest(&text).to_vec())))
    }

    /// Reads that of a finished export of exactly this release's tables, and its SHA-256.
    ///
    /// # Errors
    /// [`TransferError::NoExport`], [`TransferError::Unfinished`], [`TransferError::Io`].
    pub(super) fn read_finished(folder: &Path) -> Result<(Self, Vec<u8>), TransferError> {
        let refused = |reason: &str| TransferError::NoExport { path: folder.join(FILE), reason: reason.to_owned() };
        let (manifest, hash) = Self::read(folder)?.ok_or_else(|| refused("it is not there"))?;
        if !manifest.complete {
            return Err(TransferError::Unfinished(folder.to_owned()));
        }
        if !manifest.tables.iter().map(|sum| sum.table.as_str()).eq(TABLES.iter().map(|table| table.name)) {
            return Err(refused("its tables are not this release's"));
        }
        Ok((manifest, hash))
    }

    /// The store's id; no bytes if it is none.
    pub(super) fn store_id(&self) -> Vec<u8> {
        let digits = self.store_id.as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        digits.map(byte).collect::<Option<_>>().unwrap_or_default()
    }

    /// The tables with their sums.
    pub(super) fn sums(&self) -> impl Iterator<Item = (&'static Table, &TableSum)> {
        TABLES.iter().zip(&self.tables)
    }

    /// The manifest's own files.
    pub(super) fn files(folder: &Path) -> [PathBuf; 2] {
        [folder.join(FILE), folder.join(format!("{FILE}.draft"))]
    }
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), TransferError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}
