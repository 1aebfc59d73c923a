//! What only a large conversation has: a log to read by cursor, and members to read page by page.

use std::collections::HashMap;

use martlet_protocol::{
    id::{AccountId, Blob, ConversationId},
    rest::{
        ConversationMember, HistoryFrom, HistoryQuery, LogEntry, LogGap, LogGapReason, LogItem, LogPage, Page,
        PageQuery,
    },
    wire::{self, GapReason},
};
use martlet_storage::{ConversationKey, StorageError, accounts, conversations, logs};

use super::{ConversationError, Conversations, DEFAULT_PAGE, MAX_PAGE, find, role};
use crate::accounts::DeviceIdentity;

impl Conversations {
    /// A part of the conversation's log: after a cursor, before one, or the newest. Costs two short reads of an index, wherever in the log
    /// it lies, and at most `logs.max_page_bytes` of content.
    ///
    /// # Errors
    /// [`ConversationError::NotFound`], also for somebody else's; [`ConversationError::NoLog`] of another kind than large,
    /// [`ConversationError::TwoCursors`].
    pub async fn log_page(
        &self,
        identity: &DeviceIdentity,
        conversation_id: ConversationId,
        query: HistoryQuery,
    ) -> Result<LogPage, ConversationError> {
        let cursor = match query.from()? {
            HistoryFrom::After(seq) => logs::LogCursor::After(seq),
            HistoryFrom::Before(seq) => logs::LogCursor::Before(seq),
        };
        let account_key = identity.account_key;
        let (max_bytes, now_s) = (self.0.config.logs.max_page_bytes, self.0.clock.earliest_s());
        let max_items = query.max_items();
        let range = self.0.db.read(move |conn| {
            let row = find(conn, &conversation_id, account_key)?;
            let query = logs::LogQuery { conversation: row.conversation_key, cursor, max_items, max_bytes, now_s };
            logs::range(conn, &query)?.ok_or(ConversationError::NoLog)
        });
        Ok(page(range.await?))
    }

    /// The logs of these conversations, one outcome for each.
    ///
    /// # Errors
    /// [`ConversationError::Storage`]; of a single one [`ConversationError::NotFound`], also for somebody else's, and
    /// [`ConversationError::NoLog`] of another kind than large.
    pub async fn logs_of(
        &self,
        identity: &DeviceIdentity,
        conversation_ids: Vec<ConversationId>,
    ) -> Result<Vec<Result<ConversationKey, ConversationError>>, ConversationError> {
        let account_key = identity.account_key;
        let read = self.0.db.read(move |conn| {
            let rows = conversations::by_ids_for_member(conn, &conversation_ids, account_key)?;
            let rows: HashMap<_, _> = rows.into_iter().map(|row| (row.conversation_id, row)).collect();
            let log = |id: &ConversationId| match rows.get(id) {
                None => Err(ConversationError::NotFound),
                Some(row) if row.kind != wire::ConversationKind::Large => Err(ConversationError::NoLog),
                Some(row) => Ok(row.conversation_key),
            };
            Ok(conversation_ids.iter().map(log).collect())
        });
        read.await
    }

    /// A page of the members, in the order of joining the node.
    ///
    /// # Errors
    /// [`ConversationError::NotFound`], also for somebody else's; [`ConversationError::CursorUnknown`].
    pub async fn members_page(
        &self,
        identity: &DeviceIdentity,
        conversation_id: ConversationId,
        query: &PageQuery,
    ) -> Result<Page<ConversationMember>, ConversationError> {
        let limit = query.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
        let cursor = query.cursor.as_deref().map(str::parse::<AccountId>).transpose();
        let cursor = cursor.map_err(|_| ConversationError::CursorUnknown)?;
        let account_key = identity.account_key;
        let read = self.0.db.read(move |conn| {
            let row = find(conn, &conversation_id, account_key)?;
            // The cursor is the last member shown, who may have left since.
            let after = match cursor {
                Some(id) => Some(accounts::by_id(conn, &id)?.ok_or(ConversationError::CursorUnknown)?.account_key),
                None => None,
            };
            let mut rows = conversations::members_after(conn, row.conversation_key, after, limit + 1)?;
            let more = rows.len() > limit as usize;
            rows.truncate(limit as usize);
            let items =
                rows.iter().map(|row| Ok(ConversationMember { account_id: row.account_id, role: role(row.role)? }));
            let items = items.collect::<Result<Vec<_>, StorageError>>()?;
            let next_cursor = items.last().filter(|_| more).map(|last| last.account_id.to_text());
            Ok(Page { items, next_cursor })
        });
        read.await
    }
}

fn page(range: logs::LogRange) -> LogPage {
    let logs::LogRange { items, state } = range;
    LogPage {
        epoch: state.epoch,
        head_seq: state.head_seq,
        group_epoch: state.group_epoch,
        items: items.into_iter().map(item).collect(),
    }
}

fn item(item: logs::LogItem) -> LogItem {
    match item {
        logs::LogItem::Entry(entry) => LogItem::Entry(LogEntry {
            seq: entry.seq,
            message_id: entry.message_id,
            accepted_at_ms: entry.accepted_at_ms,
            group_epoch: entry.group_epoch,
            suite: entry.suite,
            content: Blob(entry.content),
        }),
        logs::LogItem::Gap(gap) => {
            let expired = gap.reason() == GapReason::Expired;
            if !expired {
                tracing::error!("a log has a hole that the store does not explain");
            }
            let reason = if expired { LogGapReason::Expired } else { LogGapReason::Unexplained };
            LogItem::Gap(LogGap { from_seq: gap.from_seq, to_seq: gap.to_seq, reason })
        }
    }
}
