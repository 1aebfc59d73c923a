//! Reading a part of a log, forwards or backwards. Rows are measured first and read second, so that no more bytes are read than are
//! given: a page of large contents is as bounded as one of small ones.

use bytes::Bytes;
use diesel::{ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, RunQueryDsl as _, sql_types};
use martlet_protocol::wire;

use super::{LogCursor, LogEntry, LogItem, LogQuery, LogRange, LogState};
use crate::db::{
    Conn, StorageError,
    conn::on,
    convert::{read_id, read_u64, store_u64},
    schema::{log_entries, log_heads},
    store,
};

#[diesel::declare_sql_function]
extern "SQL" {
    /// Bytes of a blob, without reading it.
    fn length(content: sql_types::Nullable<sql_types::Binary>) -> sql_types::Nullable<sql_types::Integer>;
}

/// Reads a part of a log. Every `seq` of the part is in exactly one item: what has had its time reads as an `expired` gap, a hole that
/// nothing explains as `unexplained`, what was before the reader's time as `not_a_member`. None if the conversation has no log. Must run over one snapshot, as [`crate::Db::read`] does; what
/// is appended meanwhile changes no part that was read before it.
///
/// # Errors
/// [`StorageError`] if a query fails.
pub fn range(conn: &mut Conn, query: &LogQuery) -> Result<Option<LogRange>, StorageError> {
    let row: Option<(i64, i64, i64)> = on!(conn, c => log_heads::table
        .find(query.conversation)
        .select((log_heads::head_seq, log_heads::trimmed_seq, log_heads::group_epoch))
        .first(c)
        .optional())?;
    let Some((head_seq, trimmed_seq, group_epoch)) = row else { return Ok(None) };
    let (head_seq, trimmed_seq) = (read_u64(head_seq)?.min(query.bounds.upto_seq), read_u64(trimmed_seq)?);
    let state = LogState { epoch: read_u64(store::epoch(conn)?)?, head_seq, group_epoch: read_u64(group_epoch)? };
    let items = match part(conn, query, head_seq)? {
        Some(part) => {
            let joined_seq = query.bounds.after_seq;
            let mut walk = Walk { items: Vec::new(), next_seq: part.from_seq, joined_seq, trimmed_seq };
            for row in rows(conn, query, part)? {
                walk.row(row, query.now_s)?;
            }
            walk.reach(part.to_seq + 1);
            walk.items
        }
        None => Vec::new(),
    };
    Ok(Some(LogRange { items, state }))
}

/// The first and the last `seq` of what is to be read.
#[derive(Clone, Copy)]
struct Part {
    from_seq: u64,
    to_seq: u64,
}

/// How far the limits reach. Up to there every row is wanted, and what is not a row is missing.
fn part(conn: &mut Conn, query: &LogQuery, head_seq: u64) -> Result<Option<Part>, StorageError> {
    let most = query.max_items.max(1);
    let sizes = log_entries::table
        .filter(log_entries::conversation_key.eq(query.conversation))
        .filter(log_entries::seq.gt(store_u64(query.bounds.after_seq)))
        .filter(log_entries::seq.le(store_u64(head_seq)))
        .select((log_entries::seq, length(log_entries::content)))
        .limit(most.into());
    let (whole, sizes): (Part, Vec<(i64, Option<i32>)>) = match query.cursor {
        LogCursor::After(seq) => {
            let sizes = sizes.filter(log_entries::seq.gt(store_u64(seq))).order(log_entries::seq);
            (Part { from_seq: seq.saturating_add(1), to_seq: head_seq }, on!(conn, c => sizes.load(c))?)
        }
        LogCursor::Before(seq) => {
            let sizes = sizes.filter(log_entries::seq.lt(store_u64(seq))).order(log_entries::seq.desc());
            (Part { from_seq: 1, to_seq: seq.saturating_sub(1).min(head_seq) }, on!(conn, c => sizes.load(c))?)
        }
    };
    if whole.from_seq > whole.to_seq {
        return Ok(None);
    }
    let mut bytes = 0;
    let within = |(_, size): &&(i64, Option<i32>)| {
        let before = bytes;
        bytes += size.and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
        before < query.max_bytes.max(1)
    };
    let taken: Vec<i64> = sizes.iter().take_while(within).map(|(seq, _)| *seq).collect();
    let all = taken.len() == sizes.len() && sizes.len() < most as usize;
    Ok(Some(match (taken.last(), query.cursor) {
        (Some(last), LogCursor::After(_)) if !all => Part { to_seq: read_u64(*last)?, ..whole },
        (Some(last), LogCursor::Before(_)) if !all => Part { from_seq: read_u64(*last)?, ..whole },
        _ => whole,
    }))
}

