//! The encrypted file: a copy-on-write B-tree (redb) whose commits are atomic and reach the disk before they return.

use std::{fs, path::Path};

use rand::rngs::StdRng;
use redb::{Database, DatabaseError, ReadableDatabase as _, TableDefinition};

use super::{Changes, KdfCost, RecordBytes, StoreError, Table, vault::Header, vault::Vault};

const HEADER: TableDefinition<&str, &[u8]> = TableDefinition::new("header");
const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
const HEADER_NAME: &str = "vault";

/// An open file with its keys.
pub struct FileStore {
    database: Database,
    vault: Vault,
}

impl FileStore {
    pub(super) fn open(path: &Path, passphrase: &str, cost: KdfCost, rng: &mut StdRng) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|e| StoreError::Io(e.to_string()))?;
        }
        let database = Database::create(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse,
            other => io(other),
        })?;
        restrict(path)?;
        let vault = match read_header(&database)? {
            Some(header) => Vault::open(&header, passphrase)?,
            None => {
                let (header, vault) = Vault::create(passphrase, cost, rng)?;
                write_header(&database, &header)?;
                vault
            }
        };
        Ok(Self { database, vault })
    }

    pub(super) fn commit(&self, changes: &Changes, rng: &mut StdRng) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(io)?;
        {
            let mut records = write.open_table(RECORDS).map_err(io)?;
            for ((table, name), change) in changes {
                let row_key = self.vault.row_key(*table, name);
                match change {
                    Some(record) => {
                        let sealed = self.vault.seal(&row_key, name, record, rng)?;
                        records.insert(row_key.as_slice(), sealed.as_slice()).map_err(io)?;
                    }
                    None => {
                        records.remove(row_key.as_slice()).map_err(io)?;
                    }
                }
            }
        }
        write.commit().map_err(io)
    }

    pub(super) fn clear(&self) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(io)?;
        write.delete_table(RECORDS).map_err(io)?;
        write.open_table(RECORDS).map_err(io)?;
        write.commit().map_err(io)
    }

    pub(super) fn get(&self, table: Table, name: &[u8]) -> Result<Option<RecordBytes>, StoreError> {
        let row_key = self.vault.row_key(table, name);
        let read = self.database.begin_read().map_err(io)?;
        let records = read.open_table(RECORDS).map_err(io)?;
        let Some(sealed) = records.get(row_key.as_slice()).map_err(io)? else { return Ok(None) };
        let (_, record) = self.vault.open_row(&row_key, sealed.value()).ok_or(StoreError::Damaged(table))?;
        Ok(Some(record))
    }

    pub(super) fn from(
        &self,
        table: Table,
        first: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, RecordBytes)>, StoreError> {
        let from = [&[table as u8], first].concat();
        let read = self.database.begin_read().map_err(io)?;
        let records = read.open_table(RECORDS).map_err(io)?;
        let mut found = Vec::new();
        for row in records.range(from.as_slice()..).map_err(io)?.take(limit) {
            let (row_key, sealed) = row.map_err(io)?;
            if row_key.value().first() != Some(&(table as u8)) {
                break;
            }
            found.push(self.vault.open_row(row_key.value(), sealed.value()).ok_or(StoreError::Damaged(table))?);
        }
        Ok(found)
    }
}

fn read_header(database: &Database) -> Result<Option<Header>, StoreError> {
    let read = database.begin_read().map_err(io)?;
    let table = match read.open_table(HEADER) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let Some(bytes) = table.get(HEADER_NAME).map_err(io)? else { return Ok(None) };
    serde_json::from_slice(bytes.value()).map(Some).map_err(|_| StoreError::UnknownFormat)
}

/// The records' table is made in the same transaction, so that reading needs not ask whether it exists.
fn write_header(database: &Database, header: &Header) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(header).map_err(|_| StoreError::UnknownFormat)?;
    let write = database.begin_write().map_err(io)?;
    write.open_table(HEADER).map_err(io)?.insert(HEADER_NAME, bytes.as_slice()).map_err(io)?;
    write.open_table(RECORDS).map_err(io)?;
    write.commit().map_err(io)
}

/// Other users of the machine need not even see the ciphertext.
fn restrict(path: &Path) -> Result<(), StoreError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(|e| StoreError::Io(e.to_string()))?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

fn io(error: impl std::fmt::Display) -> StoreError {
    StoreError::Io(error.to_string())
}
