//! Which part of a log an account may read: from after it joined, up to where it left. Who left may still fetch what it was owed by then,
//! so that a device that was away loses nothing; when nothing of that is left, it is forgotten.
//!
//! It writes where membership changes, under that conversation's lock: no send moves the head meanwhile.

use diesel::{
    ExpressionMethods as _, NullableExpressionMethods as _, OptionalExtension as _, QueryDsl as _, RunQueryDsl as _,
};
use martlet_protocol::{
    id::{AccountId, ConversationId},
    wire::ConversationKind,
};

use super::LogBounds;
use crate::db::{
    AccountKey, Conn, ConversationKey, StorageError,
    conn::on,
    convert::{read_enum, read_u64},
    error::expect_rows,
    schema::{accounts, conversations, former_members, log_heads, members},
    store,
};

/// A log as one account sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Its row.
    pub conversation: ConversationKey,
    /// What the account may read.
    pub bounds: LogBounds,
    /// The log's head, for the account: of one who left, the last that it may read.
    pub head_seq: u64,
    /// The group's epoch; of one who left, at that moment.
    pub group_epoch: u64,
    /// Of the numbering.
    pub epoch: u64,
}

impl Access {
    /// It is a member no more.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.bounds.upto_seq != LogBounds::NONE.upto_seq
    }
}

/// The conversation, where the member joined, and the log's head and group epoch if it has one.
type MemberColumns = (ConversationKey, i64, Option<(i64, i64)>);

/// The account's way into the log. `Ok(None)` if it is no member and never was; of a conversation without a log, `None` inside.
///
/// # Errors
/// [`StorageError`] if a query fails.
pub fn access(
    conn: &mut Conn,
    conversation_id: &ConversationId,
    account_key: AccountKey,
) -> Result<Option<Option<Access>>, StorageError> {
    let id = conversation_id.as_bytes().as_slice();
    let epoch = read_u64(store::epoch(conn)?)?;
    let member: Option<MemberColumns> = on!(conn, c => members::table
        .inner_join(conversations::table.left_join(log_heads::table))
        .filter(conversations::conversation_id.eq(id))
        .filter(members::account_key.eq(account_key))
        .select((
            conversations::conversation_key,
            members::joined_seq,
            (log_heads::head_seq, log_heads::group_epoch).nullable(),
        ))
        .first(c)
        .optional())?;
    if let Some((conversation, joined_seq, head)) = member {
        let Some((head_seq, group_epoch)) = head else { return Ok(Some(None)) };
        let bounds = LogBounds { after_seq: read_u64(joined_seq)?, ..LogBounds::NONE };
        let (head_seq, group_epoch) = (read_u64(head_seq)?, read_u64(group_epoch)?);
        return Ok(Some(Some(Access { conversation, bounds, head_seq, group_epoch, epoch })));
    }
    let former: Option<(ConversationKey, i64, i64, i64)> = on!(conn, c => former_members::table
        .inner_join(conversations::table)
        .filter(conversations::conversation_id.eq(id))
        .filter(former_members::account_key.eq(account_key))
        .select((
            former_members::conversation_key,
            former_members::joined_seq,
            former_members::left_seq,
            former_members::left_group_epoch,
        ))
        .first(c)
        .optional())?;
    let Some((conversation, joined_seq, left_seq, group_epoch)) = former else { return Ok(None) };
    let bounds = LogBounds { after_seq: read_u64(joined_seq)?, upto_seq: read_u64(left_seq)? };
    let (head_seq, group_epoch) = (bounds.upto_seq, read_u64(group_epoch)?);
    Ok(Some(Some(Access { conversation, bounds, head_seq, group_epoch, epoch })))
}

/// A log that an account read once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftBehind {
    /// The conversation's row.
    pub key: ConversationKey,
    /// The account's row.
    pub account_key: AccountKey,
}

/// None if the account is a member (again), or the conversation has no log.
///
/// # Errors
/// [`StorageError`] if a query fails.
pub fn left_behind(
    conn: &mut Conn,
    conversation_id: &ConversationId,
    account_id: &AccountId,
) -> Result<Option<LeftBehind>, StorageError> {
    let key: Option<(ConversationKey, i16)> = on!(conn, c => conversations::table
        .filter(conversations::conversation_id.eq(conversation_id.as_bytes().as_slice()))
        .select((conversations::conversation_key, conversations::kind))
        .first(c)
        .optional())?;
    let Some((key, kind)) = key else { return Ok(None) };
    let is_large = read_enum::<ConversationKind>(kind)? == ConversationKind::Large;
    let account: Option<AccountKey> = on!(conn, c => accounts::table
        .filter(accounts::account_id.eq(account_id.as_bytes().as_slice()))
        .select(accounts::account_key)
        .first(c)
        .optional())?;
    let Some(account_key) = account.filter(|_| is_large) else { return Ok(None) };
    let role: Option<i16> = on!(conn, c => members::table
        .find((key, account_key))
        .select(members::role)
        .first(c)
        .optional())?;
    Ok(role.is_none().then_some(LeftBehind { key, account_key }))
}

/// Where a log stands when its conversation's membership changes.
#[derive(Debug, Clone, Copy)]
pub(in crate::db) struct Stand {
    head_seq: i64,
    group_epoch: i64,
}

/// None if the conversation has no log. The caller holds the conversation's lock.
pub(in crate::db) fn stand(conn: &mut Conn, conversation: ConversationKey) -> Result<Option<Stand>, StorageError> {
    let row: Option<(i64, i64)> = on!(conn, c => log_heads::table
        .find(conversation)
        .select((log_heads::head_seq, log_heads::group_epoch))
        .first(c)
        .optional())?;
    Ok(row.map(|(head_seq, group_epoch)| Stand { head_seq, group_epoch }))
}

/// From where an account reads that joins now. What it read before, if it was there once, is its devices' to keep.
pub(in crate::db) fn join(
    conn: &mut Conn,
    conversation: ConversationKey,
    account: AccountKey,
    stand: Option<Stand>,
) -> Result<i64, StorageError> {
    let Some(stand) = stand else { return Ok(0) };
    on!(conn, c => diesel::delete(former_members::table.find((conversation, account))).execute(c))?;
    Ok(stand.head_seq)
}

/// Remembers up to where an account may read that leaves now and that read from `joined_seq`.
pub(in crate::db) fn leave(
    conn: &mut Conn,
    conversation: ConversationKey,
    account: AccountKey,
    joined_seq: i64,
    stand: Option<Stand>,
) -> Result<(), StorageError> {
    let Some(stand) = stand else { return Ok(()) };
    // A node of the release before this one lets an account back in without forgetting that it left.
    on!(conn, c => diesel::delete(former_members::table.find((conversation, account))).execute(c))?;
    if stand.head_seq <= joined_seq {
        return Ok(());
    }
    let inserted = on!(conn, c => diesel::insert_into(former_members::table)
        .values((
            former_members::conversation_key.eq(conversation),
            former_members::account_key.eq(account),
            former_members::joined_seq.eq(joined_seq),
            former_members::left_seq.eq(stand.head_seq),
            former_members::left_group_epoch.eq(stand.group_epoch),
        ))
        .execute(c))?;
    expect_rows(inserted, 1, "who left a log was not remembered")
}
