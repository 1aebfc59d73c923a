//! Reading conversation logs from the store for those who follow them here: the newest part when a log begins to be read, what is missing
//! in it, what a reader needs from further back, and heads for the comparison. The first two happen once per log and node, however many
//! read it.

use std::sync::Arc;

use martlet_protocol::{
    id::ConversationId,
    wire::{self, GapReason},
};
use martlet_storage::{
    ConversationKey, Db, StorageError,
    logs::{self, Access, LogBounds, LogCursor, LogItem, LogQuery},
};
use tokio::sync::Semaphore;

use crate::{
    clock::Clock,
    config::Config,
    subscribers::{LiveLogItem, Log, LogChange, PageOfLog, Subscribers},
};

/// Entries of one range at most; the byte budget is usually met before.
const MAX_RANGE_ITEMS: u32 = 1000;
/// What is read when a log begins to be followed: enough for readers that come back after a moment.
const TAIL_ITEMS: u32 = 256;
const TAIL_BYTES: usize = 64 << 10;
/// Ranges under way per read connection of the store: one that is read, one that waits for it.
const READS_PER_CONNECTION: usize = 2;
/// Logs whose heads are compared in one query.
const HEADS_PER_QUERY: usize = 1000;

/// A part of a log and where the log stood at that moment.
#[derive(Debug, Clone)]
pub struct LogRange {
    /// The numbering that the items belong to.
    pub epoch: u64,
    /// The head when it was read. If the last item ends before it, there is more.
    pub head_seq: u64,
    /// The group's own epoch.
    pub group_epoch: u64,
    /// In the order of `seq`, without holes.
    pub items: Vec<Arc<LiveLogItem>>,
}

pub(super) struct StoredLogs {
    db: Db,
    clock: Clock,
    subscribers: Arc<Subscribers>,
    range_bytes: usize,
    ranges: Semaphore,
}

impl StoredLogs {
    pub(super) fn new(db: Db, clock: Clock, subscribers: Arc<Subscribers>, config: &Config) -> Self {
        let permits = config.storage.read_connections.max(1) * READS_PER_CONNECTION;
        let range_bytes = config.socket.outbound_budget_bytes;
        Self { db, clock, subscribers, range_bytes, ranges: Semaphore::new(permits) }
    }

    /// The log, with its newest part in memory. `None` if the conversation has none.
    pub(super) async fn follow(
        &self,
        key: ConversationKey,
        id: ConversationId,
        worker: u16,
    ) -> Result<Option<Arc<Log>>, StorageError> {
        loop {
            let log = self.subscribers.join_log(key, id, worker);
            if let Some(_turn) = log.to_load().await {
                let cursor = LogCursor::Before(u64::MAX);
                let Some(range) = self.read(self.whole(key, cursor, TAIL_ITEMS, TAIL_BYTES)).await? else {
                    return Ok(None);
                };
                if range.epoch == log.epoch {
                    self.subscribers.change_log(&log, LogChange::Loaded(range.items, range.head_seq));
                } else if self.subscribers.epoch() == log.epoch {
                    // The store is another one, and this node has yet to notice.
                    return Err(StorageError::Busy);
                }
            }
            // Meanwhile this worker's last reader may have gone, or the numbering begun anew.
            let now = self.subscribers.join_log(key, id, worker);
            if Arc::ptr_eq(&log, &now) && log.is_loaded() {
                return Ok(Some(log));
            }
        }
    }

    /// What follows `after_seq`; `None` if the conversation has no log.
    pub(super) async fn range(&self, key: ConversationKey, after_seq: u64) -> Result<Option<LogRange>, StorageError> {
        self.read(self.whole(key, LogCursor::After(after_seq), MAX_RANGE_ITEMS, self.range_bytes)).await
    }

    /// A page for somebody with this access: from memory, if the log is read here and has all of it; many open a busy log at once.
    pub(super) async fn page(
        &self,
        access: &Access,
        cursor: LogCursor,
        max_items: u32,
        max_bytes: usize,
    ) -> Result<Option<LogRange>, StorageError> {
        if let Some(range) = self.page_from_memory(access, cursor, max_items, max_bytes) {
            return Ok(Some(range));
        }
        let query = self.whole(access.conversation, cursor, max_items, max_bytes);
        let range = self.read(LogQuery { bounds: access.bounds, ..query }).await?;
        // The group's epoch of today is nothing to somebody who left.
        Ok(range
            .map(|range| if access.has_left() { LogRange { group_epoch: access.group_epoch, ..range } } else { range }))
    }

