//! Connections that are lent out one call at a time, in the order of asking. A pool knows how to open another one, so that a connection
//! that broke is replaced by the call that needs it; it never has more than its size.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

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
    /// Connections that nobody has, with the store's epoch as it was known when they were opened; there may be fewer than permits,
    /// never more.
    free: Mutex<Vec<(u64, Conn)>>,
    /// The newest epoch that is known: older connections lead to a server that was replaced.
    newest_epoch: Arc<AtomicU64>,
    permits: Arc<Semaphore>,
    wait: Duration,
}

/// The right to one connection of a pool, and the connection once it is there. Goes back when dropped.
pub(super) struct Lent {
    pool: Arc<Pool>,
    conn: Option<(u64, Conn)>,
    turn: Arc<Turn>,
}

/// The permit of a connection that is lent. A call that never ends (a server that is frozen, whose machine still answers for it) would keep
/// it for good; so it can be taken from the call. The connection is then closed when the call ends, instead of coming back.
pub(super) struct Turn(Mutex<Option<OwnedSemaphorePermit>>);

impl Turn {
    /// The call is given up: somebody else may open a connection in its place.
    pub(super) fn write_off(&self) {
        self.0.lock().take();
    }
}

impl Pool {
    /// At most `size` connections, of which `opened` are there already. Who waits longer than `wait` is told `Busy`.
    pub(super) fn new(open: Open, begin: Begin, opened: Vec<Conn>, size: usize, wait: Duration) -> Self {
        let permits = Arc::new(Semaphore::new(size.max(1)));
        let free = Mutex::new(opened.into_iter().map(|conn| (0, conn)).collect());
        Self { open, begin, free, newest_epoch: Arc::default(), permits, wait }
    }

    /// Closes connections that were opened before a newer epoch of the store was found.
    pub(super) fn dropping_older(mut self, newest_epoch: Arc<AtomicU64>) -> Arc<Self> {
        let now = newest_epoch.load(Ordering::SeqCst);
        self.free.get_mut().iter_mut().for_each(|(epoch, _)| *epoch = now);
        self.newest_epoch = newest_epoch;
        self.shared()
    }

    pub(super) fn shared(self) -> Arc<Self> {
        Arc::new(self)
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
        let newest_epoch = self.newest_epoch.load(Ordering::SeqCst);
        let mut free = self.free.lock();
        while free.last().is_some_and(|(epoch, _)| *epoch < newest_epoch) {
            free.pop();
        }
        let conn = free.pop();
        drop(free);
        Lent { pool: self.clone(), conn, turn: Arc::new(Turn(Mutex::new(Some(permit)))) }
    }

    /// The epoch is that of before: opening may find a newer one, and then the connection is only replaced once more than it had to be.
    fn open(&self) -> Result<(u64, Conn), StorageError> {
        let epoch = self.newest_epoch.load(Ordering::SeqCst);
        Ok((epoch, (self.open)()?))
    }

    /// Closes the connections that nobody has.
    pub(super) fn close_free(&self) {
        self.free.lock().clear();
    }
}

impl Lent {
    /// To write it off, if the call that it is moved into takes too long.
    pub(super) fn turn(&self) -> Arc<Turn> {
        self.turn.clone()
    }

    /// Runs one transaction. Blocks. A connection that is not fit for another one is closed.
    pub(super) fn run<T, E>(&mut self, run: impl FnOnce(&mut Conn) -> Result<T, E>) -> Result<T, E>
    where
        E: From<StorageError>,
    {
        let (epoch, mut conn) = match self.conn.take() {
            Some(opened) => opened,
            None => self.pool.open()?,
        };
        let (result, fit) = conn.transaction(self.pool.begin, run);
        if fit {
            self.conn = Some((epoch, conn));
        }
        result
    }

    /// The connection itself, outside of any transaction. Blocks.
    pub(super) fn conn(&mut self) -> Result<&mut Conn, StorageError> {
        if self.conn.is_none() {
            self.conn = Some(self.pool.open()?);
        }
        self.conn.as_mut().map(|(_, conn)| conn).ok_or(StorageError::Busy)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let permit = self.turn.0.lock().take();
        if let Some(conn) = self.conn.take()
            && permit.is_some()
        {
            self.pool.free.lock().push(conn);
        }
    }
}
