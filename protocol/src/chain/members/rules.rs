//! The verified state of a conversation's membership, and what a link must satisfy to change it.

use std::collections::BTreeMap;

use super::{
    LinkPlace, MembershipChange, MembershipError, MembershipLink, Signer,
    link::{Member, link_transcript},
};
use crate::{
    crypto::verify,
    id::{AccountId, ConversationId, Hash, PublicKey},
    rest::{ConversationKind, Role, SignedMembershipLink},
    wire,
};

/// What a resolver finds for a link's signer ([`crate::chain::devices::DeviceChain::signer_key`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignerKey {
    /// Ed25519, from the list that the link names.
    pub signing_key: PublicKey,
    /// Of the chain that the list belongs to; compared with the member's.
    pub fingerprint: Hash,
}

/// A member as the chain has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemberState {
    /// SHA-256 of the account's list 1.
    pub fingerprint: Hash,
    /// What it may do.
    pub role: Role,
}

/// A membership whose every link was verified, or a state that its keeper had verified before.
///
/// The fields are open for a keeper that reads it back from its own store ([`Self::trusted`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipChain {
    /// SHA-256 of link 1.
    pub conversation_id: ConversationId,
    /// Fixed by link 1.
    pub kind: ConversationKind,
    /// Number of the newest link.
    pub m: u64,
    /// Hash of the newest link.
    pub hash: Hash,
    /// Who is a member now.
    pub members: BTreeMap<AccountId, MemberState>,
}

impl MembershipChain {
    /// Starts a chain with the creation record. `resolve` finds the signer's key in the list that the link names.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub fn create(
        signed: &SignedMembershipLink,
        resolve: impl Fn(&Signer) -> Option<SignerKey>,
    ) -> Result<Self, MembershipError> {
        let link = MembershipLink::parse(&signed.link.0)?;
        let LinkPlace::Creation { kind, .. } = link.place else {
            return Err(MembershipError::WrongNumber { expected: 1, given: link.m() });
        };
        let members = first_members(&link)?;
        check_creator(kind, &link.signer, &members)?;
        check_signature(signed, &link.signer, &members, resolve)?;
        let hash = Hash::of(&signed.link.0);
        Ok(Self { conversation_id: ConversationId::new(*hash.as_bytes()), kind, m: 1, hash, members })
    }

    /// The chain with one link more.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub fn extend(
        &self,
        signed: &SignedMembershipLink,
        resolve: impl Fn(&Signer) -> Option<SignerKey>,
    ) -> Result<Self, MembershipError> {
        let link = MembershipLink::parse(&signed.link.0)?;
        self.check_place(&link)?;
        if self.kind == ConversationKind::Direct {
            return Err(MembershipError::DirectIsFixed);
        }
        let actor = self.members.get(&link.signer.account_id).ok_or(MembershipError::SignerNotMember)?;
        check_signature(signed, &link.signer, &self.members, resolve)?;
        let mut members = self.members.clone();
        for change in &link.changes {
            apply(change, &link.signer.account_id, actor.role, &mut members)?;
        }
        if !members.is_empty() && !members.values().any(|member| member.role == Role::Owner) {
            return Err(MembershipError::LastOwner);
        }
        Ok(Self { m: link.m(), hash: Hash::of(&signed.link.0), members, ..*self })
    }

    /// Verifies a whole chain, from the creation record.
    ///
    /// # Errors
    /// [`MembershipError`] of the first link that is refused; [`MembershipError::Empty`] if there is none.
    pub fn replay<'a>(
        links: impl IntoIterator<Item = &'a SignedMembershipLink>,
        resolve: impl Fn(&Signer) -> Option<SignerKey>,
    ) -> Result<Self, MembershipError> {
        let mut links = links.into_iter();
        let first = Self::create(links.next().ok_or(MembershipError::Empty)?, &resolve)?;
        links.try_fold(first, |chain, signed| chain.extend(signed, &resolve))
    }

    /// A state that its keeper verified before it stored it. Only for one's own store.
    #[must_use]
    pub fn trusted(
        conversation_id: ConversationId,
        kind: ConversationKind,
        m: u64,
        hash: Hash,
        members: impl IntoIterator<Item = Member>,
    ) -> Self {
        let members = members
            .into_iter()
            .map(|member| (member.account_id, MemberState { fingerprint: member.fingerprint, role: member.role }))
            .collect();
        Self { conversation_id, kind, m, hash, members }
    }

    /// The head as messages name it.
    #[must_use]
    pub fn head(&self) -> wire::MembershipHead {
        wire::MembershipHead { m: self.m, hash: self.hash.to_wire() }
    }

    /// A link after this head, to be signed.
    #[must_use]
    pub fn change(&self, signer: Signer, changes: Vec<MembershipChange>, created_at_ms: u64) -> MembershipLink {
        let place =
            LinkPlace::Change { conversation_id: self.conversation_id, m: self.m + 1, previous_hash: self.hash };
        MembershipLink { place, created_at_ms, signer, changes }
    }

    /// The change that removes a member, or none if the account is none.
    #[must_use]
    pub fn removal(&self, account_id: &AccountId) -> Option<MembershipChange> {
        let member = self.members.get(account_id)?;
        Some(MembershipChange::Remove { account_id: *account_id, fingerprint: member.fingerprint })
    }

    fn check_place(&self, link: &MembershipLink) -> Result<(), MembershipError> {
        let expected = self.m + 1;
        match &link.place {
            LinkPlace::Creation { .. } => Err(MembershipError::Shorter),
            LinkPlace::Change { conversation_id, .. } if *conversation_id != self.conversation_id => {
                Err(MembershipError::WrongConversation)
            }
            LinkPlace::Change { m, .. } if *m < expected => Err(MembershipError::Shorter),
            LinkPlace::Change { m, .. } if *m > expected => Err(MembershipError::WrongNumber { expected, given: *m }),
            LinkPlace::Change { previous_hash, .. } if *previous_hash != self.hash => Err(MembershipError::OtherBranch),
            LinkPlace::Change { .. } => Ok(()),
        }
    }
}

