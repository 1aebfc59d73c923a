//! Writing what was placed.

use diesel::{
    QueryResult, QueryableByName, RunQueryDsl as _,
    sql_types::{BigInt, Binary, Nullable, SmallInt},
};

use super::{
    Answers, EntryBody, PreparedSend,
    place::{Head, Placement, Row},
};
use crate::db::{
    Conn, ContentKey, DeviceKey, StorageError,
    convert::store_u64,
    error::expect_rows,
    mailbox::{contents, gaps},
    postgres::rows::{Batch, Binds, Column},
    sqlite::rows::{self, BatchRow, Values},
};

/// A mailbox entry to be inserted.
struct NewEntry<'a> {
    device_key: DeviceKey,
    seq: i64,
    size_bytes: i64,
    expires_at_s: i64,
    own_lifetime: i16,
    content_key: Option<ContentKey>,
    entry_id: &'a [u8],
    sealed: &'a [u8],
}

/// The answer to a send, to be inserted.
struct NewAnswer<'a> {
    request_key: &'a [u8],
    request_mac: &'a [u8],
    answer: &'a [u8],
    expires_at_s: i64,
}

impl BatchRow for NewEntry<'_> {
    type Statement = NewEntry<'static>;
    const BEFORE: &'static str = "INSERT INTO mailbox_entries \
        (device_key, seq, size_bytes, expires_at_s, own_lifetime, content_key, entry_id, sealed)";

    fn bind<'b>(&'b self, values: &mut Values<'_, 'b>) -> QueryResult<()> {
        values.add::<BigInt, _>(&self.device_key)?;
        values.add::<BigInt, _>(&self.seq)?;
        values.add::<BigInt, _>(&self.size_bytes)?;
        values.add::<BigInt, _>(&self.expires_at_s)?;
        values.add::<SmallInt, _>(&self.own_lifetime)?;
        values.add::<Nullable<BigInt>, _>(&self.content_key)?;
        values.add::<Binary, _>(self.entry_id)?;
        values.add::<Binary, _>(self.sealed)
    }
}

impl BatchRow for (DeviceKey, Head) {
    type Statement = Self;
    const BEFORE: &'static str = "UPDATE mailbox_heads \
        SET head_seq = moved.column2, added_bytes = moved.column3, added_entries = moved.column4 FROM (";
    const AFTER: &'static str = ") AS moved WHERE mailbox_heads.device_key = moved.column1";

    fn bind<'b>(&'b self, values: &mut Values<'_, 'b>) -> QueryResult<()> {
        let (device, head) = self;
        values.add::<BigInt, _>(device)?;
        values.add::<BigInt, _>(&head.head_seq)?;
        values.add::<BigInt, _>(&head.added_bytes)?;
        values.add::<BigInt, _>(&head.added_entries)
    }
}

impl BatchRow for NewAnswer<'_> {
    type Statement = NewAnswer<'static>;
    const BEFORE: &'static str = "INSERT INTO send_answers (request_key, request_mac, answer, expires_at_s)";

    fn bind<'b>(&'b self, values: &mut Values<'_, 'b>) -> QueryResult<()> {
        values.add::<Binary, _>(self.request_key)?;
        values.add::<Binary, _>(self.request_mac)?;
        values.add::<Binary, _>(self.answer)?;
        values.add::<BigInt, _>(&self.expires_at_s)
    }
}

/// How many rows were written.
#[derive(QueryableByName)]
struct Written {
    #[diesel(sql_type = BigInt)]
    moved: i64,
    #[diesel(sql_type = BigInt)]
    added: i64,
    #[diesel(sql_type = BigInt)]
    kept: i64,
}

/// PostgreSQL's statement for everything: a round trip each would be a third of a small batch's time.
fn write_all<'a>(
    heads: &'a [(DeviceKey, Head)],
    entries: &'a [NewEntry<'a>],
    answers: &'a [NewAnswer<'a>],
) -> Batch<WriteAll, impl Binds + 'a> {
    Batch::new(
        "WITH moved AS (UPDATE mailbox_heads \
         SET head_seq = new.head_seq, added_bytes = new.added_bytes, added_entries = new.added_entries \
         FROM unnest($1, $2, $3, $4) AS new (device_key, head_seq, added_bytes, added_entries) \
         WHERE mailbox_heads.device_key = new.device_key RETURNING 1), \
         added AS (INSERT INTO mailbox_entries \
         (device_key, seq, size_bytes, expires_at_s, own_lifetime, content_key, entry_id, sealed) \
         SELECT * FROM unnest($5, $6, $7, $8, $9, $10, $11, $12) RETURNING 1), \
         kept AS (INSERT INTO send_answers (request_key, request_mac, answer, expires_at_s) \
         SELECT * FROM unnest($13, $14, $15, $16) RETURNING 1) \
         SELECT (SELECT count(*) FROM moved) AS moved, (SELECT count(*) FROM added) AS added, (SELECT count(*) FROM kept) AS kept",
        (
            heads.iter().map(|(device, _)| *device).collect::<Column<BigInt, _>>(),
            heads.iter().map(|(_, head)| head.head_seq).collect::<Column<BigInt, _>>(),
            heads.iter().map(|(_, head)| head.added_bytes).collect::<Column<BigInt, _>>(),
            heads.iter().map(|(_, head)| head.added_entries).collect::<Column<BigInt, _>>(),
            entries.iter().map(|entry| entry.device_key).collect::<Column<BigInt, _>>(),
            entries.iter().map(|entry| entry.seq).collect::<Column<BigInt, _>>(),
            entries.iter().map(|entry| entry.size_bytes).collect::<Column<BigInt, _>>(),
            entries.iter().map(|entry| entry.expires_at_s).collect::<Column<BigInt, _>>(),
            entries.iter().map(|entry| entry.own_lifetime).collect::<Column<SmallInt, _>>(),
            entries.iter().map(|entry| entry.content_key).collect::<Column<Nullable<BigInt>, _>>(),
            entries.iter().map(|entry| entry.entry_id).collect::<Column<Binary, _>>(),
            entries.iter().map(|entry| entry.sealed).collect::<Column<Binary, _>>(),
            answers.iter().map(|row| row.request_key).collect::<Column<Binary, _>>(),
            answers.iter().map(|row| row.request_mac).collect::<Column<Binary, _>>(),
            answers.iter().map(|row| row.answer).collect::<Column<Binary, _>>(),
            answers.iter().map(|row| row.expires_at_s).collect::<Column<BigInt, _>>(),
        ),
    )
}

