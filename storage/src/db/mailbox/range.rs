//! Reading a part of a mailbox: entries, markers and what neither explains, as one gapless walk.

use bytes::Bytes;
use diesel::{
    ExpressionMethods as _, NullableExpressionMethods as _, QueryDsl as _, QueryableByName, RunQueryDsl as _,
    connection::DefaultLoadingMode,
    pg::PgConnection,
    sql_types::{BigInt, Binary, Nullable},
    sqlite::SqliteConnection,
};
use martlet_protocol::{id::EntryId, wire};

use super::{Item, MailboxState, Range, RangeQuery, state};
use crate::db::{
    Conn, StorageError,
    conn::on,
    convert::{read_enum, read_id, read_u64, store_u64},
    schema::{contents, mailbox_entries, mailbox_gaps},
};

/// Reads a part of a mailbox. Every `seq` from `after_seq + 1` to the last item's end is in exactly one item: what the device acked
/// reads as an `acked` gap, rows past their expiry as `expired`, and a hole that no marker explains as `unexplained`. Nothing, if the
/// device has no mailbox (any more). Must run over one snapshot, as [`crate::Db::read`] does.
///
/// # Errors
/// [`StorageError`] if a query fails.
pub fn range(conn: &mut Conn, query: &RangeQuery) -> Result<Range, StorageError> {
    let Some(MailboxState { head_seq, acked_seq, .. }) = state(conn, query.device)? else {
        return Ok(Range { items: Vec::new(), head_seq: 0 });
    };
    let mut walk = Walk::new(query, head_seq);
    if acked_seq > query.after_seq {
        walk.gap(query.after_seq + 1, acked_seq, wire::GapReason::Acked);
    }
    let after_seq = query.after_seq.max(acked_seq);
    let max_items = query.max_items.max(1);
    let mut rows = Merge::new(markers(conn, query, after_seq, max_items)?, max_items);
    let all_seen = match conn {
        Conn::Sqlite(c) => load_one_by_one(c, query, after_seq, max_items, |entry| rows.step(&mut walk, entry))?,
        Conn::Postgres(c) => load_up_to_bytes(c, query, after_seq, max_items, |entry| rows.step(&mut walk, entry))?,
    };
    if all_seen {
        rows.finish(&mut walk);
    }
    Ok(Range { items: walk.items, head_seq })
}

/// A row of the mailbox.
struct Entry {
    seq: u64,
    expires_at_s: u64,
    entry_id: EntryId,
    sealed: Bytes,
    content: Option<Bytes>,
}

/// A stored marker.
struct Marker {
    from_seq: u64,
    to_seq: u64,
    reason: wire::GapReason,
}

/// The items so far, and where the next one must begin.
struct Walk {
    items: Vec<Item>,
    next_seq: u64,
    head_seq: u64,
    bytes_left: usize,
    items_left: u32,
    now_s: u64,
}

impl Walk {
    fn new(query: &RangeQuery, head_seq: u64) -> Self {
        Self {
            items: Vec::new(),
            next_seq: query.after_seq + 1,
            head_seq,
            bytes_left: query.max_bytes,
            items_left: query.max_items.max(1),
            now_s: query.now_s,
        }
    }

    /// No further item fits.
    fn is_full(&self) -> bool {
        self.items_left == 0 || (self.bytes_left == 0 && !self.items.is_empty())
    }

    fn push(&mut self, item: Item, end_seq: u64) {
        self.items.push(item);
        self.items_left -= 1;
        self.next_seq = end_seq + 1;
    }

    /// Adds a gap, or lengthens the last one if it has the same reason.
    fn gap(&mut self, from_seq: u64, to_seq: u64, reason: wire::GapReason) {
        debug_assert_eq!(from_seq, self.next_seq, "items must follow each other");
        if let Some(Item::Gap(last)) = self.items.last_mut()
            && last.reason() == reason
        {
            last.to_seq = to_seq;
            last.count = to_seq - last.from_seq + 1;
            self.next_seq = to_seq + 1;
            return;
        }
        let gap = wire::Gap { from_seq, to_seq, count: to_seq - from_seq + 1, reason: reason.into() };
        self.push(Item::Gap(gap), to_seq);
    }

