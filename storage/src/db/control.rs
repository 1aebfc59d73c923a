//! The control stream: what every node must know soon after it happened, written in the transaction that did it.

use diesel::{ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, RunQueryDsl as _};
use martlet_protocol::wire::{ControlEntry, control_entry::Event};
use prost::Message as _;

use super::{
    Conn, StorageError,
    conn::on,
    convert::{read_message, read_u64, store_u64},
    schema::{control_entries, control_heads},
    store,
};

/// Where the control stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The store's. If it changes, the stream's numbering is another one.
    pub epoch: u64,
    /// The last `seq`.
    pub seq: u64,
}

/// The last `seq`.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn head(conn: &mut Conn) -> Result<u64, StorageError> {
    let head: Option<i64> = on!(conn, c => control_heads::table.select(control_heads::head_seq).first(c).optional())?;
    read_u64(head.ok_or(NO_HEAD)?)
}

/// The last `seq`, and of which numbering it is.
///
/// # Errors
/// [`StorageError`] if a query fails.
pub fn position(conn: &mut Conn) -> Result<Position, StorageError> {
    Ok(Position { epoch: read_u64(store::epoch(conn)?)?, seq: head(conn)? })
}

const NO_HEAD: StorageError = StorageError::Inconsistent("the control stream has no head");

/// The entries after `seq`, at most `limit`, in order. They are gapless: if the first one is not `seq + 1`, or there is none although
/// the head is past `seq`, then what lay between was swept, and the reader must forget everything that it cached.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn after(conn: &mut Conn, seq: u64, limit: u32) -> Result<Vec<(u64, ControlEntry)>, StorageError> {
    let rows: Vec<(i64, Vec<u8>)> = on!(conn, c => control_entries::table
        .filter(control_entries::seq.gt(store_u64(seq)))
        .order(control_entries::seq)
        .limit(limit.into())
        .select((control_entries::seq, control_entries::event))
        .load(c))?;
    rows.into_iter().map(|(seq, event)| Ok((read_u64(seq)?, read_message(&event)?))).collect()
}

/// Appends an entry and returns its `seq`. Needs a write transaction: taking the head keeps other writers of the stream waiting until
/// its end, so that `seq` order is commit order.
///
/// # Errors
/// [`StorageError`] if a query fails.
pub fn append(conn: &mut Conn, entry: &ControlEntry, now_s: u64) -> Result<u64, StorageError> {
    let seq: Option<i64> = on!(conn, c => diesel::update(control_heads::table)
        .set(control_heads::head_seq.eq(control_heads::head_seq + 1))
        .returning(control_heads::head_seq)
        .get_result(c)
        .optional())?;
    let seq = seq.ok_or(NO_HEAD)?;
    on!(conn, c => diesel::insert_into(control_entries::table)
        .values((
            control_entries::seq.eq(seq),
            control_entries::event.eq(entry.encode_to_vec()),
            control_entries::created_at_s.eq(store_u64(now_s)),
        ))
        .execute(c))?;
    read_u64(seq)
}

/// As [`append`], for who needs no number.
///
/// # Errors
/// [`StorageError`] if a query fails.
pub fn tell(conn: &mut Conn, event: Event, now_s: u64) -> Result<(), StorageError> {
    append(conn, &ControlEntry { event: Some(event) }, now_s).map(drop)
}