struct WriteAll;

/// What was committed, and until when its answers are kept.
pub(super) struct Answering<'a> {
    /// Indexes of sends.
    pub committed: Vec<usize>,
    pub answers: &'a Answers,
    pub expires_at_s: u64,
}

/// Writes the heads that moved, shared contents, entries, answers and gap markers.
pub(super) fn all(
    conn: &mut Conn,
    sends: &[PreparedSend],
    placement: Placement,
    answering: Answering<'_>,
) -> Result<(), StorageError> {
    let (heads, rows, discarded) = placement.finish();
    let contents = insert_contents(conn, sends, &rows)?;
    let entries = entries(sends, &rows, &contents);
    let answers = answers(sends, answering);
    let count = |rows: usize| i64::try_from(rows).unwrap_or(i64::MAX);
    let written = match conn {
        Conn::Sqlite(c) => Written {
            moved: count(rows::execute(c, &heads)?),
            added: count(rows::execute(c, &entries)?),
            kept: count(rows::execute(c, &answers)?),
        },
        Conn::Postgres(c) => write_all(&heads, &entries, &answers).get_result(c)?,
    };
    let expect = |rows: i64, expected, what| expect_rows(usize::try_from(rows).unwrap_or_default(), expected, what);
    expect(written.moved, heads.len(), "a mailbox head went while it was held")?;
    expect(written.added, entries.len(), "a mailbox entry was not inserted")?;
    expect(written.kept, answers.len(), "an answer was not inserted")?;
    for range in discarded {
        gaps::record(conn, range)?;
    }
    Ok(())
}

/// Stores each content that some row needs, and returns its key per send.
fn insert_contents(
    conn: &mut Conn,
    sends: &[PreparedSend],
    rows: &[Row],
) -> Result<Vec<Option<ContentKey>>, StorageError> {
    let mut refs = vec![0_i64; sends.len()];
    for row in rows {
        refs[row.send] += 1;
    }
    let mut needed = Vec::new();
    let mut of_sends = Vec::new();
    for (index, (send, refs)) in sends.iter().zip(refs).enumerate() {
        if let Some(content) = &send.content
            && refs > 0
        {
            needed.push(contents::NewContent { content, refs, expires_at_s: send.expires_at_s });
            of_sends.push(index);
        }
    }
    let mut keys = vec![None; sends.len()];
    for (index, key) in of_sends.into_iter().zip(contents::insert(conn, &needed)?) {
        keys[index] = Some(key);
    }
    Ok(keys)
}

fn entries<'a>(sends: &'a [PreparedSend], rows: &[Row], contents: &[Option<ContentKey>]) -> Vec<NewEntry<'a>> {
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        let send = &sends[row.send];
        let entry = &send.entries[row.entry];
        let EntryBody::Sealed(sealed) = &entry.body else { continue };
        entries.push(NewEntry {
            device_key: row.device,
            seq: row.seq,
            size_bytes: row.size_bytes,
            expires_at_s: store_u64(send.expires_at_s),
            own_lifetime: i16::from(send.own_lifetime),
            content_key: contents[row.send],
            entry_id: entry.entry_id.as_bytes(),
            sealed,
        });
    }
    entries
}

/// The answers of the sends that were committed, ordered by key, which is random: not by arrival.
fn answers<'a>(sends: &'a [PreparedSend], answering: Answering<'a>) -> Vec<NewAnswer<'a>> {
    let Answering { committed, answers, expires_at_s } = answering;
    let mut new = Vec::with_capacity(committed.len());
    for index in committed {
        let send = &sends[index];
        let Some(answered) = answers.get(&send.request_key) else { continue };
        new.push(NewAnswer {
            request_key: &send.request_key,
            request_mac: &send.request_mac,
            answer: &answered.answer,
            expires_at_s: store_u64(expires_at_s),
        });
    }
    new.sort_unstable_by_key(|row| row.request_key);
    new
}
