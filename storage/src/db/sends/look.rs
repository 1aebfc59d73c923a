//! What the batch must know before it hands out anything, locked in one order. The store's write lock, which the transaction holds
//! from its beginning, is SQLite's only lock. PostgreSQL locks rows: conversations against a change of membership, heads for handing out
//! `seq`, both in the order of their keys (unordered, two nodes' batches would wait for each other).

use std::collections::HashMap;

use diesel::{ExpressionMethods as _, JoinOnDsl as _, OptionalExtension as _, QueryDsl as _, RunQueryDsl as _};

use super::{Answered, Answers, PreparedSend, StoredAnswer, place::Head};
use crate::db::{
    Conn, ConversationKey, DeviceKey, KEYS_PER_QUERY, StorageError,
    conn::on,
    convert::read_u64,
    locks,
    schema::{conversations, mailbox_acks, mailbox_heads, send_answers},
};

/// The answers that sends of this batch have got before.
pub(super) fn answers(conn: &mut Conn, sends: &[PreparedSend]) -> Result<Answers, StorageError> {
    type Columns = (Vec<u8>, Vec<u8>, Vec<u8>);
    let mut found = HashMap::with_capacity(sends.len());
    for sends in sends.chunks(KEYS_PER_QUERY) {
        let keys = sends.iter().map(|send| send.request_key.as_slice());
        let rows: Vec<Columns> = on!(conn, c => send_answers::table
            .filter(send_answers::request_key.eq_any(keys))
            .select((send_answers::request_key, send_answers::request_mac, send_answers::answer))
            .load(c))?;
        for (request_key, request_mac, answer) in rows {
            let key =
                request_key.try_into().map_err(|_| StorageError::Inconsistent("an answer's key of another length"))?;
            found.insert(key, Answered { request_mac, answer });
        }
    }
    Ok(found)
}

/// The first answer to one request.
pub(super) fn answer(conn: &mut Conn, request_key: &[u8; 32]) -> Result<Option<StoredAnswer>, StorageError> {
    let row: Option<(Vec<u8>, Vec<u8>)> = on!(conn, c => send_answers::table
        .filter(send_answers::request_key.eq(request_key.as_slice()))
        .select((send_answers::request_mac, send_answers::answer))
        .first(c)
        .optional())?;
    Ok(row.map(|(request_mac, answer)| StoredAnswer { request_mac, answer }))
}

/// The newest membership link of each conversation.
pub(super) fn conversations(
    conn: &mut Conn,
    sends: &[PreparedSend],
) -> Result<HashMap<ConversationKey, u64>, StorageError> {
    let mut keys: Vec<ConversationKey> = sends.iter().map(|send| send.conversation_key).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut found = HashMap::with_capacity(keys.len());
    for keys in keys.chunks(KEYS_PER_QUERY) {
        let query = conversations::table
            .filter(conversations::conversation_key.eq_any(keys))
            .order(conversations::conversation_key)
            .select((conversations::conversation_key, conversations::m));
        let rows: Vec<(ConversationKey, i64)> = match conn {
            Conn::Sqlite(c) => query.load(c)?,
            Conn::Postgres(c) => query.for_share().load(c)?,
        };
        for (key, m) in rows {
            found.insert(key, read_u64(m)?);
        }
    }
    Ok(found)
}

/// The heads of every mailbox that the batch names and that exists.
pub(super) fn heads(conn: &mut Conn, sends: &[PreparedSend]) -> Result<HashMap<DeviceKey, Head>, StorageError> {
    type Columns = (DeviceKey, i64, i64, i64, i64, i64, i64);
    let mut keys: Vec<DeviceKey> = sends.iter().flat_map(|send| &send.entries).map(|entry| entry.device).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut found = HashMap::with_capacity(keys.len());
    locks::heads(conn, &keys)?;
    for keys in keys.chunks(KEYS_PER_QUERY) {
        let rows: Vec<Columns> = on!(conn, c => mailbox_heads::table
            .inner_join(mailbox_acks::table.on(mailbox_acks::device_key.eq(mailbox_heads::device_key)))
            .filter(mailbox_heads::device_key.eq_any(keys))
            .order(mailbox_heads::device_key)
            .select((
                mailbox_heads::device_key,
                mailbox_heads::list_n,
                mailbox_heads::head_seq,
                mailbox_heads::added_bytes,
                mailbox_heads::added_entries,
                mailbox_acks::removed_bytes,
                mailbox_acks::removed_entries,
            ))
            .load(c))?;
        for (key, list_n, head_seq, added_bytes, added_entries, removed_bytes, removed_entries) in rows {
            let head = Head {
                list_n: read_u64(list_n)?,
                head_seq,
                added_bytes,
                added_entries,
                removed_bytes,
                removed_entries,
                is_moved: false,
            };
            found.insert(key, head);
        }
    }
    Ok(found)
}