type Columns = (i64, Vec<u8>, i64, i64, i64, i64, Option<Vec<u8>>);

fn rows(conn: &mut Conn, query: &LogQuery, part: Part) -> Result<Vec<Columns>, StorageError> {
    Ok(on!(conn, c => log_entries::table
        .filter(log_entries::conversation_key.eq(query.conversation))
        .filter(log_entries::seq.gt(store_u64(query.bounds.after_seq)))
        .filter(log_entries::seq.between(store_u64(part.from_seq), store_u64(part.to_seq)))
        .order(log_entries::seq)
        .select((
            log_entries::seq,
            log_entries::message_id,
            log_entries::accepted_at_ms,
            log_entries::group_epoch,
            log_entries::suite,
            log_entries::expires_at_s,
            log_entries::content,
        ))
        .load(c))?)
}

/// The items so far, and where the next one must begin.
struct Walk {
    items: Vec<LogItem>,
    next_seq: u64,
    /// What lies up to here is not this reader's.
    joined_seq: u64,
    trimmed_seq: u64,
}

impl Walk {
    fn row(&mut self, columns: Columns, now_s: u64) -> Result<(), StorageError> {
        let (seq, message_id, accepted_at_ms, group_epoch, suite, expires_at_s, content) = columns;
        let seq = read_u64(seq)?;
        self.reach(seq);
        let expires_at_s = read_u64(expires_at_s)?;
        let content = content.filter(|_| expires_at_s > now_s);
        let Some(content) = content else {
            self.gap(seq, seq, wire::GapReason::Expired);
            return Ok(());
        };
        self.items.push(LogItem::Entry(LogEntry {
            seq,
            message_id: read_id(&message_id)?,
            accepted_at_ms: read_u64(accepted_at_ms)?,
            group_epoch: read_u64(group_epoch)?,
            suite: u32::try_from(suite).map_err(|_| StorageError::Inconsistent("a suite of another size"))?,
            expires_at_s,
            content: Bytes::from(content),
        }));
        self.next_seq = seq + 1;
        Ok(())
    }

    /// Explains what lies before `seq`.
    fn reach(&mut self, seq: u64) {
        self.explain(self.joined_seq.min(seq - 1), wire::GapReason::NotAMember);
        self.explain(self.trimmed_seq.min(seq - 1), wire::GapReason::Expired);
        self.explain(seq - 1, wire::GapReason::Unexplained);
    }

    /// What is still to be explained up to here has this reason.
    fn explain(&mut self, to_seq: u64, reason: wire::GapReason) {
        if self.next_seq <= to_seq {
            self.gap(self.next_seq, to_seq, reason);
        }
    }

    /// Adds a gap, or lengthens the last one if it has the same reason.
    fn gap(&mut self, from_seq: u64, to_seq: u64, reason: wire::GapReason) {
        self.next_seq = to_seq + 1;
        if let Some(LogItem::Gap(last)) = self.items.last_mut()
            && last.reason() == reason
        {
            last.to_seq = to_seq;
            last.count = to_seq - last.from_seq + 1;
            return;
        }
        let gap = wire::Gap { from_seq, to_seq, count: to_seq - from_seq + 1, reason: reason.into() };
        self.items.push(LogItem::Gap(gap));
    }
}
