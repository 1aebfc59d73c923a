//! One membership link: reading, making and signing it. Whether it may follow another is [`super::rules`]' to say.

use prost::Message as _;

use super::{MAX_CHANGES_PER_LINK, MembershipError};
use crate::{
    crypto::{Label, SigningKey, Transcript},
    id::{AccountId, ConversationId, DeviceId, Hash},
    rest::{ConversationKind, ListHead, Role, SignedMembershipLink},
    wire,
};

/// The device that signed a link and the list it stood in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signer {
    /// Whose device.
    pub account_id: AccountId,
    /// Which device.
    pub device_id: DeviceId,
    /// Number of the list.
    pub list_n: u64,
    /// Hash of the list.
    pub list_hash: Hash,
}

impl Signer {
    /// A device with its account's list head.
    #[must_use]
    pub fn new(device_id: DeviceId, head: &ListHead) -> Self {
        Self { account_id: head.account_id, device_id, list_n: head.n, list_hash: head.hash }
    }
}

/// An account in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Member {
    /// Who.
    pub account_id: AccountId,
    /// SHA-256 of the account's list 1.
    pub fingerprint: Hash,
    /// What it may do.
    pub role: Role,
}

/// One change of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MembershipChange {
    /// A new member.
    Add(Member),
    /// A member goes; removing oneself is leaving.
    Remove {
        /// Who.
        account_id: AccountId,
        /// As it was added.
        fingerprint: Hash,
    },
    /// A member gets another role.
    SetRole(Member),
}

impl MembershipChange {
    /// The account that it is about.
    #[must_use]
    pub const fn account_id(&self) -> &AccountId {
        match self {
            Self::Add(member) | Self::SetRole(member) => &member.account_id,
            Self::Remove { account_id, .. } => account_id,
        }
    }
}

/// Where a link stands: it begins a conversation or follows another link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkPlace {
    /// Link 1, the creation record.
    Creation {
        /// Fixed for ever.
        kind: ConversationKind,
        /// Random, so that two conversations of the same people differ.
        nonce: [u8; 32],
    },
    /// Link m.
    Change {
        /// SHA-256 of link 1.
        conversation_id: ConversationId,
        /// 2, 3 …
        m: u64,
        /// SHA-256 of link m-1.
        previous_hash: Hash,
    },
}

/// Link m of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MembershipLink {
    /// Where it stands.
    pub place: LinkPlace,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    /// Who signs it.
    pub signer: Signer,
    /// In order.
    pub changes: Vec<MembershipChange>,
}

impl MembershipLink {
    /// The record that creates a direct conversation of the signer's account with another.
    #[must_use]
    pub fn create_direct(
        nonce: [u8; 32],
        signer: Signer,
        own_fingerprint: Hash,
        other: AccountId,
        other_fingerprint: Hash,
        created_at_ms: u64,
    ) -> Self {
        let add =
            |account_id, fingerprint| MembershipChange::Add(Member { account_id, fingerprint, role: Role::Member });
        let changes = vec![add(signer.account_id, own_fingerprint), add(other, other_fingerprint)];
        let place = LinkPlace::Creation { kind: ConversationKind::Direct, nonce };
        Self { place, created_at_ms, signer, changes }
    }

    /// The record that creates a group; the signer's account becomes its owner.
    #[must_use]
    pub fn create_group(
        nonce: [u8; 32],
        signer: Signer,
        own_fingerprint: Hash,
        others: impl IntoIterator<Item = Member>,
        created_at_ms: u64,
    ) -> Self {
        let owner = Member { account_id: signer.account_id, fingerprint: own_fingerprint, role: Role::Owner };
        let changes = std::iter::once(owner).chain(others).map(MembershipChange::Add).collect();
        let place = LinkPlace::Creation { kind: ConversationKind::Group, nonce };
        Self { place, created_at_ms, signer, changes }
    }

    /// The same for a large conversation, whose members read a log.
    #[must_use]
    pub fn create_large(
        nonce: [u8; 32],
        signer: Signer,
        own_fingerprint: Hash,
        others: impl IntoIterator<Item = Member>,
        created_at_ms: u64,
    ) -> Self {
        let place = LinkPlace::Creation { kind: ConversationKind::Large, nonce };
        Self { place, ..Self::create_group(nonce, signer, own_fingerprint, others, created_at_ms) }
    }

    /// Its number.
    #[must_use]
    pub const fn m(&self) -> u64 {
        match self.place {
            LinkPlace::Creation { .. } => 1,
            LinkPlace::Change { m, .. } => m,
        }
    }

