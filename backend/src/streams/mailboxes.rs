//! Reading mailboxes from the store: ranges for sockets that catch up, states for hellos, heads for the comparison. All of it bounded:
//! a hundred thousand devices that come back at once queue here, each for a range of limited size, instead of in the store's pool.

use martlet_protocol::wire;
use martlet_storage::{
    Db, DeviceKey, StorageError,
    mailbox::{self, Item, MailboxState, RangeQuery},
};
use tokio::sync::Semaphore;

use crate::{clock::Clock, subscribers::LiveItem};

/// Items of one range at most; a slow reader's byte budget is usually met before.
const MAX_RANGE_ITEMS: u32 = 1000;
/// Ranges under way per read connection of the store: one that is read, one that waits for it.
const READS_PER_CONNECTION: usize = 2;

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

pub(super) struct Mailboxes {
    db: Db,
    clock: Clock,
    permits: Semaphore,
}

impl Mailboxes {
    pub(super) fn new(db: Db, clock: Clock, read_connections: usize) -> Self {
        Self { db, clock, permits: Semaphore::new(read_connections.max(1) * READS_PER_CONNECTION) }
    }

    pub(super) async fn state(&self, device_key: DeviceKey) -> Result<Option<MailboxState>, StorageError> {
        let _permit = self.permits.acquire().await.map_err(|_| StorageError::Busy)?;
        self.db.read(move |conn| mailbox::state(conn, device_key)).await
    }

    /// State and range of one snapshot; `None` if the device has no mailbox (any more).
    pub(super) async fn range(
        &self,
        device: DeviceKey,
        after_seq: u64,
        max_bytes: usize,
    ) -> Result<Option<MailboxRange>, StorageError> {
        let _permit = self.permits.acquire().await.map_err(|_| StorageError::Busy)?;
        let now_s = self.clock.now_s();
        let query = RangeQuery { device, after_seq, max_items: MAX_RANGE_ITEMS, max_bytes, now_s };
        self.db
            .read(move |conn| {
                let Some(state) = mailbox::state(conn, device)? else { return Ok(None) };
                let range = mailbox::range(conn, &query)?;
                let items = range.items.into_iter().map(to_live).collect();
                Ok(Some(MailboxRange { epoch: state.epoch, head_seq: range.head_seq, items }))
            })
            .await
    }

    pub(super) async fn heads(&self, devices: Vec<DeviceKey>) -> Result<Vec<(DeviceKey, u64)>, StorageError> {
        let _permit = self.permits.acquire().await.map_err(|_| StorageError::Busy)?;
        self.db.read(move |conn| mailbox::heads(conn, &devices)).await
    }
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
