//! Conversations, their membership chains and members.

use bytes::Bytes;
use martlet_protocol::{
    id::{AccountId, ConversationId, Hash},
    rest::SignedMembershipLink,
    wire::{ConversationKind, Role},
};

use super::{AccountKey, Conn, ConversationKey, StorageError};

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

/// Creates a conversation with link 1 and its members.
///
/// # Errors
/// [`CreateError`]; the transaction must then be rolled back.
pub fn create(conn: &mut Conn, new: &NewConversation<'_>) -> Result<ConversationKey, CreateError> {
    todo!()
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
    todo!()
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
    todo!()
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
    todo!()
}

/// Appends a link, applies its changes and appends `MembershipChanged` to the control stream.
///
/// # Errors
/// [`AppendLinkError`]; the transaction must then be rolled back.
pub fn append_link(conn: &mut Conn, append: &AppendLink<'_>) -> Result<(), AppendLinkError> {
    todo!()
}

/// Sets or clears the title.
///
/// # Errors
/// [`StorageError::Inconsistent`] if there is no such conversation.
pub fn set_title(
    conn: &mut Conn,
    conversation_key: ConversationKey,
    title: Option<&[u8]>,
) -> Result<(), StorageError> {
    todo!()
}

/// The members, ordered by account key.
///
/// # Errors
/// [`StorageError`] if the query fails.
pub fn members(conn: &mut Conn, conversation_key: ConversationKey) -> Result<Vec<MemberRow>, StorageError> {
    todo!()
}
