//! What only a large conversation has: a log to read by cursor, and members to read page by page.

use std::collections::HashMap;

use martlet_protocol::{
    id::{AccountId, Blob, ConversationId, MessageId},
    rest::{
        ConversationMember, HistoryFrom, HistoryQuery, LogEntry, LogGap, LogGapReason, LogItem, LogPage, Page,
        PageQuery,
    },
    wire::{self, GapReason, log_item},
};
use martlet_storage::{ConversationKey, StorageError, accounts, conversations, logs};

use super::{ConversationError, Conversations, DEFAULT_PAGE, MAX_PAGE, find, role};
use crate::{accounts::DeviceIdentity, streams::LogRange};

/// A log that an account may follow.
#[derive(Debug, Clone, Copy)]
pub struct LogToFollow {
    /// Its row.
    pub key: ConversationKey,
    /// What lies up to here was there before the account joined.
    pub joined_seq: u64,
}

impl Conversations {
    /// A part of the conversation's log: after a cursor, before one, or the newest, at most `logs.max_page_bytes` of content. The newest part
    /// of a log that is followed on this node comes from memory; any other costs two short reads of an index, wherever in the log it lies. Who
    /// left reads what there was until then.
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
        let access = self.0.db.read(move |conn| logs::access(conn, &conversation_id, account_key)).await?;
        let access = access.ok_or(ConversationError::NotFound)?.ok_or(ConversationError::NoLog)?;
        let (max_items, max_bytes) = (query.max_items(), self.0.config.logs.max_page_bytes);
        let range = self.0.streams.log_page(&access, cursor, max_items, max_bytes).await?;
        page(range.ok_or(ConversationError::NoLog)?)
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
    ) -> Result<Vec<Result<LogToFollow, ConversationError>>, ConversationError> {
        let account_key = identity.account_key;
        let read = self.0.db.read(move |conn| {
            let rows = conversations::by_ids_for_member(conn, &conversation_ids, account_key)?;
            let rows: HashMap<_, _> = rows.into_iter().map(|row| (row.conversation_id, row)).collect();
            let log = |id: &ConversationId| match rows.get(id) {
                None => Err(ConversationError::NotFound),
                Some(row) if row.kind != wire::ConversationKind::Large => Err(ConversationError::NoLog),
                Some(row) => Ok(LogToFollow { key: row.conversation_key, joined_seq: row.joined_seq }),
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

fn page(range: LogRange) -> Result<LogPage, ConversationError> {
    let LogRange { epoch, head_seq, group_epoch, items } = range;
    let items = items.iter().map(|item| shown(&item.item)).collect::<Result<_, _>>()?;
    Ok(LogPage { epoch, head_seq, group_epoch, items })
}

fn shown(item: &log_item::Item) -> Result<LogItem, StorageError> {
    Ok(match item {
        log_item::Item::Entry(entry) => LogItem::Entry(LogEntry {
            seq: entry.seq,
            message_id: MessageId::try_from(entry.message_id.as_ref())
                .map_err(|_| StorageError::Inconsistent("a message's id of another length"))?,
            accepted_at_ms: entry.accepted_at_ms,
            group_epoch: entry.group_epoch,
            suite: entry.suite,
            content: Blob(entry.content.clone()),
        }),
        log_item::Item::Gap(gap) => {
            let reason = match gap.reason() {
                GapReason::Expired => LogGapReason::Expired,
                GapReason::NotAMember => LogGapReason::NotAMember,
                _ => LogGapReason::Unexplained,
            };
            LogItem::Gap(LogGap { from_seq: gap.from_seq, to_seq: gap.to_seq, reason })
        }
    })
}