fn first_members(link: &MembershipLink) -> Result<BTreeMap<AccountId, MemberState>, MembershipError> {
    link.changes
        .iter()
        .map(|change| match change {
            MembershipChange::Add(Member { account_id, fingerprint, role }) => {
                Ok((*account_id, MemberState { fingerprint: *fingerprint, role: *role }))
            }
            MembershipChange::Remove { .. } | MembershipChange::SetRole(_) => Err(MembershipError::NotMember),
        })
        .collect()
}

fn check_creator(
    kind: ConversationKind,
    signer: &Signer,
    members: &BTreeMap<AccountId, MemberState>,
) -> Result<(), MembershipError> {
    let creator = members.get(&signer.account_id).ok_or(MembershipError::SignerNotMember)?;
    match kind {
        ConversationKind::Direct => {
            let plain = members.values().all(|member| member.role == Role::Member);
            if plain && members.len() == 2 { Ok(()) } else { Err(MembershipError::DirectForm) }
        }
        ConversationKind::Group | ConversationKind::Large => {
            let owners = members.values().filter(|member| member.role == Role::Owner).count();
            if creator.role == Role::Owner && owners == 1 { Ok(()) } else { Err(MembershipError::CreatorNotOwner) }
        }
    }
}

/// The signer must be the member that the chain knows, by fingerprint, and a device of the list it names.
fn check_signature(
    signed: &SignedMembershipLink,
    signer: &Signer,
    members: &BTreeMap<AccountId, MemberState>,
    resolve: impl Fn(&Signer) -> Option<SignerKey>,
) -> Result<(), MembershipError> {
    let member = members.get(&signer.account_id).ok_or(MembershipError::SignerNotMember)?;
    let found = resolve(signer).ok_or(MembershipError::SignerUnknown)?;
    if found.fingerprint != member.fingerprint {
        return Err(MembershipError::SignerFingerprint);
    }
    verify(&found.signing_key, &link_transcript(&signed.link.0), &signed.signature)
        .map_err(|_| MembershipError::BadSignature)
}

/// Applies one change. The actor's role is the one from before the link: nobody can raise itself and use it in one go.
fn apply(
    change: &MembershipChange,
    actor: &AccountId,
    actor_role: Role,
    members: &mut BTreeMap<AccountId, MemberState>,
) -> Result<(), MembershipError> {
    let target = members.get(change.account_id()).copied();
    let allowed = match (change, &target) {
        (MembershipChange::Add(_), Some(_)) => return Err(MembershipError::AlreadyMember),
        (MembershipChange::Add(new), None) => {
            actor_role == Role::Owner || (actor_role == Role::Admin && new.role == Role::Member)
        }
        (_, None) => return Err(MembershipError::NotMember),
        (MembershipChange::Remove { account_id, fingerprint }, Some(old)) => {
            check_fingerprint(fingerprint, old)?;
            account_id == actor || actor_role == Role::Owner || (actor_role == Role::Admin && old.role == Role::Member)
        }
        (MembershipChange::SetRole(new), Some(old)) => {
            check_fingerprint(&new.fingerprint, old)?;
            actor_role == Role::Owner
        }
    };
    if !allowed {
        return Err(MembershipError::Forbidden);
    }
    match change {
        MembershipChange::Add(member) | MembershipChange::SetRole(member) => {
            members.insert(member.account_id, MemberState { fingerprint: member.fingerprint, role: member.role });
        }
        MembershipChange::Remove { account_id, .. } => {
            members.remove(account_id);
        }
    }
    Ok(())
}

fn check_fingerprint(given: &Hash, member: &MemberState) -> Result<(), MembershipError> {
    if *given == member.fingerprint { Ok(()) } else { Err(MembershipError::WrongFingerprint) }
}
