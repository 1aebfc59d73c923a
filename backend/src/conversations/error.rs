//! Why something about a conversation was refused. Every variant but the store's own means: nothing was changed.

use martlet_protocol::{
    chain::members::MembershipError,
    id::ConversationId,
    problem::Code,
    rest::{SignedDeviceList, SignedMembershipLink, TwoCursors},
};
use martlet_storage::{
    StorageError,
    conversations::{AppendLinkError, CreateError},
};

/// A refusal about conversations and memberships.
#[derive(Debug, thiserror::Error)]
pub enum ConversationError {
    /// Missing, or the asker is no member: never told apart.
    #[error("there is no such conversation")]
    NotFound,
    /// The asker's role does not allow it.
    #[error("your role does not allow this")]
    Forbidden,
    /// The link breaks a rule of the chain.
    #[error("membership link: {0}")]
    Link(MembershipError),
    /// The link is sound, but not what the node takes here.
    #[error("membership link: {0}")]
    LinkUnfit(&'static str),
    /// The link does not extend the head: these come after the one it extends.
    #[error("the membership has moved on")]
    LinkConflict(Vec<SignedMembershipLink>),
    /// The signer's account has a newer device list than the link names: these come after the named one.
    #[error("the signer's device list has moved on")]
    ListConflict(Vec<SignedDeviceList>),
    /// The two accounts have this direct conversation already.
    #[error("the two have a direct conversation already")]
    Exists(ConversationId),
    /// Over `conversations.max_members_group`.
    #[error("a conversation has at most {allowed} members here")]
    TooManyMembers {
        /// The limit.
        allowed: usize,
    },
    /// A title over its size.
    #[error("a title has at most {allowed} bytes")]
    TitleTooLong {
        /// The limit.
        allowed: usize,
    },
    /// A cursor that no page gave.
    #[error("the cursor is not one of this list; begin without one")]
    CursorUnknown,
    /// Only large conversations have a log.
    #[error("this conversation has no log: its messages come to each device's mailbox")]
    NoLog,
    /// Both directions at once.
    #[error(transparent)]
    TwoCursors(#[from] TwoCursors),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl ConversationError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound | Self::NoLog => Code::NotFound,
            Self::Forbidden | Self::Link(MembershipError::Forbidden) => Code::Forbidden,
            Self::Link(MembershipError::BadSignature) => Code::SignatureInvalid,
            Self::Link(MembershipError::LastOwner) => Code::LastOwner,
            Self::Link(_) | Self::LinkUnfit(_) => Code::MembershipInvalid,
            Self::LinkConflict(_) => Code::MembershipConflict,
            Self::ListConflict(_) => Code::DeviceListConflict,
            Self::Exists(_) => Code::ConversationExists,
            Self::TooManyMembers { .. } => Code::TooManyMembers,
            Self::TitleTooLong { .. } => Code::TextInvalid,
            Self::CursorUnknown | Self::TwoCursors(_) => Code::Malformed,
            Self::Storage(StorageError::Busy) => Code::Busy,
            Self::Storage(error) if error.may_pass() => Code::Unavailable,
            Self::Storage(_) => Code::Internal,
        }
    }
}

impl From<CreateError> for ConversationError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Exists { conversation_id } => Self::Exists(conversation_id),
            CreateError::Storage(error) => Self::Storage(error),
        }
    }
}

impl From<AppendLinkError> for ConversationError {
    fn from(error: AppendLinkError) -> Self {
        match error {
            // Read and appended in one transaction, so the head can't move in between.
            AppendLinkError::Conflict => Self::Storage(StorageError::Inconsistent("a head moved within a transaction")),
            AppendLinkError::Storage(error) => Self::Storage(error),
        }
    }
}
