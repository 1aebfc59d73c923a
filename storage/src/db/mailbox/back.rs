//! Reading a mailbox backwards: where the part begins is found first, and then it is read as any other.

use diesel::{ExpressionMethods as _, QueryDsl as _, RunQueryDsl as _};

use super::{Item, Range, RangeQuery, range, state};
use crate::db::{
    Conn, DeviceKey, StorageError,
    conn::on,
    convert::{read_u64, store_u64},
    schema::mailbox_entries,
};

/// Which part of a mailbox, backwards.
#[derive(Debug, Clone, Copy)]
pub struct BackQuery {
    /// Whose.
    pub device: DeviceKey,
    /// The part ends before this `seq`; past the head, at the head.
    pub before_seq: u64,
    /// At most this many entries, at least 1.
    pub max_entries: u32,
    /// Stops once the entries hold this many bytes; there is always at least one, if there is any.
    pub max_bytes: usize,
    /// Unix seconds: rows past their expiry read as gaps.
    pub now_s: u64,
}

/// The last entries before a `seq`, in the order of `seq`, with the gaps between and after them; if no entry lies before them, also the gap
/// that they begin with. Must run over one snapshot, as [`crate::Db::read`] does.
///
/// # Errors
/// [`StorageError`] if a query fails.
pub fn range_before(conn: &mut Conn, query: &BackQuery) -> Result<Range, StorageError> {
    let Some(state) = state(conn, query.device)? else { return Ok(Range { items: Vec::new(), head_seq: 0 }) };
    let head_seq = state.head_seq;
    let to_seq = query.before_seq.saturating_sub(1).min(head_seq);
    if to_seq == 0 {
        return Ok(Range { items: Vec::new(), head_seq });
    }
    let most = query.max_entries.max(1);
    let sizes: Vec<(i64, i64)> = on!(conn, c => mailbox_entries::table
        .filter(mailbox_entries::device_key.eq(query.device))
        .filter(mailbox_entries::seq.le(store_u64(to_seq)))
        .filter(mailbox_entries::seq.gt(store_u64(state.acked_seq)))
        .order(mailbox_entries::seq.desc())
        .limit(most.into())
        .select((mailbox_entries::seq, mailbox_entries::size_bytes))
        .load(c))?;
    let (mut bytes, mut taken) = (0_usize, 0);
    for (_, size) in &sizes {
        if taken > 0 && bytes >= query.max_bytes {
            break;
        }
        bytes = bytes.saturating_add(usize::try_from(*size).unwrap_or(0));
        taken += 1;
    }
    let all = taken == sizes.len() && sizes.len() < most as usize;
    let from_seq = match sizes.get(taken.saturating_sub(1)) {
        Some((seq, _)) if !all => read_u64(*seq)?,
        _ => 1,
    };
    let mut items: Vec<Item> = Vec::with_capacity(taken);
    // As a rule once: the items are as many as entries, and one more byte than those hold lets the gap behind the last one be read, too.
    // Many gaps of different reasons between two entries take another turn.
    while items.last().map_or(from_seq - 1, last) < to_seq {
        let part = RangeQuery {
            device: query.device,
            after_seq: items.last().map_or(from_seq - 1, last),
            max_items: most.saturating_mul(2).saturating_add(1),
            max_bytes: bytes.saturating_add(1),
            now_s: query.now_s,
        };
        let read = range(conn, &part)?.items;
        if read.is_empty() {
            break;
        }
        items.extend(read);
    }
    items.retain(|item| first(item) <= to_seq);
    if let Some(Item::Gap(gap)) = items.last_mut()
        && gap.to_seq > to_seq
    {
        gap.to_seq = to_seq;
        gap.count = to_seq - gap.from_seq + 1;
    }
    Ok(Range { items, head_seq })
}

fn first(item: &Item) -> u64 {
    match item {
        Item::Entry { seq, .. } => *seq,
        Item::Gap(gap) => gap.from_seq,
    }
}

fn last(item: &Item) -> u64 {
    match item {
        Item::Entry { seq, .. } => *seq,
        Item::Gap(gap) => gap.to_seq,
    }
}
