//! The part of the commit that appends to conversation logs: heads are locked, `seq` handed out in memory, rows written. One row per send,
//! however many members the conversation has.

use std::collections::HashMap;

use diesel::{
    ExpressionMethods as _, QueryDsl as _, QueryResult, RunQueryDsl as _,
    sql_types::{BigInt, Binary, Nullable},
};

use super::{PreparedLog, PreparedSend, SendOutcome};
use crate::db::{
    Conn, ConversationKey, KEYS_PER_QUERY, StorageError,
    conn::on,
    convert::{read_u64, store_u64},
    error::expect_rows,
    locks,
    postgres::rows::{Batch, Column},
    schema::log_heads,
    sqlite::rows::{self, BatchRow, Values},
};

/// A log's head while the batch is placed.
struct Head {
    head_seq: i64,
    group_epoch: i64,
    is_moved: bool,
}

/// The logs that the batch appends to, and what it appends.
pub(super) struct Logs {
    heads: HashMap<ConversationKey, Head>,
    rows: Vec<Row>,
}

/// What a send appends.
struct Row {
    conversation: ConversationKey,
    seq: i64,
    group_epoch: i64,
    send: usize,
}

impl Logs {
    /// Locks the heads of the logs that the batch names and that exist, by key.
    pub(super) fn look(conn: &mut Conn, sends: &[PreparedSend]) -> Result<Self, StorageError> {
        let named = sends.iter().filter(|send| send.log.is_some()).map(|send| send.conversation_key);
        let mut keys: Vec<ConversationKey> = named.collect();
        keys.sort_unstable();
        keys.dedup();
        let mut heads = HashMap::with_capacity(keys.len());
        for keys in keys.chunks(KEYS_PER_QUERY) {
            locks::log_heads(conn, keys)?;
            let found: Vec<(ConversationKey, i64, i64)> = on!(conn, c => log_heads::table
                .filter(log_heads::conversation_key.eq_any(keys))
                .select((log_heads::conversation_key, log_heads::head_seq, log_heads::group_epoch))
                .load(c))?;
            heads.extend(found.into_iter().map(|(key, head_seq, group_epoch)| {
                let head = Head { head_seq, group_epoch, is_moved: false };
                (key, head)
            }));
        }
        Ok(Self { heads, rows: Vec::new() })
    }

    /// Hands out the next `seq`, unless the sender named another epoch than the group's or there is no such log.
    pub(super) fn place(
        &mut self,
        index: usize,
        send: &PreparedSend,
        log: &PreparedLog,
    ) -> Result<SendOutcome, StorageError> {
        let Some(head) = self.heads.get_mut(&send.conversation_key) else { return Ok(SendOutcome::Mismatch) };
        let current = read_u64(head.group_epoch)?;
        if let Some(named) = log.group_epoch
            && named.current != current
        {
            return Ok(SendOutcome::EpochConflict { current });
        }
        head.is_moved = true;
        head.head_seq += 1;
        self.rows.push(Row {
            conversation: send.conversation_key,
            seq: head.head_seq,
            group_epoch: head.group_epoch,
            send: index,
        });
        head.group_epoch += i64::from(log.group_epoch.is_some_and(|named| named.advances));
        Ok(SendOutcome::Appended { seq: read_u64(head.head_seq)?, group_epoch: current })
    }

    /// Writes what was placed.
    pub(super) fn write(self, conn: &mut Conn, sends: &[PreparedSend]) -> Result<(), StorageError> {
        let mut moved: Vec<_> = self.heads.into_iter().filter(|(_, head)| head.is_moved).collect();
        if moved.is_empty() {
            return Ok(());
        }
        moved.sort_unstable_by_key(|(key, _)| *key);
        let changed = match conn {
            Conn::Sqlite(c) => rows::execute(c, &moved)?,
            Conn::Postgres(c) => update_heads(&moved).execute(c)?,
        };
        expect_rows(changed, moved.len(), "a log's head went while it was held")?;
        let mut entries: Vec<_> = self.rows.iter().filter_map(|row| row.entry(sends)).collect();
        entries.sort_unstable_by_key(|entry| (entry.conversation_key, entry.seq));
        let inserted = match conn {
            Conn::Sqlite(c) => rows::execute(c, &entries)?,
            Conn::Postgres(c) => add_entries(&entries).execute(c)?,
        };
        expect_rows(inserted, self.rows.len(), "an entry of a log was not inserted")
    }
}

