//! What the batch must know before it hands out anything, locked in one order. The store's write lock, which the transaction holds
//! from its beginning, is SQLite's only lock. PostgreSQL locks rows: conversations against a change of membership, heads for handing out
//! `seq`, both in the order of their keys (unordered, two nodes' batches would wait for each other).

use std::collections::HashMap;

use diesel::{
    ExpressionMethods as _, JoinOnDsl as _, OptionalExtension as _, QueryDsl as _, Queryable, QueryableByName,
    RunQueryDsl as _, sql_types::BigInt, sqlite::SqliteConnection,
};

use super::{Answered, Answers, PreparedSend, StoredAnswer, place::Head};
use crate::db::{
    Conn, ConversationKey, DeviceKey, KEYS_PER_QUERY, StorageError,
    conn::on,
    convert::read_u64,
    postgres::rows::{Batch, Binds, Column},
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
    let mut keys: Vec<DeviceKey> = sends.iter().flat_map(|send| &send.entries).map(|entry| entry.device).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut found = HashMap::with_capacity(keys.len());
    let rows = match conn {
        Conn::Sqlite(c) => read_heads(c, &keys)?,
        Conn::Postgres(c) => lock_heads(&keys).load(c)?,
    };
    for row in rows {
        let head = Head {
            list_n: read_u64(row.list_n)?,
            head_seq: row.head_seq,
            added_bytes: row.added_bytes,
            added_entries: row.added_entries,
            removed_bytes: row.removed_bytes,
            removed_entries: row.removed_entries,
            is_moved: false,
        };
        found.insert(row.device_key, head);
    }
    Ok(found)
}

#[derive(Queryable, QueryableByName)]
struct HeadRow {
    #[diesel(sql_type = BigInt)]
    device_key: DeviceKey,
    #[diesel(sql_type = BigInt)]
    list_n: i64,
    #[diesel(sql_type = BigInt)]
    head_seq: i64,
    #[diesel(sql_type = BigInt)]
    added_bytes: i64,
    #[diesel(sql_type = BigInt)]
    added_entries: i64,
    #[diesel(sql_type = BigInt)]
    removed_bytes: i64,
    #[diesel(sql_type = BigInt)]
    removed_entries: i64,
}

fn read_heads(conn: &mut SqliteConnection, keys: &[DeviceKey]) -> Result<Vec<HeadRow>, StorageError> {
    let mut rows = Vec::with_capacity(keys.len());
    for keys in keys.chunks(KEYS_PER_QUERY) {
        let read = mailbox_heads::table
            .inner_join(mailbox_acks::table.on(mailbox_acks::device_key.eq(mailbox_heads::device_key)))
            .filter(mailbox_heads::device_key.eq_any(keys))
            .select((
                mailbox_heads::device_key,
                mailbox_heads::list_n,
                mailbox_heads::head_seq,
                mailbox_heads::added_bytes,
                mailbox_heads::added_entries,
                mailbox_acks::removed_bytes,
                mailbox_acks::removed_entries,
            ))
            .load::<HeadRow>(conn)?;
        rows.extend(read);
    }
    Ok(rows)
}

/// PostgreSQL's statement: locks the heads in the order of their keys, as every transaction does, and reads each as it is once it is
/// locked. What was removed may be a moment old: acks don't wait for sends, and only make room.
fn lock_heads(keys: &[DeviceKey]) -> Batch<LockHeads, impl Binds> {
    Batch::new(
        "SELECT head.device_key, head.list_n, head.head_seq, head.added_bytes, head.added_entries, \
         ack.removed_bytes, ack.removed_entries \
         FROM mailbox_heads AS head JOIN mailbox_acks AS ack ON ack.device_key = head.device_key \
         WHERE head.device_key = ANY($1) ORDER BY head.device_key FOR UPDATE OF head",
        (keys.iter().copied().collect::<Column<BigInt, _>>(),),
    )
}

struct LockHeads;
