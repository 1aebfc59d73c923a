//! Where a device keeps its keys, chains, sessions and messages: named records, changed in atomic batches.
//!
//! In memory for tests and load generators, or in one file whose records are encrypted under a passphrase ([`vault`]). The store knows
//! nothing of what the records mean. It does not wipe old disk blocks: a deleted key is gone from every later reading of the file, but
//! whoever holds the passphrase *and* an older copy of the disk has it still.

mod file;
mod vault;

use std::{collections::BTreeMap, path::Path};

use rand::rngs::StdRng;
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use file::FileStore;
pub use vault::KdfCost;

/// The kinds of records. The number is part of the file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// The device itself: ids, keys, token, cursors. One record.
    Device = 1,
    /// Private halves of prekeys.
    Prekey = 2,
    /// Accounts: their pinned list chains.
    Account = 3,
    /// Conversations: membership chains and counters.
    Conversation = 4,
    /// Prekeys of other devices.
    Bundle = 5,
    /// What is not yet accepted by the node; named by a local number.
    Outbox = 6,
    /// Messages, sent and received; named by a local number.
    Message = 7,
    /// Ids and content hashes that were stored before.
    Seen = 8,
    /// Own messages, to answer resend requests.
    Sent = 9,
    /// Resend requests that were made or answered, to limit their rate.
    Resend = 10,
    /// The last message number per conversation and sending device.
    Counter = 11,
    /// Receipts that are not in a message yet.
    Receipt = 12,
}

impl Table {
    /// Tables that are named by a growing number keep it in the clear, so that ranges can be read; all other names are hidden.
    const fn is_numbered(self) -> bool {
        matches!(self, Self::Outbox | Self::Message)
    }
}

/// What went wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The passphrase does not open the file.
    #[error("the passphrase does not open this store")]
    WrongPassphrase,
    /// Another process has the file open.
    #[error("another martlet-chat uses this folder; stop it first")]
    InUse,
    /// A record that doesn't decrypt: altered, or moved to another name.
    #[error("a record of the store is damaged ({0:?}); restore the file from a copy")]
    Damaged(Table),
    /// A record that this version can't read.
    #[error("a record of the store can't be read by this version ({0:?})")]
    Unreadable(Table),
    /// The file's own header is unreadable.
    #[error("this is not a store of martlet-chat, or one of a newer version")]
    UnknownFormat,
    /// The disk or the file system.
    #[error("the store's file can't be used: {0}")]
    Io(String),
}

/// A record as it is written, wiped when it is dropped.
type RecordBytes = Zeroizing<Vec<u8>>;
/// Records by name; none: to be removed.
type Changes = BTreeMap<(Table, Vec<u8>), Option<RecordBytes>>;

/// Changes that become durable together.
#[derive(Default)]
pub struct Batch {
    changes: Changes,
}

impl Batch {
    /// Writes a record.
    ///
    /// # Panics
    /// If the record has a map whose keys are no texts, which is a bug of its type.
    pub fn put<T: Serialize>(&mut self, table: Table, name: &[u8], record: &T) {
        let bytes = serde_json::to_vec(record).expect("records have text keys");
        self.changes.insert((table, name.to_vec()), Some(Zeroizing::new(bytes)));
    }

    /// Removes a record, if it is there.
    pub fn delete(&mut self, table: Table, name: &[u8]) {
        self.changes.insert((table, name.to_vec()), None);
    }

    /// Nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// A device's records.
pub enum Store {
    /// Lost with the process.
    Memory(BTreeMap<(Table, Vec<u8>), RecordBytes>),
    /// One encrypted file.
    File(Box<FileStore>),
}

impl Store {
    /// An empty store without a file.
    #[must_use]
    pub fn memory() -> Self {
        Self::Memory(BTreeMap::new())
    }

    /// Opens or makes the encrypted file.
    ///
    /// # Errors
    /// [`StoreError`], above all `WrongPassphrase` and `InUse`.
    pub fn file(path: &Path, passphrase: &str, cost: KdfCost, rng: &mut StdRng) -> Result<Self, StoreError> {
        FileStore::open(path, passphrase, cost, rng).map(|store| Self::File(Box::new(store)))
    }

    /// Makes the batch durable, whole or not at all.
    ///
    /// # Errors
    /// [`StoreError::Io`]: nothing of the batch is stored.
    pub fn commit(&mut self, batch: Batch, rng: &mut StdRng) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        match self {
            Self::Memory(records) => {
                for (name, change) in batch.changes {
                    match change {
                        Some(bytes) => records.insert(name, bytes),
                        None => records.remove(&name),
                    };
                }
                Ok(())
            }
            Self::File(file) => file.commit(&batch.changes, rng),
        }
    }

    /// Forgets everything, durably: for a device that the server refused to take.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn clear(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Memory(records) => {
                records.clear();
                Ok(())
            }
            Self::File(file) => file.clear(),
        }
    }

    /// One record.
    ///
    /// # Errors
    /// [`StoreError`] if it is there and can't be read.
    pub fn get<T: DeserializeOwned>(&self, table: Table, name: &[u8]) -> Result<Option<T>, StoreError> {
        let bytes = match self {
            Self::Memory(records) => records.get(&(table, name.to_vec())).cloned(),
            Self::File(file) => file.get(table, name)?,
        };
        bytes.map(|bytes| parse(table, &bytes)).transpose()
    }

    /// All records of a table with their names; those of numbered tables in order.
    ///
    /// # Errors
    /// [`StoreError`] if one can't be read.
    pub fn all<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<(Vec<u8>, T)>, StoreError> {
        self.from(table, &[], usize::MAX)
    }

    /// Records of a numbered table after `number`, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`] if one can't be read.
    pub fn after<T: DeserializeOwned>(
        &self,
        table: Table,
        number: u64,
        limit: usize,
    ) -> Result<Vec<(u64, T)>, StoreError> {
        debug_assert!(table.is_numbered(), "only numbered tables have an order");
        let Some(first) = number.checked_add(1) else { return Ok(Vec::new()) };
        let records = self.from(table, &first.to_be_bytes(), limit)?;
        records
            .into_iter()
            .map(|(name, record)| {
                let name = name.as_slice().try_into().map_err(|_| StoreError::Unreadable(table))?;
                Ok((u64::from_be_bytes(name), record))
            })
            .collect()
    }

    fn from<T: DeserializeOwned>(
        &self,
        table: Table,
        first: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, T)>, StoreError> {
        let records = match self {
            Self::Memory(records) => records
                .range((table, first.to_vec())..)
                .take_while(|((of, _), _)| *of == table)
                .take(limit)
                .map(|((_, name), bytes)| (name.clone(), bytes.clone()))
                .collect(),
            Self::File(file) => file.from(table, first, limit)?,
        };
        records.into_iter().map(|(name, bytes)| Ok((name, parse(table, &bytes)?))).collect()
    }
}

fn parse<T: DeserializeOwned>(table: Table, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|_| StoreError::Unreadable(table))
}
