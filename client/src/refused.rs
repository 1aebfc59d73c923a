//! What a dishonest server (or device) is caught at: one variant per attack, so that users can be told what happened and tests can
//! tell which check held.

use martlet_protocol::{
    chain::{devices::ListError, members::MembershipError},
    crypto::PrekeyError,
};

/// A field that stands both in the envelope, which the server writes, and in the signed plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EnvelopeField {
    /// Who is said to have sent.
    Sender,
    /// Where it is said to belong.
    Conversation,
    /// The sender's own id of the message.
    ClientMessageId,
    /// The suite, in the envelope, the content or the plaintext.
    Suite,
}

/// Something that clients don't accept. Nothing of it was stored, and no key was used up by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A list chain that ends before the head that is known, or before one that a device signed.
    #[error("the server shows an older device list than one that is known")]
    ListRolledBack,
    /// Two lists of one number: both can't be true.
    #[error("there are two different device lists of one number; compare safety numbers before going on")]
    ListForked,
    /// A list that breaks the chain's rules: an unsigned device, a removed signer, another account.
    #[error("a device list was refused: {0}")]
    ListInvalid(ListError),
    /// A chain that starts with another list 1 than the one pinned or named by a member.
    #[error("the account is not the one that it was: its fingerprint has changed")]
    FingerprintChanged,
    /// Sending is stopped until a human has looked: the account showed a second list 1, or a second branch.
    #[error("sending is stopped: an account in this conversation showed two device lists")]
    AccountDisputed,

    /// A prekey that its device did not sign: swapped by somebody.
    #[error("a prekey is not signed by the device that it is said to be of")]
    PrekeyNotVouchedFor,
    /// Past its life.
    #[error("a prekey has expired")]
    PrekeyExpired,
    /// Of another kind, suite or account than it was asked for, or weak.
    #[error("a prekey can't be used: {0}")]
    PrekeyUnfit(PrekeyError),
    /// The same one-time key a second time.
    #[error("the server gave out a one-time prekey twice")]
    PrekeyRepeated,

    /// Keys for a device that no signed list holds: a ghost.
    #[error("the server names a device that no signed list holds")]
    RecipientNotListed,
    /// A listed device is to be left out without a signed list that removes it.
    #[error("the server wants a listed device left out")]
    DeviceHidden,
    /// A mismatch that brings nothing new, so that trying again can't help.
    #[error("the server refuses a message and brings no signed reason")]
    MismatchUnexplained,

    /// A membership that ends before the link that is known.
    #[error("the server shows an older membership than one that is known")]
    MembershipRolledBack,
    /// Two links of one number.
    #[error("there are two different memberships of one number")]
    MembershipForked,
    /// A link that breaks the chain's rules: unsigned, or by somebody whose role does not allow it.
    #[error("a membership link was refused: {0}")]
    MembershipInvalid(MembershipError),
    /// A new link by a removed device, under a list that is older than one its account was known by in this conversation.
    #[error("a membership link comes from a device that was removed")]
    MembershipSignerRemoved,
    /// The same by a device that is still listed.
    #[error("a membership link names an older device list than its account had before")]
    MembershipListOlder,

    /// A mailbox entry that no node sealed for this device and entry.
    #[error("a mailbox entry is not sealed for this device")]
    SealBroken,
    /// The envelope differs from what the sender signed or sealed.
    #[error("an envelope was altered: {0:?}")]
    EnvelopeAltered(EnvelopeField),
    /// The same fork once more under a new message id.
    #[error("a message was delivered again as if it were new")]
    ForkReplayed,
    /// A fork of another conversation.
    #[error("a message was moved here from another conversation")]
    ForkMoved,
    /// A header that was not sealed for this device, message and content.
    #[error("a message's header was not sealed for this device and message")]
    ForkNotForThisDevice,
    /// The one-time key was used up and deleted.
    #[error("the message needs a one-time key that was used up before")]
    PrekeyUsedUp,
    /// A prekey this device never had, or one that has been deleted for age.
    #[error("the message needs a key that this device does not have (any more)")]
    PrekeyUnknown,
    /// The header's key is not the one that the content commits to: a second key for one content.
    #[error("a message's key is not the one that its content commits to")]
    ContentCommitmentBroken,
    /// The content does not decrypt under the key that it commits to.
    #[error("a message's content was altered")]
    ContentAltered,
    /// Padding or plaintext that is not of the schema: a broken or malicious sender.
    #[error("a message can't be read")]
    PlaintextUnreadable,
    /// Not signed by the device that it names.
    #[error("a message is not signed by its sender")]
    SignatureInvalid,
    /// The sending device is not in the list that the message names.
    #[error("a message comes from a device that is not listed")]
    SenderNotListed,
    /// The sender's account is no member at the membership that the message names.
    #[error("a message comes from an account that is not a member")]
    SenderNotMember,
    /// This device, with these keys, is not in the list that the message names for its own account.
    #[error("a message was not meant for this device")]
    NotARecipient,
    /// The lists that the message names are not those of the conversation's members.
    #[error("a message names other recipients than the conversation has")]
    RecipientsWrong,
    /// The server does not show a list or membership that a signed message names.
    #[error("the server keeps back a device list or membership that a message names")]
    ChainWithheld,
    /// A counter that stands before one from the same device, with other bytes.
    #[error("a device used one message number for two messages")]
    CounterReused,
    /// A message that was signed as ephemeral came as a stored one, or the other way round, or says what its kind never says.
    #[error("a stored message was passed off as an ephemeral one, or an ephemeral one as stored")]
    EphemeralConfused,
    /// A message of a device that has been removed: it is kept apart, and nothing is done for it.
    #[error("a message comes from a device that was removed")]
    DeviceRemoved,
    /// A resend request by somebody who may not have the message.
    #[error("a resend request comes from a device that may not have the message")]
    ResendNotAllowed,

    /// The offer is not the one whose hash the code carries.
    #[error("the server showed another device than the one whose code was read")]
    LinkOfferSwapped,
    /// The answer was not sealed by the device that read the code.
    #[error("the link was not answered by the device that read the code")]
    LinkAnswerForged,
}

impl From<ListError> for Refused {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Shorter => Self::ListRolledBack,
            ListError::OtherBranch => Self::ListForked,
            other => Self::ListInvalid(other),
        }
    }
}

impl From<MembershipError> for Refused {
    fn from(error: MembershipError) -> Self {
        match error {
            MembershipError::Shorter => Self::MembershipRolledBack,
            MembershipError::OtherBranch => Self::MembershipForked,
            other => Self::MembershipInvalid(other),
        }
    }
}

impl From<PrekeyError> for Refused {
    fn from(error: PrekeyError) -> Self {
        match error {
            PrekeyError::Signature => Self::PrekeyNotVouchedFor,
            PrekeyError::Expired => Self::PrekeyExpired,
            PrekeyError::ListTooOld => Self::ListRolledBack,
            PrekeyError::OtherBranch => Self::ListForked,
            PrekeyError::DeviceNotListed => Self::RecipientNotListed,
            PrekeyError::Suite | PrekeyError::Weak | PrekeyError::Kind => Self::PrekeyUnfit(error),
        }
    }
}
