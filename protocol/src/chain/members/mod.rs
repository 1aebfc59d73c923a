//! A conversation's membership: a chain of links, each signed by a device of a member, so that the server can't add a ghost.
//!
//! Link 1 is the creation record: its SHA-256 is the conversation's id. Every later link names the conversation, its number m and
//! the hash of link m-1. The signer is named in the link, with the device list (n, hash) it stood in.
//!
//! ```text
//! signature input = "martlet/v1/membership\0" ‖ link bytes (length-prefixed, u32 big-endian)
//! ```
//! The bytes are canonical as those of device lists are.
//!
//! | | may |
//! |---|---|
//! | member | leave |
//! | admin | also add members (as members), remove members |
//! | owner | also add with any role, remove anybody, set roles |
//!
//! A conversation that has members has an owner, unless it is direct: that names two accounts, both plain members, for ever.
//! It does not check who the accounts are: clients compare each fingerprint with the one they pinned.

mod link;
mod rules;

pub use link::{LinkPlace, Member, MembershipChange, MembershipLink, Signer, sign_link};
pub use rules::{MemberState, MembershipChain, SignerKey};

/// Most changes that one link may make.
pub const MAX_CHANGES_PER_LINK: usize = 1024;

/// Why a membership link was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Not protobuf, a field of the wrong length, an unknown action or role.
    #[error("the link can't be read")]
    Unreadable,
    /// Readable, but not the bytes that encoding it gives.
    #[error("the link is not in canonical form")]
    NotCanonical,
    /// A kind of conversation that has no membership of this form.
    #[error("the kind of conversation is not known")]
    UnknownKind,
    /// Fields that belong to link 1 elsewhere, or missing there.
    #[error("the link mixes a creation record with a change")]
    WrongForm,
    /// Of another conversation.
    #[error("the link is of another conversation")]
    WrongConversation,
    /// Not newer than the head: rolled back or repeated.
    #[error("the link is not newer than the one known")]
    Shorter,
    /// Not the head's number plus one.
    #[error("the link has number {given} where {expected} is due")]
    WrongNumber {
        /// The number that must come.
        expected: u64,
        /// The number that came.
        given: u64,
    },
    /// Names another predecessor than the head.
    #[error("the link is on another branch")]
    OtherBranch,
    /// No change at all.
    #[error("the link changes nothing")]
    Empty,
    /// Over [`MAX_CHANGES_PER_LINK`].
    #[error("the link has too many changes")]
    TooManyChanges,
    /// An account named twice in one link.
    #[error("the link names an account twice")]
    DuplicateMember,
    /// The signer is no member.
    #[error("the signer is not a member")]
    SignerNotMember,
    /// The signer's device or list is not known, or the device is not in that list.
    #[error("the signer's device is not known")]
    SignerUnknown,
    /// The signer's account has another fingerprint than the membership names.
    #[error("the signer's account is not the one that is a member")]
    SignerFingerprint,
    /// The signature does not verify.
    #[error("the signature is not valid")]
    BadSignature,
    /// The signer's role does not allow a change.
    #[error("the signer's role does not allow this")]
    Forbidden,
    /// Adds an account that is a member.
    #[error("the account is a member already")]
    AlreadyMember,
    /// Removes or promotes an account that is no member.
    #[error("the account is not a member")]
    NotMember,
    /// Names a member with another fingerprint than it was added with.
    #[error("the fingerprint is not the member's")]
    WrongFingerprint,
    /// A direct conversation never changes.
    #[error("a direct conversation's members are fixed")]
    DirectIsFixed,
    /// A direct conversation must name exactly two accounts, both plain members.
    #[error("a direct conversation has exactly two members")]
    DirectForm,
    /// The creator must be a member, in a group its only owner.
    #[error("the creator must be the only owner")]
    CreatorNotOwner,
    /// Members would be left without an owner.
    #[error("the last owner can't go while others stay")]
    LastOwner,
}