impl Row {
    fn entry<'a>(&self, sends: &'a [PreparedSend]) -> Option<NewEntry<'a>> {
        let send = &sends[self.send];
        let log = send.log.as_ref()?;
        Some(NewEntry {
            conversation_key: self.conversation,
            seq: self.seq,
            message_id: log.message_id.as_bytes(),
            accepted_at_ms: store_u64(log.accepted_at_ms),
            group_epoch: self.group_epoch,
            suite: i64::from(log.suite),
            expires_at_s: store_u64(send.expires_at_s),
            content: send.content.as_deref(),
        })
    }
}

/// An entry of a log, to be inserted.
struct NewEntry<'a> {
    conversation_key: ConversationKey,
    seq: i64,
    message_id: &'a [u8],
    accepted_at_ms: i64,
    group_epoch: i64,
    suite: i64,
    expires_at_s: i64,
    content: Option<&'a [u8]>,
}

impl BatchRow for NewEntry<'_> {
    type Statement = NewEntry<'static>;
    const BEFORE: &'static str = "INSERT INTO log_entries \
        (conversation_key, seq, message_id, accepted_at_ms, group_epoch, suite, expires_at_s, content)";

    fn bind<'b>(&'b self, values: &mut Values<'_, 'b>) -> QueryResult<()> {
        values.add::<BigInt, _>(&self.conversation_key)?;
        values.add::<BigInt, _>(&self.seq)?;
        values.add::<Binary, _>(self.message_id)?;
        values.add::<BigInt, _>(&self.accepted_at_ms)?;
        values.add::<BigInt, _>(&self.group_epoch)?;
        values.add::<BigInt, _>(&self.suite)?;
        values.add::<BigInt, _>(&self.expires_at_s)?;
        values.add::<Nullable<Binary>, _>(&self.content)
    }
}

impl BatchRow for (ConversationKey, Head) {
    type Statement = Self;
    const BEFORE: &'static str = "UPDATE log_heads SET head_seq = moved.column2, group_epoch = moved.column3 FROM (";
    const AFTER: &'static str = ") AS moved WHERE log_heads.conversation_key = moved.column1";

    fn bind<'b>(&'b self, values: &mut Values<'_, 'b>) -> QueryResult<()> {
        let (conversation, head) = self;
        values.add::<BigInt, _>(conversation)?;
        values.add::<BigInt, _>(&head.head_seq)?;
        values.add::<BigInt, _>(&head.group_epoch)
    }
}

/// PostgreSQL's statement for all heads at once.
fn update_heads(heads: &[(ConversationKey, Head)]) -> Batch<UpdateHeads, impl crate::db::postgres::rows::Binds> {
    Batch::new(
        "UPDATE log_heads SET head_seq = moved.head_seq, group_epoch = moved.group_epoch \
         FROM unnest($1, $2, $3) AS moved (conversation_key, head_seq, group_epoch) \
         WHERE log_heads.conversation_key = moved.conversation_key",
        (
            heads.iter().map(|(conversation, _)| *conversation).collect::<Column<BigInt, _>>(),
            heads.iter().map(|(_, head)| head.head_seq).collect::<Column<BigInt, _>>(),
            heads.iter().map(|(_, head)| head.group_epoch).collect::<Column<BigInt, _>>(),
        ),
    )
}

/// PostgreSQL's statement for all entries at once.
fn add_entries<'a>(entries: &'a [NewEntry<'a>]) -> Batch<AddEntries, impl crate::db::postgres::rows::Binds + 'a> {
    Batch::new(
        "INSERT INTO log_entries \
         (conversation_key, seq, message_id, accepted_at_ms, group_epoch, suite, expires_at_s, content) \
         SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8)",
        (
            entries.iter().map(|entry| entry.conversation_key).collect::<Column<BigInt, _>>(),
            entries.iter().map(|entry| entry.seq).collect::<Column<BigInt, _>>(),
            entries.iter().map(|entry| entry.message_id).collect::<Column<Binary, _>>(),
            entries.iter().map(|entry| entry.accepted_at_ms).collect::<Column<BigInt, _>>(),
            entries.iter().map(|entry| entry.group_epoch).collect::<Column<BigInt, _>>(),
            entries.iter().map(|entry| entry.suite).collect::<Column<BigInt, _>>(),
            entries.iter().map(|entry| entry.expires_at_s).collect::<Column<BigInt, _>>(),
            entries.iter().map(|entry| entry.content).collect::<Column<Nullable<Binary>, _>>(),
        ),
    )
}

struct UpdateHeads;
struct AddEntries;
