//! Connections that are lent out one call at a time, in the order of asking. A pool knows how to open another one, so that a connection
//! that broke is replaced by the call that needs it; it never has more than its size.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time,
};

use super::{Conn, StorageError, conn::Begin};

/// Opens a connection. Blocks.
pub(super) type Open = Box<dyn Fn() -> Result<Conn, StorageError> + Send + Sync>;

/// See the module.
pub(super) struct Pool {
    open: Open,
    /// How its transactions begin.
    begin: Begin,
    /// Connections that nobody has; there may be fewer than permits, never more.
    free: Mutex<Vec<Conn>>,
    permits: Arc<Semaphore>,
    wait: Duration,
}

/// The right to one connection of a pool, and the connection once it is there. Goes back when dropped.
pub(super) struct Lent {
    pool: Arc<Pool>,
    conn: Option<Conn>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    /// At most `size` connections, of which `opened` are there already. Who waits longer than `wait` is told `Busy`.
    pub(super) fn new(open: Open, begin: Begin, opened: Vec<Conn>, size: usize, wait: Duration) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(size.max(1)));
        Arc::new(Self { open, begin, free: Mutex::new(opened), permits, wait })
    }

    /// Waits for a turn. The semaphore is fair: whoever asked first gets it first, the commit thread included.
    pub(super) async fn lend(self: &Arc<Self>) -> Result<Lent, StorageError> {
        let permit = time::timeout(self.wait, self.permits.clone().acquire_owned());
        let Ok(Ok(permit)) = permit.await else { return Err(StorageError::Busy) };
        Ok(self.lent(permit))
    }

    /// Waits for a turn however long that takes, for a thread of its own.
    pub(super) fn lend_blocking(self: &Arc<Self>) -> Result<Lent, StorageError> {
        let permit = pollster::block_on(self.permits.clone().acquire_owned());
        Ok(self.lent(permit.map_err(|_| StorageError::Busy)?))
    }

    fn lent(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Lent {
        let conn = self.free.lock().pop();
        Lent { pool: self.clone(), conn, _permit: permit }
    }

    /// Closes the connections that nobody has.
    pub(super) fn close_free(&self) {
        self.free.lock().clear();
    }
}

impl Lent {
    /// Runs one transaction. Blocks. A connection that is not fit for another one is closed.
    pub(super) fn run<T, E>(&mut self, run: impl FnOnce(&mut Conn) -> Result<T, E>) -> Result<T, E>
    where
        E: From<StorageError>,
    {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => (self.pool.open)()?,
        };
        let (result, fit) = conn.transaction(self.pool.begin, run);
        if fit {
            self.conn = Some(conn);
        }
        result
    }

    /// The connection itself, outside of any transaction. Blocks.
    pub(super) fn conn(&mut self) -> Result<&mut Conn, StorageError> {
        if self.conn.is_none() {
            self.conn = Some((self.pool.open)()?);
        }
        self.conn.as_mut().ok_or(StorageError::Busy)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.pool.free.lock().push(conn);
        }
    }
}