    /// Explains what lies before `seq`, if nothing else did. False if the walk is full with that.
    fn reach(&mut self, seq: u64) -> bool {
        if self.next_seq < seq {
            self.gap(self.next_seq, seq - 1, wire::GapReason::Unexplained);
        }
        !self.is_full()
    }

    /// Adds a stored marker; one that begins before the walk's place is cut.
    fn marker(&mut self, marker: &Marker) -> bool {
        if marker.to_seq < self.next_seq {
            return true;
        }
        if !self.reach(marker.from_seq) {
            return false;
        }
        self.gap(self.next_seq, marker.to_seq, marker.reason);
        !self.is_full()
    }

    /// Adds an entry, or the gap that it has become.
    fn entry(&mut self, entry: Entry) -> bool {
        if !self.reach(entry.seq) {
            return false;
        }
        if entry.expires_at_s <= self.now_s {
            self.gap(entry.seq, entry.seq, wire::GapReason::Expired);
            return !self.is_full();
        }
        let bytes = entry.sealed.len() + entry.content.as_ref().map_or(0, Bytes::len);
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        let Entry { seq, entry_id, sealed, content, .. } = entry;
        self.push(Item::Entry { seq, entry_id, sealed, content }, seq);
        !self.is_full()
    }
}

/// Merges markers into the entries.
struct Merge {
    markers: std::iter::Peekable<std::vec::IntoIter<Marker>>,
    /// Every marker up to here is known.
    known_to: u64,
    /// Entries that may still come.
    entries_left: u32,
}

impl Merge {
    fn new(markers: Vec<Marker>, max_items: u32) -> Self {
        let all_known = markers.len() < max_items as usize;
        let known_to = markers.last().filter(|_| !all_known).map_or(u64::MAX, |last| last.to_seq);
        Self { markers: markers.into_iter().peekable(), known_to, entries_left: max_items }
    }

    /// Takes the markers before the entry, then the entry. False once the walk is full, or could mistake a marker that was not loaded
    /// for a hole.
    fn step(&mut self, walk: &mut Walk, entry: Entry) -> bool {
        self.entries_left -= 1;
        while let Some(marker) = self.markers.next_if(|marker| marker.from_seq < entry.seq) {
            if !walk.marker(&marker) {
                return false;
            }
        }
        entry.seq <= self.known_to && walk.entry(entry)
    }

    /// After the last entry: the remaining markers and what is missing up to the head, unless more rows may lie there.
    fn finish(self, walk: &mut Walk) {
        if walk.is_full() || self.entries_left == 0 {
            return;
        }
        for marker in self.markers {
            if !walk.marker(&marker) {
                return;
            }
        }
        if self.known_to == u64::MAX {
            walk.reach(walk.head_seq + 1);
        }
    }
}

/// The markers past `after_seq`. No more are needed than items, as each becomes one.
fn markers(conn: &mut Conn, query: &RangeQuery, after_seq: u64, max_items: u32) -> Result<Vec<Marker>, StorageError> {
    let rows: Vec<(i64, i64, i16)> = on!(conn, c => mailbox_gaps::table
        .filter(mailbox_gaps::device_key.eq(query.device))
        .filter(mailbox_gaps::to_seq.gt(store_u64(after_seq)))
        .order(mailbox_gaps::from_seq)
        .limit(max_items.into())
        .select((mailbox_gaps::from_seq, mailbox_gaps::to_seq, mailbox_gaps::reason))
        .load(c))?;
    rows.into_iter()
        .map(|(from_seq, to_seq, reason)| {
            Ok(Marker { from_seq: read_u64(from_seq)?, to_seq: read_u64(to_seq)?, reason: read_enum(reason)? })
        })
        .collect()
}

/// Seq, expiry, content's key, id, seal, content.
type Columns = (i64, i64, Option<i64>, Vec<u8>, Vec<u8>, Option<Vec<u8>>);