    /// The canonical bytes: to be signed once, then carried as they are.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut link = wire::MembershipLink {
            m: self.m(),
            created_at_ms: self.created_at_ms,
            signer: Some(wire::Signer {
                account_id: self.signer.account_id.to_wire(),
                device_id: self.signer.device_id.to_wire(),
                list_n: self.signer.list_n,
                list_hash: self.signer.list_hash.to_wire(),
            }),
            changes: self.changes.iter().map(change_to_wire).collect(),
            ..wire::MembershipLink::default()
        };
        match &self.place {
            LinkPlace::Creation { kind, nonce } => {
                link.set_kind((*kind).into());
                link.nonce = bytes::Bytes::copy_from_slice(nonce);
            }
            LinkPlace::Change { conversation_id, previous_hash, .. } => {
                link.conversation_id = conversation_id.to_wire();
                link.previous_hash = previous_hash.to_wire();
            }
        }
        link.encode_to_vec()
    }

    /// Reads link bytes **without verifying the signature**: form only. What it says is to be believed from a
    /// [`super::MembershipChain`].
    ///
    /// # Errors
    /// The [`MembershipError`]s about form.
    pub fn parse(bytes: &[u8]) -> Result<Self, MembershipError> {
        let read = wire::MembershipLink::decode(bytes).map_err(|_| MembershipError::Unreadable)?;
        let link = Self {
            place: place_from_wire(&read)?,
            created_at_ms: read.created_at_ms,
            signer: signer_from_wire(read.signer.as_ref().ok_or(MembershipError::Unreadable)?)?,
            changes: read.changes.iter().map(change_from_wire).collect::<Result<_, _>>()?,
        };
        if link.to_bytes() != bytes {
            return Err(MembershipError::NotCanonical);
        }
        if link.changes.is_empty() {
            return Err(MembershipError::Empty);
        }
        if link.changes.len() > MAX_CHANGES_PER_LINK {
            return Err(MembershipError::TooManyChanges);
        }
        let mut accounts: Vec<_> = link.changes.iter().map(MembershipChange::account_id).collect();
        accounts.sort();
        let twice = accounts.windows(2).any(|pair| pair[0] == pair[1]);
        if twice { Err(MembershipError::DuplicateMember) } else { Ok(link) }
    }

    /// Encodes the link once and signs those bytes.
    #[must_use]
    pub fn sign(&self, signer: &SigningKey) -> SignedMembershipLink {
        sign_link(self.to_bytes(), signer)
    }
}

/// Signs link bytes as the device that the link names.
#[must_use]
pub fn sign_link(bytes: Vec<u8>, signer: &SigningKey) -> SignedMembershipLink {
    let signature = signer.sign(&link_transcript(&bytes));
    SignedMembershipLink { link: bytes.into(), signature }
}

pub(super) fn link_transcript(bytes: &[u8]) -> Transcript {
    Transcript::new(Label::Membership).variable(bytes)
}

fn place_from_wire(link: &wire::MembershipLink) -> Result<LinkPlace, MembershipError> {
    if link.m == 1 {
        let kind = match link.kind() {
            wire::ConversationKind::Direct => ConversationKind::Direct,
            wire::ConversationKind::Group => ConversationKind::Group,
            wire::ConversationKind::Large => ConversationKind::Large,
            _ => return Err(MembershipError::UnknownKind),
        };
        if !link.conversation_id.is_empty() || !link.previous_hash.is_empty() {
            return Err(MembershipError::WrongForm);
        }
        let nonce = link.nonce.as_ref().try_into().map_err(|_| MembershipError::Unreadable)?;
        return Ok(LinkPlace::Creation { kind, nonce });
    }
    if link.kind != 0 || !link.nonce.is_empty() {
        return Err(MembershipError::WrongForm);
    }
    Ok(LinkPlace::Change {
        conversation_id: link.conversation_id.as_ref().try_into().map_err(unreadable)?,
        m: link.m,
        previous_hash: link.previous_hash.as_ref().try_into().map_err(unreadable)?,
    })
}

fn signer_from_wire(signer: &wire::Signer) -> Result<Signer, MembershipError> {
    Ok(Signer {
        account_id: signer.account_id.as_ref().try_into().map_err(unreadable)?,
        device_id: signer.device_id.as_ref().try_into().map_err(unreadable)?,
        list_n: signer.list_n,
        list_hash: signer.list_hash.as_ref().try_into().map_err(unreadable)?,
    })
}

fn change_to_wire(change: &MembershipChange) -> wire::MembershipChange {
    let (action, account_id, fingerprint, role) = match change {
        MembershipChange::Add(member) => {
            (wire::MembershipAction::Add, member.account_id, member.fingerprint, member.role.into())
        }
        MembershipChange::Remove { account_id, fingerprint } => {
            (wire::MembershipAction::Remove, *account_id, *fingerprint, wire::Role::Unspecified)
        }
        MembershipChange::SetRole(member) => {
            (wire::MembershipAction::SetRole, member.account_id, member.fingerprint, member.role.into())
        }
    };
    wire::MembershipChange {
        action: action.into(),
        member: Some(wire::Member {
            account_id: account_id.to_wire(),
            fingerprint: fingerprint.to_wire(),
            role: role.into(),
        }),
    }
}

fn change_from_wire(change: &wire::MembershipChange) -> Result<MembershipChange, MembershipError> {
    let member = change.member.as_ref().ok_or(MembershipError::Unreadable)?;
    let account_id = member.account_id.as_ref().try_into().map_err(unreadable)?;
    let fingerprint = member.fingerprint.as_ref().try_into().map_err(unreadable)?;
    let with_role = || {
        let role = match member.role() {
            wire::Role::Member => Role::Member,
            wire::Role::Admin => Role::Admin,
            wire::Role::Owner => Role::Owner,
            wire::Role::Unspecified => return Err(MembershipError::Unreadable),
        };
        Ok(Member { account_id, fingerprint, role })
    };
    match change.action() {
        wire::MembershipAction::Add => with_role().map(MembershipChange::Add),
        wire::MembershipAction::SetRole => with_role().map(MembershipChange::SetRole),
        wire::MembershipAction::Remove => Ok(MembershipChange::Remove { account_id, fingerprint }),
        wire::MembershipAction::Unspecified => Err(MembershipError::Unreadable),
    }
}

fn unreadable(_: crate::id::InvalidText) -> MembershipError {
    MembershipError::Unreadable
}
