//! The handle on the database and the queries that run over it, one module per table family.
//!
//! [`Db`] has one writer connection and some readers. Every call is one transaction: [`Db::write`] begins by taking the store's write
//! lock, [`Db::read`] reads one snapshot. Calls run on tokio's blocking threads, wait a bounded time for their connection and then
//! answer [`StorageError::Busy`]. The writer is handed out in the order of asking, so that the commit thread and the other writes
//! alternate under load.
//!
//! Queries stand nowhere but here. What Diesel's DSL can't say stands in [`sqlite`], one place per backend.

pub mod accounts;
mod config;
mod conn;
pub mod control;
pub mod conversations;
mod convert;
pub mod devices;
mod error;
mod keys;
pub mod links;
pub mod mailbox;
pub mod prekeys;
mod purge;
mod schema;
pub mod sends;
mod sqlite;
pub mod sweep;
pub mod tickets;
pub mod tokens;

use std::{panic, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    sync::{Mutex as FairMutex, OwnedSemaphorePermit, Semaphore},
    task, time,
};

pub use config::{DbConfig, Durability, SchemaState};
pub use conn::Conn;
pub use error::StorageError;
pub use keys::{AccountKey, ContentKey, ConversationKey, DeviceKey};

/// Keys in one `IN` list: enough that the query's cost hardly counts per key, well under what a database takes.
const KEYS_PER_QUERY: usize = 500;

/// The store. Clones share one set of connections.
#[derive(Clone)]
pub struct Db {
    inner: Arc<Inner>,
}

struct Inner {
    /// Tokio's mutex is fair: whoever asked first gets it first, the commit thread included.
    writer: Arc<FairMutex<Conn>>,
    /// Readers that are free; one permit stands for each.
    readers: Mutex<Vec<Conn>>,
    permits: Arc<Semaphore>,
    config: DbConfig,
}

/// A reader on loan: goes back when it is dropped, its permit after it, also if the closure panics.
struct Reader {
    inner: Arc<Inner>,
    conn: Option<Conn>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.inner.readers.lock().push(conn);
        }
    }
}

impl Db {
    /// Opens the store, creating it if it is not there, and migrates it.
    ///
    /// # Errors
    /// [`StorageError::Open`], [`StorageError::Migration`], and [`StorageError::NotDurable`] if the database does not take the
    /// durability that the config asks for.
    pub fn open(config: &DbConfig) -> Result<Self, StorageError> {
        let writer = sqlite::open_writer(config)?;
        let count = config.read_connections.max(1);
        let readers = (0..count).map(|_| sqlite::open_reader(config)).collect::<Result<Vec<_>, _>>()?;
        let inner = Inner {
            writer: Arc::new(FairMutex::new(writer)),
            readers: Mutex::new(readers),
            permits: Arc::new(Semaphore::new(count)),
            config: config.clone(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// How the schema of an existing store stands to this release's migrations; nothing is migrated. For `martlet check`.
    ///
    /// # Errors
    /// [`StorageError::Open`] and [`StorageError::Migration`] if the store can't be read.
    pub fn schema_state(config: &DbConfig) -> Result<SchemaState, StorageError> {
        sqlite::schema_state(config)
    }

    /// Runs the closure over one snapshot of the store, which it can't change.
    ///
    /// # Errors
    /// [`StorageError::Busy`] if no reader is free within `DbConfig::wait`, and the closure's own errors.
    pub async fn read<T, E>(&self, run: impl FnOnce(&mut Conn) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StorageError> + Send + 'static,
    {
        let permit = time::timeout(self.inner.config.wait, self.inner.permits.clone().acquire_owned());
        let Ok(Ok(permit)) = permit.await else { return Err(StorageError::Busy.into()) };
        let inner = self.inner.clone();
        blocking(move || inner.lend(permit)?.run(run)).await
    }

    /// Runs the closure in one write transaction and commits it; any error rolls all of it back.
    ///
    /// # Errors
    /// [`StorageError::Busy`] if the writer is not free within `DbConfig::wait`, and the closure's own errors.
    pub async fn write<T, E>(&self, run: impl FnOnce(&mut Conn) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StorageError> + Send + 'static,
    {
        let writer = time::timeout(self.inner.config.wait, self.inner.writer.clone().lock_owned());
        let Ok(mut writer) = writer.await else { return Err(StorageError::Busy.into()) };
        blocking(move || writer.write(run)).await
    }

    /// As [`Self::write`] for a thread of its own (the commit thread). It waits for its turn however long that takes: the turns before
    /// it are bounded.
    ///
    /// # Errors
    /// [`StorageError::Busy`] if another process keeps the store locked, and the closure's own errors.
    ///
    /// # Panics
    /// If it is called from an async task.
    pub fn write_blocking<T, E>(&self, run: impl FnOnce(&mut Conn) -> Result<T, E>) -> Result<T, E>
    where
        E: From<StorageError>,
    {
        self.inner.writer.blocking_lock().write(run)
    }

    /// Whether the store answers: one trivial read of a row that is always there.
    ///
    /// # Errors
    /// [`StorageError`] if it doesn't.
    pub async fn health(&self) -> Result<(), StorageError> {
        self.read(sqlite::read_store_row).await
    }

    /// Moves what the write-ahead log holds into the store's file, so that a clean stop leaves one file and the next start replays
    /// nothing. Nothing depends on it.
    ///
    /// # Errors
    /// [`StorageError::Busy`] if the writer is not free in time, and what the database says.
    pub async fn checkpoint_on_close(&self) -> Result<(), StorageError> {
        let writer = time::timeout(self.inner.config.wait, self.inner.writer.clone().lock_owned());
        let Ok(mut writer) = writer.await else { return Err(StorageError::Busy) };
        blocking(move || sqlite::checkpoint(&mut writer)).await
    }
}

impl Inner {
    fn lend(self: Arc<Self>, permit: OwnedSemaphorePermit) -> Result<Reader, StorageError> {
        let conn = self.readers.lock().pop();
        let conn = conn.ok_or(StorageError::Inconsistent("fewer readers than permits"))?;
        Ok(Reader { inner: self, conn: Some(conn), _permit: permit })
    }
}

impl Reader {
    fn run<T, E: From<StorageError>>(&mut self, run: impl FnOnce(&mut Conn) -> Result<T, E>) -> Result<T, E> {
        let conn = self.conn.as_mut().ok_or(StorageError::Inconsistent("a reader without its connection"))?;
        conn.read(run)
    }
}

/// Runs on a blocking thread; a panic there goes on here.
async fn blocking<T, E>(run: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StorageError> + Send + 'static,
{
    match task::spawn_blocking(run).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => panic::resume_unwind(error.into_panic()),
        // The runtime is shutting down and never began it.
        Err(_) => Err(StorageError::Busy.into()),
    }
}
