//! The handle on the database and the queries that run over it, one module per table family.
//!
//! Every call of [`Db`] is one transaction on a connection that is lent for it: [`Db::write`] changes the store, [`Db::read`] reads one
//! snapshot. Calls run on tokio's blocking threads, wait a bounded time for their connection and then answer [`StorageError::Busy`].
//! Connections are handed out in the order of asking.
//!
//! **SQLite** has one connection that writes and some that read; a write holds the store's write lock from its beginning, so nothing that
//! it has read can change under it. **PostgreSQL** has pools for reads, writes and commits. Writes there run side by side and see, statement
//! by statement, what others have committed; so each function that reads before it writes either changes what it read by a condition (a
//! head that must not have moved), or takes a lock of [`locks`] first, always in the order: account or device, conversations, log
//! heads by key, mailbox heads by key, acks by key, contents by key, the control stream's head.
//!
//! Queries stand nowhere but here. What Diesel's DSL can't say, and what only one backend needs, stands in [`sqlite`] and [`postgres`].

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
mod locks;
pub mod logs;
pub mod mailbox;
mod pool;
mod postgres;
pub mod prekeys;
mod purge;
mod schema;
pub mod sends;
mod sqlite;
pub mod store;
pub mod sweep;
pub mod tickets;
pub mod tokens;
pub mod transfer;

