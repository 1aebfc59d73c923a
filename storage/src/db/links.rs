//! Offers of devices that wait to be linked.

use bytes::Bytes;
use diesel::{ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, RunQueryDsl as _};
use martlet_protocol::id::{Hash, LinkId};

use super::{
    AccountKey, Conn, StorageError,
    conn::on,
    convert::{read_id, read_u64, store_u64},
    schema::links,
};

/// An offer as it rests.
#[derive(Debug, Clone)]
pub struct LinkRow {
    /// Its public id.
    pub link_id: LinkId,
    /// Hash of the secret that the new device polls with.
    pub poll_hash: Hash,
    /// The exact bytes of a `LinkOffer`.
    pub offer: Bytes,
    /// Whose device answered.
    pub account_key: Option<AccountKey>,
    /// The exact bytes of a `SealedLinkAnswer`, once there is one.
    pub answer: Option<Bytes>,
    /// Unix milliseconds.
    pub expires_at_ms: u64,
}

/// Adds an offer.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn insert(
    conn: &mut Conn,
    link_id: &LinkId,
    poll_hash: &Hash,
    offer: &[u8],
    expires_at_ms: u64,
) -> Result<(), StorageError> {
    on!(conn, c => diesel::insert_into(links::table)
        .values((
            links::link_id.eq(link_id.as_bytes().as_slice()),
            links::poll_hash.eq(poll_hash.as_bytes().as_slice()),
            links::offer.eq(offer),
            links::expires_at_ms.eq(store_u64(expires_at_ms)),
        ))
        .execute(c))?;
    Ok(())
}

/// Finds an offer that has not expired.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn by_id(conn: &mut Conn, link_id: &LinkId, now_ms: u64) -> Result<Option<LinkRow>, StorageError> {
    let row: Option<LinkColumns> = on!(conn, c => links::table
        .filter(links::link_id.eq(link_id.as_bytes().as_slice()))
        .filter(links::expires_at_ms.gt(store_u64(now_ms)))
        .first(c)
        .optional())?;
    row.map(link_row).transpose()
}

/// Answers an offer, once; false if it is missing, expired or answered.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn answer(
    conn: &mut Conn,
    link_id: &LinkId,
    account_key: AccountKey,
    answer: &[u8],
    now_ms: u64,
) -> Result<bool, StorageError> {
    let answered = on!(conn, c => diesel::update(links::table)
        .filter(links::link_id.eq(link_id.as_bytes().as_slice()))
        .filter(links::expires_at_ms.gt(store_u64(now_ms)))
        .filter(links::answer.is_null())
        .set((links::account_key.eq(account_key), links::answer.eq(answer)))
        .execute(c))?;
    Ok(answered == 1)
}

/// Takes an answered offer out: of any number of completions one gets it. None if it is missing, expired or not answered.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn consume(conn: &mut Conn, link_id: &LinkId, now_ms: u64) -> Result<Option<LinkRow>, StorageError> {
    let row: Option<LinkColumns> = on!(conn, c => diesel::delete(
            links::table
                .filter(links::link_id.eq(link_id.as_bytes().as_slice()))
                .filter(links::expires_at_ms.gt(store_u64(now_ms)))
                .filter(links::answer.is_not_null()),
        )
        .returning(links::all_columns)
        .get_result(c)
        .optional())?;
    row.map(link_row).transpose()
}

type LinkColumns = (Vec<u8>, Vec<u8>, Vec<u8>, Option<AccountKey>, Option<Vec<u8>>, i64);

fn link_row(
    (link_id, poll_hash, offer, account_key, answer, expires_at_ms): LinkColumns,
) -> Result<LinkRow, StorageError> {
    Ok(LinkRow {
        link_id: read_id(&link_id)?,
        poll_hash: read_id(&poll_hash)?,
        offer: offer.into(),
        account_key,
        answer: answer.map(Bytes::from),
        expires_at_ms: read_u64(expires_at_ms)?,
    })
}
