//! Expiry: a log loses what has had its time from its front, row by row; what ends earlier than its neighbours loses its content.

use std::collections::BTreeMap;

use diesel::{BoolExpressionMethods as _, ExpressionMethods as _, QueryDsl as _, RunQueryDsl as _, dsl::min};

use crate::db::{
    Conn, ConversationKey, KEYS_PER_QUERY, StorageError,
    conn::on,
    convert::store_u64,
    locks,
    schema::{former_members, log_entries, log_heads},
};

/// The expiry of a row without content: it waits for its neighbours only.
const WAITS: i64 = i64::MAX;

/// Removes entries past their expiry, at most `limit` of them, and returns how many were found; fewer than `limit`: none is left, or
/// another node is at it.
///
/// # Errors
/// [`StorageError`] if a query fails.
pub fn expire(conn: &mut Conn, now_s: u64, limit: u32) -> Result<usize, StorageError> {
    if !locks::sweeper(conn)? {
        return Ok(0);
    }
    let now_s = store_u64(now_s);
    let found: Vec<(ConversationKey, i64)> = on!(conn, c => log_entries::table
        .filter(log_entries::expires_at_s.le(now_s))
        .order(log_entries::expires_at_s)
        .limit(limit.into())
        .select((log_entries::conversation_key, log_entries::seq))
        .load(c))?;
    let mut logs: BTreeMap<ConversationKey, Vec<i64>> = BTreeMap::new();
    for (conversation, seq) in &found {
        logs.entry(*conversation).or_default().push(*seq);
    }
    for (conversation, mut seqs) in logs {
        let trimmed_seq = trim(conn, conversation, &mut seqs, now_s)?;
        empty(conn, conversation, seqs.iter().filter(|seq| **seq > trimmed_seq).copied().collect())?;
    }
    Ok(found.len())
}

/// Deletes the log's front as far as it is among `expired`, with the emptied rows in between. Returns where the log begins after.
fn trim(conn: &mut Conn, conversation: ConversationKey, expired: &mut [i64], now_s: i64) -> Result<i64, StorageError> {
    let Some(last) = expired.iter().max().copied() else { return Ok(0) };
    let kept: Option<i64> = on!(conn, c => log_entries::table
        .filter(log_entries::conversation_key.eq(conversation))
        .filter(log_entries::seq.le(last))
        .filter(log_entries::content.is_not_null().and(log_entries::expires_at_s.gt(now_s)))
        .select(min(log_entries::seq))
        .first(c))?;
    // Behind the last one that was found there may be more that has expired; the next call finds it.
    let trimmed_seq = kept.map_or(last, |kept| kept - 1);
    let gone = on!(conn, c => diesel::delete(log_entries::table
        .filter(log_entries::conversation_key.eq(conversation))
        .filter(log_entries::seq.le(trimmed_seq)))
        .execute(c))?;
    if gone > 0 {
        // Sends change the head's other columns; nobody else changes this one.
        on!(conn, c => diesel::update(log_heads::table.find(conversation))
            .set(log_heads::trimmed_seq.eq(trimmed_seq))
            .execute(c))?;
        // Nothing is left of their time.
        on!(conn, c => diesel::delete(former_members::table
            .filter(former_members::conversation_key.eq(conversation))
            .filter(former_members::left_seq.le(trimmed_seq)))
            .execute(c))?;
    }
    Ok(trimmed_seq)
}

/// Takes the content of entries in the middle.
fn empty(conn: &mut Conn, conversation: ConversationKey, seqs: Vec<i64>) -> Result<(), StorageError> {
    for seqs in seqs.chunks(KEYS_PER_QUERY) {
        on!(conn, c => diesel::update(log_entries::table
            .filter(log_entries::conversation_key.eq(conversation))
            .filter(log_entries::seq.eq_any(seqs)))
            .set((log_entries::content.eq(None::<Vec<u8>>), log_entries::expires_at_s.eq(WAITS)))
            .execute(c))?;
    }
    Ok(())
}