    /// The access says how far the log reaches at least, so a tail that has yet to hear of that does not serve.
    fn page_from_memory(
        &self,
        access: &Access,
        cursor: LogCursor,
        max_items: u32,
        max_bytes: usize,
    ) -> Option<LogRange> {
        let log = self.subscribers.logs().find(access.conversation)?;
        if access.has_left() || log.epoch != access.epoch {
            return None;
        }
        let wanted = PageOfLog {
            cursor,
            max_items: max_items as usize,
            max_bytes,
            head_seq: access.head_seq,
            after_seq: access.bounds.after_seq,
            now_s: self.clock.earliest_s(),
        };
        let items = log.page(&wanted)?;
        Some(LogRange { epoch: access.epoch, head_seq: access.head_seq, group_epoch: access.group_epoch, items })
    }

    /// For somebody who may see all of the log.
    fn whole(&self, conversation: ConversationKey, cursor: LogCursor, max_items: u32, max_bytes: usize) -> LogQuery {
        let now_s = self.clock.earliest_s();
        LogQuery { conversation, cursor, max_items, max_bytes, now_s, bounds: LogBounds::NONE }
    }

    async fn read(&self, query: LogQuery) -> Result<Option<LogRange>, StorageError> {
        let _permit = self.ranges.acquire().await.map_err(|_| StorageError::Busy)?;
        let range = self.db.read(move |conn| logs::range(conn, &query)).await?;
        Ok(range.map(|range| LogRange {
            epoch: range.state.epoch,
            head_seq: range.state.head_seq,
            group_epoch: range.state.group_epoch,
            items: range.items.into_iter().map(to_live).collect(),
        }))
    }

    /// Reads what is missing in a log. False if it has to be tried again.
    pub(super) async fn repair(&self, log: &Arc<Log>) -> bool {
        while let Some(after_seq) = log.hole() {
            match self.range(log.key, after_seq).await {
                Ok(Some(range)) if range.epoch == log.epoch && range.head_seq > after_seq => {
                    self.subscribers.change_log(log, LogChange::Came(range.items));
                }
                // Of another store, or one that has not come so far: whoever noticed closes the sockets.
                Ok(_) => return true,
                Err(error) => {
                    tracing::warn!(%error, "a part of a log has to wait");
                    return false;
                }
            }
        }
        true
    }

    /// Compares the heads of logs with the store; what is found to be missing is then repaired. False if it has to be tried again.
    pub(super) async fn compare(&self, logs: &[Arc<Log>]) -> bool {
        let mut is_done = true;
        for logs in logs.chunks(HEADS_PER_QUERY) {
            let keys: Vec<_> = logs.iter().map(|log| log.key).collect();
            let heads = match self.db.read(move |conn| logs::heads(conn, &keys)).await {
                Ok(heads) => heads,
                Err(error) => {
                    tracing::warn!(%error, "heads of logs could not be compared; they will be");
                    is_done = false;
                    continue;
                }
            };
            for log in logs {
                if let Ok(at) = heads.binary_search_by_key(&log.key, |(key, _)| *key)
                    && log.is_loaded()
                {
                    self.subscribers.change_log(log, LogChange::HeadSeen(heads[at].1));
                }
            }
        }
        is_done
    }
}

fn to_live(item: LogItem) -> Arc<LiveLogItem> {
    match item {
        LogItem::Entry(entry) => {
            let expires_at_s = entry.expires_at_s;
            LiveLogItem::entry(entry_to_wire(entry), expires_at_s)
        }
        LogItem::Gap(gap) => {
            if gap.reason() == GapReason::Unexplained {
                tracing::error!("a log has a hole that the store does not explain");
            }
            LiveLogItem::gap(gap)
        }
    }
}

fn entry_to_wire(entry: logs::LogEntry) -> wire::LogEntry {
    wire::LogEntry {
        seq: entry.seq,
        message_id: entry.message_id.to_wire(),
        accepted_at_ms: entry.accepted_at_ms,
        group_epoch: entry.group_epoch,
        suite: entry.suite,
        content: entry.content,
    }
}
