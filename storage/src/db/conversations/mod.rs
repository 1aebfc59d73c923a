//! Conversations, their membership chains and members.

mod write;

use bytes::Bytes;
use diesel::{ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, RunQueryDsl as _};
use martlet_protocol::{
    id::{AccountId, ConversationId, Hash},
    rest::SignedMembershipLink,
    wire::{ConversationKind, Role},
};

use super::{
    AccountKey, Conn, ConversationKey, KEYS_PER_QUERY, StorageError,
    conn::on,
    convert::{read_enum, read_id, read_u64, store_u64},
    locks,
    schema::{accounts, conversations, members, membership_links},
};

pub use write::{append_link, create, set_title};

/// A conversation to be created. The caller has verified link 1.
#[derive(Debug, Clone, Copy)]
pub struct NewConversation<'a> {
    /// SHA-256 of link 1, and therefore also the first head.
    pub conversation_id: ConversationId,
    /// Fixed at creation.
    pub kind: ConversationKind,
    /// Link 1.
    pub link: &'a SignedMembershipLink,
    /// Opaque ciphertext.
    pub title: Option<&'a [u8]>,
    /// Every first member, the creator included. A direct conversation has exactly two.
    pub members: &'a [NewMember],
}

/// A member to be added.
#[derive(Debug, Clone, Copy)]
pub struct NewMember {
    /// Who.
    pub account_key: AccountKey,
    /// As the link names it.
    pub fingerprint: Hash,
    /// As the link names it.
    pub role: Role,
}

/// Why a conversation can't be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The same link was used before, or the two accounts have their direct conversation already.
    #[error("the conversation exists")]
    Exists {
        /// The one there is.
        conversation_id: ConversationId,
    },
    /// The query failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A conversation as it rests, seen by one member.
#[derive(Debug, Clone)]
pub struct ConversationRow {
    /// Its row.
    pub conversation_key: ConversationKey,
    /// Its public id.
    pub conversation_id: ConversationId,
    /// Fixed at creation.
    pub kind: ConversationKind,
    /// Number of the newest membership link.
    pub m: u64,
    /// Its hash.
    pub head_hash: Hash,
    /// Opaque ciphertext.
    pub title: Option<Bytes>,
    /// The role of the member who asks.
    pub role: Role,
}

/// A member as it rests, with what a send checks about its account.
#[derive(Debug, Clone, Copy)]
pub struct MemberRow {
    /// Who.
    pub account_key: AccountKey,
    /// The account's public id.
    pub account_id: AccountId,
    /// As the link named it.
    pub fingerprint: Hash,
    /// Its role.
    pub role: Role,
    /// The link that added it.
    pub joined_m: u64,
    /// Number of the account's newest list.
    pub list_n: u64,
    /// Hash of the account's newest list.
    pub list_hash: Hash,
}

/// A member as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainMember {
    /// The account's public id.
    pub account_id: AccountId,
    /// Its role.
    pub role: Role,
}

/// One change of a link.
#[derive(Debug, Clone, Copy)]
pub enum MemberChange {
    /// Adds a member.
    Add(NewMember),
    /// Removes one.
    Remove(AccountKey),
    /// Gives one another role.
    SetRole(AccountKey, Role),
}

/// A link to be appended. The caller has verified that it extends the head and that its signer may.
#[derive(Debug, Clone, Copy)]
pub struct AppendLink<'a> {
    /// To which conversation.
    pub conversation_key: ConversationKey,
    /// The head that it extends.
    pub expected_m: u64,
    /// As it was signed.
    pub link: &'a SignedMembershipLink,
    /// SHA-256 of its bytes.
    pub hash: Hash,
    /// What it changes, in order.
    pub changes: &'a [MemberChange],
    /// Unix seconds, for the control stream.
    pub now_s: u64,
}

/// Why a link can't be appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendLinkError {
    /// The head is not the expected one (any more): nothing was changed.
    #[error("the membership's head has moved")]
    Conflict,
    /// The query failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

type ConversationColumns = (ConversationKey, Vec<u8>, i16, i64, Vec<u8>, Option<Vec<u8>>, i16);

const CONVERSATION_COLUMNS: (
    conversations::conversation_key,
    conversations::conversation_id,
    conversations::kind,
    conversations::m,
    conversations::head_hash,
    conversations::title,
    members::role,
) = (
    conversations::conversation_key,
    conversations::conversation_id,
    conversations::kind,
    conversations::m,
    conversations::head_hash,
    conversations::title,
    members::role,
);

fn conversation_row(
    (conversation_key, id, kind, m, head_hash, title, role): ConversationColumns,
) -> Result<ConversationRow, StorageError> {
    Ok(ConversationRow {
        conversation_key,
        conversation_id: read_id(&id)?,
        kind: read_enum(kind)?,
        m: read_u64(m)?,
        head_hash: read_id(&head_hash)?,
        title: title.map(Bytes::from),
        role: read_enum(role)?,
    })
}

/// Keeps others from changing the conversation until the transaction's end. What was read of it before may be old.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn lock(conn: &mut Conn, conversation_id: &ConversationId) -> Result<(), StorageError> {
    locks::conversation(conn, conversation_id)
}

/// Finds a conversation that the account is a member of. Foreign and missing ones are not told apart.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn by_id_for_member(
    conn: &mut Conn,
    conversation_id: &ConversationId,
    account_key: AccountKey,
) -> Result<Option<ConversationRow>, StorageError> {
    let row: Option<ConversationColumns> = on!(conn, c => members::table
        .inner_join(conversations::table)
        .filter(conversations::conversation_id.eq(conversation_id.as_bytes().as_slice()))
        .filter(members::account_key.eq(account_key))
        .select(CONVERSATION_COLUMNS)
        .first(c)
        .optional())?;
    row.map(conversation_row).transpose()
}