/// Reads entries one by one until `take` has enough, so that no more bytes are read than are delivered. True if `take` had them all.
fn load_one_by_one(
    c: &mut SqliteConnection,
    query: &RangeQuery,
    after_seq: u64,
    max_items: u32,
    mut take: impl FnMut(Entry) -> bool,
) -> Result<bool, StorageError> {
    let rows = mailbox_entries::table
        .left_join(contents::table)
        .filter(mailbox_entries::device_key.eq(query.device))
        .filter(mailbox_entries::seq.gt(store_u64(after_seq)))
        .order(mailbox_entries::seq)
        .limit(max_items.into())
        .select((
            mailbox_entries::seq,
            mailbox_entries::expires_at_s,
            mailbox_entries::content_key,
            mailbox_entries::entry_id,
            mailbox_entries::sealed,
            contents::content.nullable(),
        ))
        .load_iter::<Columns, DefaultLoadingMode>(c)?;
    for row in rows {
        if !take(entry(row?, query.now_s)?) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// PostgreSQL sends a whole answer, so it is told how many bytes are wanted: rows come up to the one that fills the budget. True if `take`
/// had all entries that there are, up to `max_items`.
fn load_up_to_bytes(
    c: &mut PgConnection,
    query: &RangeQuery,
    after_seq: u64,
    max_items: u32,
    mut take: impl FnMut(Entry) -> bool,
) -> Result<bool, StorageError> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = BigInt)]
        seq: i64,
        #[diesel(sql_type = BigInt)]
        expires_at_s: i64,
        #[diesel(sql_type = Nullable<BigInt>)]
        content_key: Option<i64>,
        #[diesel(sql_type = Binary)]
        entry_id: Vec<u8>,
        #[diesel(sql_type = Binary)]
        sealed: Vec<u8>,
        #[diesel(sql_type = Nullable<Binary>)]
        content: Option<Vec<u8>>,
        #[diesel(sql_type = BigInt)]
        bytes: i64,
    }
    let max_bytes = i64::try_from(query.max_bytes).unwrap_or(i64::MAX);
    let rows: Vec<Row> = diesel::sql_query(
        "SELECT part.seq, part.expires_at_s, part.content_key, part.entry_id, part.sealed, contents.content, part.bytes
         FROM (SELECT *, (sum(CASE WHEN expires_at_s > $5 THEN size_bytes ELSE 0 END) OVER (ORDER BY seq))::bigint AS bytes
               FROM (SELECT seq, expires_at_s, content_key, entry_id, sealed, size_bytes FROM mailbox_entries
                     WHERE device_key = $1 AND seq > $2 ORDER BY seq LIMIT $3) AS front) AS part
         LEFT JOIN contents ON contents.content_key = part.content_key
         WHERE part.bytes - part.size_bytes < greatest($4, 1) ORDER BY part.seq",
    )
    .bind::<BigInt, _>(query.device)
    .bind::<BigInt, _>(store_u64(after_seq))
    .bind::<BigInt, _>(i64::from(max_items))
    .bind::<BigInt, _>(max_bytes)
    .bind::<BigInt, _>(store_u64(query.now_s))
    .load(c)?;
    let all = rows.last().is_none_or(|last| last.bytes < max_bytes);
    for row in rows {
        let columns = (row.seq, row.expires_at_s, row.content_key, row.entry_id, row.sealed, row.content);
        if !take(entry(columns, query.now_s)?) {
            return Ok(false);
        }
    }
    Ok(all)
}

/// The content of an entry past its expiry may be gone already.
fn entry(columns: Columns, now_s: u64) -> Result<Entry, StorageError> {
    let (seq, expires_at_s, content_key, entry_id, sealed, content) = columns;
    let expires_at_s = read_u64(expires_at_s)?;
    if content_key.is_some() && content.is_none() && expires_at_s > now_s {
        return Err(StorageError::Inconsistent("an entry without its content"));
    }
    Ok(Entry {
        seq: read_u64(seq)?,
        expires_at_s,
        entry_id: read_id(&entry_id)?,
        sealed: sealed.into(),
        content: content.map(Bytes::from),
    })
}
