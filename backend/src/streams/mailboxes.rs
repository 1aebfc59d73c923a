//! Reading mailboxes from the store: ranges for sockets that catch up, heads for the comparison. All of it bounded:
//! a hundred thousand devices that come back at once queue here, each for a range of limited size, instead of in the store's pool.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use martlet_protocol::{rest::HistoryFrom, wire};
use martlet_storage::{
    Conn, Db, DeviceKey, StorageError,
    mailbox::{self, BackQuery, Item, Range, RangeQuery},
};
use tokio::sync::Semaphore;

use crate::{clock::Clock, subscribers::LiveItem};

/// Items of one range at most; a slow reader's byte budget is usually met before.
const MAX_RANGE_ITEMS: u32 = 1000;
/// Ranges under way per read connection of the store: one that is read, one that waits for it.
const READS_PER_CONNECTION: usize = 2;

/// How long a replica is left alone that failed or did not answer: devices that come back must not wait for it one after the other.
const REPLICA_REST: Duration = Duration::from_secs(15);

/// A part of a mailbox and where the mailbox stood at that moment.
#[derive(Debug, Clone, PartialEq)]
pub struct MailboxRange {
    /// The numbering that the items belong to.
    pub epoch: u64,
    /// The head when it was read. If the last item ends before it, there is more.
    pub head_seq: u64,
    /// In the order of `seq`, without holes.
    pub items: Vec<LiveItem>,
}

/// Which part of a mailbox.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The last `seq` that the reader has.
    pub after_seq: u64,
    /// The mailbox is known to reach this far at least.
    pub known_head: u64,
    /// About so many bytes.
    pub max_bytes: usize,
}

/// Which page of a mailbox.
#[derive(Debug, Clone, Copy)]
pub struct PageWanted {
    /// From where.
    pub from: HistoryFrom,
    /// At most so many.
    pub max_items: u32,
    /// About so many bytes.
    pub max_bytes: usize,
}

pub(super) struct Mailboxes {
    /// Replicas are asked in turn.
    replica_turn: AtomicUsize,
    /// Until when each is left alone, in milliseconds of the steady clock.
    resting_until_ms: Vec<AtomicU64>,
    db: Db,
    clock: Clock,
    /// For ranges, which may wait for a replica.
    ranges: Semaphore,
    /// For heads, which the primary answers in no time and which bounds depend on.
    looks: Semaphore,
}

impl Mailboxes {
    pub(super) fn new(db: Db, clock: Clock, read_connections: usize) -> Self {
        let permits = read_connections.max(1) * READS_PER_CONNECTION;
        Self {
            replica_turn: AtomicUsize::new(0),
            resting_until_ms: (0..db.replicas()).map(|_| AtomicU64::new(0)).collect(),
            db,
            clock,
            ranges: Semaphore::new(permits),
            looks: Semaphore::new(permits),
        }
    }

    /// State and range of one snapshot; `None` if the device has no mailbox (any more). A replica is asked first, where there is one;
    /// what it says counts only if it has come as far as what is known to exist.
    pub(super) async fn range(&self, device: DeviceKey, wanted: Wanted) -> Result<Option<MailboxRange>, StorageError> {
        let _permit = self.ranges.acquire().await.map_err(|_| StorageError::Busy)?;
        let Wanted { after_seq, known_head, max_bytes } = wanted;
        let now_s = self.clock.earliest_s();
        let query = RangeQuery { device, after_seq, max_items: MAX_RANGE_ITEMS, max_bytes, now_s };
        if let Some(replica) = self.replica() {
            match self.db.read_replica(replica, move |conn| read_range(conn, &query)).await {
                Ok(Some(range)) if range.head_seq >= known_head && range.epoch >= self.db.newest_epoch() => {
                    return Ok(Some(range));
                }
                Ok(_) => {}
                Err(error) => self.rest(replica, &error),
            }
        }
        self.db.read(move |conn| read_range(conn, &query)).await
    }

    /// A page for who asks by REST, from the primary; `None` if the device has no mailbox (any more).
    pub(super) async fn page(&self, device: DeviceKey, page: PageWanted) -> Result<Option<MailboxRange>, StorageError> {
        let _permit = self.ranges.acquire().await.map_err(|_| StorageError::Busy)?;
        let PageWanted { from, max_items, max_bytes } = page;
        let now_s = self.clock.earliest_s();
        self.db
            .read(move |conn| match from {
                HistoryFrom::After(after_seq) => {
                    read_range(conn, &RangeQuery { device, after_seq, max_items, max_bytes, now_s })
                }
                HistoryFrom::Before(before_seq) => {
                    let Some(state) = mailbox::state(conn, device)? else { return Ok(None) };
                    let query = BackQuery { device, before_seq, max_entries: max_items, max_bytes, now_s };
                    let range = mailbox::range_before(conn, &query)?;
                    Ok(Some(mailbox_range(state.epoch, range)))
                }
            })
            .await
    }

    /// Whose turn it is, of those that are not left alone.
    fn replica(&self) -> Option<usize> {
        let now_ms = self.now_ms();
        let rests = |replica: &usize| self.resting_until_ms[*replica].load(Ordering::Relaxed) > now_ms;
        let count = self.resting_until_ms.len();
        let turn = self.replica_turn.fetch_add(1, Ordering::Relaxed);
        (0..count).map(|step| turn.wrapping_add(step) % count).find(|replica| !rests(replica))
    }

    fn rest(&self, replica: usize, error: &StorageError) {
        tracing::warn!(reason = error.reason(), replica, "a replica could not be read; the primary is");
        let until_ms = self.now_ms() + u64::try_from(REPLICA_REST.as_millis()).unwrap_or(u64::MAX);
        self.resting_until_ms[replica].fetch_max(until_ms, Ordering::Relaxed);
    }

    /// How many replicas are left alone now, because they failed lately.
    pub(super) fn resting_replicas(&self) -> usize {
        let now_ms = self.now_ms();
        self.resting_until_ms.iter().filter(|until_ms| until_ms.load(Ordering::Relaxed) > now_ms).count()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) async fn heads(&self, devices: Vec<DeviceKey>) -> Result<Vec<(DeviceKey, u64)>, StorageError> {
        let _permit = self.looks.acquire().await.map_err(|_| StorageError::Busy)?;
        self.db.read(move |conn| mailbox::heads(conn, &devices)).await
    }
}

fn read_range(conn: &mut Conn, query: &RangeQuery) -> Result<Option<MailboxRange>, StorageError> {
    let Some(state) = mailbox::state(conn, query.device)? else { return Ok(None) };
    let range = mailbox::range(conn, query)?;
    Ok(Some(mailbox_range(state.epoch, range)))
}

fn mailbox_range(epoch: u64, range: Range) -> MailboxRange {
    MailboxRange { epoch, head_seq: range.head_seq, items: range.items.into_iter().map(to_live).collect() }
}

fn to_live(item: Item) -> LiveItem {
    match item {
        Item::Entry { seq, entry_id, sealed, content } => LiveItem::Entry(wire::MailboxEntry {
            seq,
            entry_id: entry_id.to_wire(),
            sealed,
            content: content.unwrap_or_default(),
        }),
        Item::Gap(gap) => LiveItem::Gap(gap),
    }
}