/// A conversation as somebody who wants to read its log needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberOf {
    /// Its public id.
    pub conversation_id: ConversationId,
    /// Its row.
    pub conversation_key: ConversationKey,
    /// Only a large one has a log.
    pub kind: ConversationKind,
    /// The log's head when the account joined: it reads what comes after.
    pub joined_seq: u64,
}

/// Those of the conversations that the account is a member of.
///
/// # Errors
/// [`StorageError`] if a query fails.
pub fn by_ids_for_member(
    conn: &mut Conn,
    conversation_ids: &[ConversationId],
    account_key: AccountKey,
) -> Result<Vec<MemberOf>, StorageError> {
    let mut found = Vec::with_capacity(conversation_ids.len());
    for ids in conversation_ids.chunks(KEYS_PER_QUERY) {
        let ids = ids.iter().map(|id| id.as_bytes().as_slice());
        let rows: Vec<(Vec<u8>, ConversationKey, i16, i64)> = on!(conn, c => conversations::table
            .inner_join(members::table)
            .filter(conversations::conversation_id.eq_any(ids))
            .filter(members::account_key.eq(account_key))
            .select((
                conversations::conversation_id,
                conversations::conversation_key,
                conversations::kind,
                members::joined_seq,
            ))
            .load(c))?;
        for (id, conversation_key, kind, joined_seq) in rows {
            let (conversation_id, kind, joined_seq) = (read_id(&id)?, read_enum(kind)?, read_u64(joined_seq)?);
            found.push(MemberOf { conversation_id, conversation_key, kind, joined_seq });
        }
    }
    Ok(found)
}

/// A page of the account's conversations by key, after the given one.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn page_for_member(
    conn: &mut Conn,
    account_key: AccountKey,
    after: Option<ConversationKey>,
    limit: u32,
) -> Result<Vec<ConversationRow>, StorageError> {
    let rows: Vec<ConversationColumns> = on!(conn, c => members::table
        .inner_join(conversations::table)
        .filter(members::account_key.eq(account_key))
        .filter(members::conversation_key.gt(after.unwrap_or(ConversationKey(0))))
        .order(members::conversation_key)
        .limit(limit.into())
        .select(CONVERSATION_COLUMNS)
        .load(c))?;
    rows.into_iter().map(conversation_row).collect()
}

/// The links after number `m`, in order.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn links_after(
    conn: &mut Conn,
    conversation_key: ConversationKey,
    m: u64,
) -> Result<Vec<SignedMembershipLink>, StorageError> {
    let rows: Vec<(Vec<u8>, Vec<u8>)> = on!(conn, c => membership_links::table
        .filter(membership_links::conversation_key.eq(conversation_key))
        .filter(membership_links::m.gt(store_u64(m)))
        .order(membership_links::m)
        .select((membership_links::link, membership_links::signature))
        .load(c))?;
    rows.into_iter()
        .map(|(link, signature)| Ok(SignedMembershipLink { link: link.into(), signature: read_id(&signature)? }))
        .collect()
}

/// How many members there are.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn member_count(conn: &mut Conn, conversation_key: ConversationKey) -> Result<u64, StorageError> {
    let count: i64 = on!(conn, c => members::table
        .filter(members::conversation_key.eq(conversation_key))
        .count()
        .get_result(c))?;
    read_u64(count)
}

/// A page of the members by account key, after the given one.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn members_after(
    conn: &mut Conn,
    conversation_key: ConversationKey,
    after: Option<AccountKey>,
    limit: u32,
) -> Result<Vec<PlainMember>, StorageError> {
    let rows: Vec<(Vec<u8>, i16)> = on!(conn, c => members::table
        .inner_join(accounts::table)
        .filter(members::conversation_key.eq(conversation_key))
        .filter(members::account_key.gt(after.unwrap_or(AccountKey(0))))
        .order(members::account_key)
        .limit(limit.into())
        .select((accounts::account_id, members::role))
        .load(c))?;
    rows.into_iter()
        .map(|(account_id, role)| Ok(PlainMember { account_id: read_id(&account_id)?, role: read_enum(role)? }))
        .collect()
}

/// The members, ordered by account key.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn members(conn: &mut Conn, conversation_key: ConversationKey) -> Result<Vec<MemberRow>, StorageError> {
    type Columns = (AccountKey, Vec<u8>, Vec<u8>, i16, i64, i64, Vec<u8>);
    let rows: Vec<Columns> = on!(conn, c => members::table
        .inner_join(accounts::table)
        .filter(members::conversation_key.eq(conversation_key))
        .order(members::account_key)
        .select((
            members::account_key,
            accounts::account_id,
            members::fingerprint,
            members::role,
            members::joined_m,
            accounts::list_n,
            accounts::list_hash,
        ))
        .load(c))?;
    rows.into_iter()
        .map(|(account_key, account_id, fingerprint, role, joined_m, list_n, list_hash)| {
            Ok(MemberRow {
                account_key,
                account_id: read_id(&account_id)?,
                fingerprint: read_id(&fingerprint)?,
                role: read_enum(role)?,
                joined_m: read_u64(joined_m)?,
                list_n: read_u64(list_n)?,
                list_hash: read_id(&list_hash)?,
            })
        })
        .collect()
}
