//! Deleting what has had its time: answers, tokens, tickets, offers, control entries, one-time prekeys. Mailboxes have
//! [`super::mailbox::expire`], which must leave markers.

use diesel::{ExpressionMethods as _, QueryDsl as _, RunQueryDsl as _};

use super::{
    Conn, StorageError,
    conn::on,
    convert::store_u64,
    locks,
    schema::{control_entries, links, prekeys, send_answers, socket_tickets, store, tokens},
};

/// How long a control entry is kept: a day, in seconds. A node that was away longer starts with empty caches.
pub const CONTROL_RETENTION_S: u64 = 86_400;

/// How many rows went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Answers to sends.
    pub answers: usize,
    /// Device tokens.
    pub tokens: usize,
    /// Socket tickets.
    pub tickets: usize,
    /// Offers of devices.
    pub links: usize,
    /// Control entries.
    pub control: usize,
    /// One-time prekeys.
    pub prekeys: usize,
}

impl Swept {
    /// The most that went of one kind. At the limit, another sweep finds more.
    #[must_use]
    pub fn most(&self) -> usize {
        [self.answers, self.tokens, self.tickets, self.links, self.control, self.prekeys].into_iter().max().unwrap_or(0)
    }
}

/// Deletes at most `limit` expired rows of each kind; nothing, if another node is sweeping.
///
/// # Errors
/// [`StorageError`] if a query fails.
pub fn sweep(conn: &mut Conn, now_ms: u64, limit: u32) -> Result<Swept, StorageError> {
    if !locks::sweeper(conn)? {
        return Ok(Swept::default());
    }
    let now_s = now_ms / 1000;
    Ok(Swept {
        answers: answers(conn, store_u64(now_s), limit)?,
        tokens: expired_tokens(conn, store_u64(now_ms), limit)?,
        tickets: tickets(conn, store_u64(now_ms), limit)?,
        links: offers(conn, store_u64(now_ms), limit)?,
        control: control(conn, store_u64(now_s.saturating_sub(CONTROL_RETENTION_S)), limit)?,
        prekeys: one_time_prekeys(conn, store_u64(now_ms), limit)?,
    })
}

/// From the front of the append-only table: the oldest rows are its first.
fn answers(conn: &mut Conn, now_s: i64, limit: u32) -> Result<usize, StorageError> {
    let front: Vec<(i64, i64)> = on!(conn, c => send_answers::table
        .order(send_answers::answer_key)
        .limit(limit.into())
        .select((send_answers::answer_key, send_answers::expires_at_s))
        .load(c))?;
    let Some(&(last, _)) = front.iter().take_while(|&&(_, expires_at_s)| expires_at_s <= now_s).last() else {
        return Ok(0);
    };
    Ok(on!(conn, c => diesel::delete(send_answers::table.filter(send_answers::answer_key.le(last))).execute(c))?)
}

fn expired_tokens(conn: &mut Conn, now_ms: i64, limit: u32) -> Result<usize, StorageError> {
    let hashes: Vec<Vec<u8>> = on!(conn, c => tokens::table
        .filter(tokens::expires_at_ms.le(now_ms))
        .limit(limit.into())
        .select(tokens::token_hash)
        .load(c))?;
    each(&hashes, |hash| Ok(on!(conn, c => diesel::delete(tokens::table.find(hash)).execute(c))?))
}

fn tickets(conn: &mut Conn, now_ms: i64, limit: u32) -> Result<usize, StorageError> {
    let hashes: Vec<Vec<u8>> = on!(conn, c => socket_tickets::table
        .filter(socket_tickets::expires_at_ms.le(now_ms))
        .limit(limit.into())
        .select(socket_tickets::ticket_hash)
        .load(c))?;
    each(&hashes, |hash| Ok(on!(conn, c => diesel::delete(socket_tickets::table.find(hash)).execute(c))?))
}

fn offers(conn: &mut Conn, now_ms: i64, limit: u32) -> Result<usize, StorageError> {
    let ids: Vec<Vec<u8>> = on!(conn, c => links::table
        .filter(links::expires_at_ms.le(now_ms))
        .limit(limit.into())
        .select(links::link_id)
        .load(c))?;
    each(&ids, |id| Ok(on!(conn, c => diesel::delete(links::table.find(id)).execute(c))?))
}

/// Always a front part, so that what is left stays gapless.
fn control(conn: &mut Conn, until_s: i64, limit: u32) -> Result<usize, StorageError> {
    let front: Vec<(i64, i64)> = on!(conn, c => control_entries::table
        .order(control_entries::seq)
        .limit(limit.into())
        .select((control_entries::seq, control_entries::created_at_s))
        .load(c))?;
    let Some(&(last, _)) = front.iter().take_while(|&&(_, created_at_s)| created_at_s < until_s).last() else {
        return Ok(0);
    };
    Ok(on!(conn, c => diesel::delete(control_entries::table.filter(control_entries::seq.le(last))).execute(c))?)
}

/// An expired one-time prekey keeps its id, like a claimed one. Signed prekeys stay: an expired one makes its device dormant.
fn one_time_prekeys(conn: &mut Conn, now_ms: i64, limit: u32) -> Result<usize, StorageError> {
    use super::prekeys::ONE_TIME;
    type Key = (super::DeviceKey, i16, i64);
    let keys: Vec<Key> = on!(conn, c => prekeys::table
        .filter(prekeys::signed_prekey.is_not_null())
        .filter(prekeys::not_after_ms.le(now_ms))
        .filter(prekeys::kind.eq(ONE_TIME))
        .limit(limit.into())
        .select((prekeys::device_key, prekeys::kind, prekeys::key_id))
        .load(c))?;
    each(&keys, |&key| {
        Ok(on!(conn, c => diesel::update(prekeys::table.find(key))
            .set(prekeys::signed_prekey.eq(None::<&[u8]>))
            .execute(c))?)
    })
}

fn each<T>(items: &[T], mut delete: impl FnMut(&T) -> Result<usize, StorageError>) -> Result<usize, StorageError> {
    items.iter().try_fold(0, |deleted, item| Ok(deleted + delete(item)?))
}

/// The store's own row: there since the first migration.
pub(super) fn read_store_row(conn: &mut Conn) -> Result<(), StorageError> {
    let _: i64 = on!(conn, c => store::table.select(store::epoch).get_result(c))?;
    Ok(())
}
