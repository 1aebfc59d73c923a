//! Conversations: creation, membership, titles.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::SignedMembershipLink;
use crate::{
    id::{AccountId, Blob, ConversationId, Hash},
    wire,
};

/// The kind of a conversation, fixed at its creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConversationKind {
    /// Two accounts, for ever.
    Direct,
    /// Fan-out on write.
    Group,
    /// A log that its members read: fan-out on read.
    Large,
}

impl From<ConversationKind> for wire::ConversationKind {
    fn from(kind: ConversationKind) -> Self {
        match kind {
            ConversationKind::Direct => Self::Direct,
            ConversationKind::Group => Self::Group,
            ConversationKind::Large => Self::Large,
        }
    }
}

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sends, reads, leaves.
    Member,
    /// Also adds and removes members, and sets the title.
    Admin,
    /// Also removes admins and gives roles.
    Owner,
}

impl From<Role> for wire::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Member => Self::Member,
            Role::Admin => Self::Admin,
            Role::Owner => Self::Owner,
        }
    }
}

/// Body of `POST /v1/conversations`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CreateConversation {
    /// Link 1, signed by the creator. Its SHA-256 becomes the conversation's id.
    pub creation: SignedMembershipLink,
    /// Opaque ciphertext, up to 1 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<Blob>,
}

/// Body of `POST /v1/conversations/{conversation_id}/membership`: add, remove, leave, give a role.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ChangeMembership {
    /// Link m+1.
    pub link: SignedMembershipLink,
}

/// Body of `PUT /v1/conversations/{conversation_id}/title`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SetTitle {
    /// Opaque ciphertext, up to 1 KiB.
    pub title: Blob,
}

/// A conversation as one of its members sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Conversation {
    /// SHA-256 of link 1.
    pub conversation_id: ConversationId,
    /// Fixed at creation.
    pub kind: ConversationKind,
    /// Number of the newest membership link.
    pub membership_m: u64,
    /// Its hash.
    pub membership_hash: Hash,
    /// Opaque ciphertext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<Blob>,
    /// The asker's role.
    pub role: Role,
    /// Every member; of a large conversation nobody: they are read page by page.
    pub members: Vec<ConversationMember>,
    /// How many members there are.
    #[serde(default)]
    pub member_count: u64,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConversationMember {
    /// Who.
    pub account_id: AccountId,
    /// What they may do.
    pub role: Role,
}

/// Query of `GET /v1/conversations/{conversation_id}/membership`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MembershipQuery {
    /// Only links after this number.
    #[serde(default)]
    pub after: u64,
}

/// Answer of the same.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MembershipLinks {
    /// In order.
    pub links: Vec<SignedMembershipLink>,
}