use std::{
    panic,
    sync::mpsc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{task, time};

pub use config::{DatabaseUrl, DbConfig, Durability, Place, SchemaState, Standbys};
pub use conn::Conn;
pub use error::StorageError;
pub use keys::{AccountKey, ContentKey, ConversationKey, DeviceKey};
use pool::{Lent, Pool};
pub use postgres::{NodeLock, ServerFacts};

/// Keys in one `IN` list: enough that the query's cost hardly counts per key, well under what a database takes.
const KEYS_PER_QUERY: usize = 500;

/// The store. Clones share one set of connections.
#[derive(Clone)]
pub struct Db {
    inner: Arc<Inner>,
}

struct Inner {
    reads: Arc<Pool>,
    /// Replicas of what `reads` reads, in the order of the config.
    replicas: Vec<Arc<Pool>>,
    writes: Arc<Pool>,
    /// For the threads that commit sends. On SQLite the same as `writes`.
    commits: Arc<Pool>,
    config: DbConfig,
    /// The highest epoch of the store that a connection has found when it was opened. SQLite: 0.
    newest_epoch: Arc<AtomicU64>,
}

impl Db {
    /// Opens the store, creating a SQLite file if it is not there, and migrates it.
    ///
    /// # Errors
    /// [`StorageError::Open`], [`StorageError::Migration`], [`StorageError::Newer`], and [`StorageError::NotDurable`] if the database
    /// does not take the durability that the config asks for; [`StorageError::Unfit`] if it is not one that this release runs on.
    pub fn open(config: &DbConfig) -> Result<Self, StorageError> {
        let inner = match &config.place {
            Place::File(path) => sqlite::open(config, path)?,
            Place::Postgres { url, replicas } => postgres::open(config, url, replicas)?,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// How the schema of an existing store stands to this release's migrations; nothing is migrated. For `martlet check`.
    ///
    /// # Errors
    /// [`StorageError::Open`] and [`StorageError::Migration`] if the store can't be read.
    pub fn schema_state(config: &DbConfig) -> Result<SchemaState, StorageError> {
        match &config.place {
            Place::File(path) => sqlite::schema_state(config, path),
            Place::Postgres { url, .. } => postgres::schema_state(config, url),
        }
    }

    /// Runs what migrations are missing, and nothing else. Returns how many ran. Nodes may serve meanwhile: see migrations/README.md.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn migrate(config: &DbConfig) -> Result<usize, StorageError> {
        match &config.place {
            Place::File(path) => sqlite::migrate(config, path),
            Place::Postgres { url, .. } => postgres::migrate(config, url),
        }
    }

    /// Whether several nodes may share the store.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.inner.config.place, Place::Postgres { .. })
    }

    /// The store's epoch as far as this process's connections know it, so that nobody who writes over one of them is unaware that the
    /// database is another than before. 0 where there are no connections that break.
    #[must_use]
    pub fn newest_epoch(&self) -> u64 {
        self.inner.newest_epoch.load(Ordering::SeqCst)
    }

    /// Runs the closure over one snapshot of the store, which it can't change.
    ///
    /// # Errors
    /// [`StorageError::Busy`] if no reader is free within `DbConfig::wait`, [`StorageError::Unavailable`] if the database can't be reached
    /// or does not answer within `DbConfig::timeout`, and the closure's own errors.
    pub async fn read<T, E>(&self, run: impl FnOnce(&mut Conn) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StorageError> + Send + 'static,
    {
        let lent = self.inner.reads.lend().await?;
        self.within_timeout(lent, run).await
    }

    /// As [`Self::read`], over a replica if there is one: what it answers may be of a while ago.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_replica<T, E>(
        &self,
        turn: usize,
        run: impl FnOnce(&mut Conn) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StorageError> + Send + 'static,
    {
        let replicas = &self.inner.replicas;
        let Some(pool) = replicas.get(turn % replicas.len().max(1)) else { return self.read(run).await };
        let lent = pool.lend().await?;
        self.within_timeout(lent, run).await
    }

    /// How many replicas there are to read from.
    #[must_use]
    pub fn replicas(&self) -> usize {
        self.inner.replicas.len()
    }

    /// Runs the closure in one write transaction and commits it; any error rolls all of it back.
    ///
    /// # Errors
    /// As [`Self::read`]. After `Unavailable` the outcome is not known.
    pub async fn write<T, E>(&self, run: impl FnOnce(&mut Conn) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StorageError> + Send + 'static,
    {
        let lent = self.inner.writes.lend().await?;
        self.within_timeout(lent, run).await
    }

    /// As [`Self::write`] for a thread of its own (the commit thread). It waits for its turn however long that takes: the turns before
    /// it are bounded.
    ///
    /// # Errors
    /// [`StorageError::Busy`] if another process keeps the store locked, [`StorageError::Unavailable`] if it can't be reached, and the
    /// closure's own errors.
    ///
    /// # Panics
    /// If it is called from an async task.
    pub fn write_blocking<T, E>(&self, run: impl FnOnce(&mut Conn) -> Result<T, E>) -> Result<T, E>
    where
        E: From<StorageError>,
    {
        self.inner.commits.lend_blocking()?.run(run)
    }

    /// As [`Self::write_blocking`], and bounded as [`Self::write`]: over a network, a server that froze while its machine lives would keep the
    /// thread for ever.
    ///
    /// # Errors
    /// As [`Self::write_blocking`]. After `Unavailable` the outcome is not known.
    ///
    /// # Panics
    /// If it is called from an async task.
    pub fn write_in_time<T, E>(&self, run: impl FnOnce(&mut Conn) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StorageError> + Send + 'static,
    {
        if !self.is_shared() {
            return self.write_blocking(run);
        }
        let mut lent = self.inner.commits.lend_blocking()?;
        let (turn, timeout) = (lent.turn(), self.inner.config.timeout);
        let (tell, told) = mpsc::sync_channel(1);
        let call = thread::Builder::new().name("commit-call".to_owned()).spawn(move || {
            let result = lent.run(run);
            drop(lent);
            // Nobody waits any more if it took too long.
            let _ = tell.send(result);
        });
        let call = call.map_err(|_| StorageError::Busy)?;
        match told.recv_timeout(timeout) {
            Ok(result) => result,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                turn.write_off();
                Err(no_answer(timeout).into())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => match call.join() {
                Ok(()) => Err(StorageError::Busy.into()),
                Err(panic) => panic::resume_unwind(panic),
            },
        }
    }

    /// Whether the store answers: one trivial read of a row that is always there.
    ///
    /// # Errors
    /// [`StorageError`] if it doesn't.
    pub async fn health(&self) -> Result<(), StorageError> {
        self.read(sweep::read_store_row).await
    }

    /// What the database server says of itself; `None` for SQLite. For health.
    ///
    /// # Errors
    /// [`StorageError`] if it does not answer.
    pub async fn server_facts(&self) -> Result<Option<ServerFacts>, StorageError> {
        self.read(postgres::server_facts).await
    }

    /// Claims a node's id in the store, for as long as the lock is held; `None` if another process has it. SQLite's file is locked to one
    /// process by other means, so there it always succeeds.
    ///
    /// # Errors
    /// [`StorageError`] if the store does not answer.
    pub async fn claim_node_id(&self, node_id: &str) -> Result<Option<NodeLock>, StorageError> {
        let Place::Postgres { url, .. } = &self.inner.config.place else { return Ok(Some(NodeLock::none())) };
        let (config, url, node_id) = (self.inner.config.clone(), url.clone(), node_id.to_owned());
        let claimed = blocking(move || postgres::claim_node_id(&config, &url, &node_id));
        time::timeout(self.inner.config.timeout, claimed).await.map_err(|_| no_answer(self.inner.config.timeout))?
    }

    /// Moves what SQLite's write-ahead log holds into the store's file, so that a clean stop leaves one file and the next start replays
    /// nothing, and closes the connections that nobody has. Nothing depends on it.
    ///
    /// # Errors
    /// [`StorageError::Busy`] if the writer is not free in time, and what the database says.
    pub async fn checkpoint_on_close(&self) -> Result<(), StorageError> {
        let inner = &self.inner;
        let closed = if self.is_shared() {
            Ok(())
        } else {
            let mut lent = inner.writes.lend().await?;
            blocking(move || sqlite::checkpoint(lent.conn()?)).await
        };
        [&inner.reads, &inner.writes, &inner.commits]
            .into_iter()
            .chain(&inner.replicas)
            .for_each(|pool| pool.close_free());
        closed
    }

    /// A call that takes too long is left alone and its connection written off: its thread goes on until the network gives up.
    async fn within_timeout<T, E>(
        &self,
        mut lent: Lent,
        run: impl FnOnce(&mut Conn) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StorageError> + Send + 'static,
    {
        let turn = lent.turn();
        let call = blocking(move || lent.run(run));
        if !self.is_shared() {
            return call.await;
        }
        let timeout = self.inner.config.timeout;
        time::timeout(timeout, call).await.unwrap_or_else(|_| {
            turn.write_off();
            Err(no_answer(timeout).into())
        })
    }
}

fn no_answer(timeout: Duration) -> StorageError {
    StorageError::Unavailable(format!("no answer within {} s", timeout.as_secs_f32()))
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
