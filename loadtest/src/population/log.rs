//! A large conversation's membership chain: its links, signed by its owner, each checked as a node checks it.

use anyhow::Result;
use martlet_client::identity::NewAccount;
use martlet_protocol::{
    chain::members::{MAX_CHANGES_PER_LINK, Member, MembershipChain, MembershipChange, MembershipLink, Signer},
    id::{ConversationId, Hash},
    rest::{Role, SignedMembershipLink},
};
use rand::{Rng as _, rngs::StdRng};

/// See the module.
pub struct Log {
    /// From link 1.
    pub links: Vec<SignedMembershipLink>,
    /// The owner, and all others in the order in which they were added.
    pub members: Vec<Member>,
    chain: MembershipChain,
}

impl Log {
    /// Signs as many links as it takes to add all members.
    ///
    /// # Errors
    /// When a link is not valid, which does not happen.
    pub fn make(
        owner: &NewAccount,
        others: impl IntoIterator<Item = Member>,
        now_ms: u64,
        rng: &mut StdRng,
    ) -> Result<Self> {
        let fingerprint = owner.chain.fingerprint();
        let own = Member { account_id: owner.keys.account_id, fingerprint, role: Role::Owner };
        let members: Vec<Member> = std::iter::once(own).chain(others).collect();
        let signer = || owner.keys.signer(&owner.chain.head());
        let resolve = |of: &Signer| owner.chain.signer_key(of);
        let mut parts = members.chunks(MAX_CHANGES_PER_LINK);
        let mut nonce = [0; 32];
        rng.fill_bytes(&mut nonce);
        // The owner is one of the first link's.
        let first = parts.next().into_iter().flatten().skip(1).copied();
        let link = MembershipLink::create_large(nonce, signer(), fingerprint, first, now_ms);
        let mut links = vec![link.sign(&owner.keys.signing)];
        let mut chain = MembershipChain::create(&links[0], resolve)?;
        for part in parts {
            let changes = part.iter().copied().map(MembershipChange::Add).collect();
            let link = chain.change(signer(), changes, now_ms).sign(&owner.keys.signing);
            chain = chain.extend(&link, resolve)?;
            links.push(link);
        }
        Ok(Self { links, members, chain })
    }

    /// An account as a member without rights.
    #[must_use]
    pub fn plain(account: &NewAccount) -> Member {
        let fingerprint = account.chain.fingerprint();
        Member { account_id: account.keys.account_id, fingerprint, role: Role::Member }
    }

    /// The conversation's id.
    #[must_use]
    pub fn id(&self) -> ConversationId {
        self.chain.conversation_id
    }

    /// The newest link's hash.
    #[must_use]
    pub fn head(&self) -> Hash {
        self.chain.hash
    }

    /// The link that added the member at this place.
    #[must_use]
    pub fn joined_m(at: usize) -> u64 {
        (at / MAX_CHANGES_PER_LINK) as u64 + 1
    }
}

#[cfg(test)]
mod tests {
    use martlet_protocol::id::AccountId;
    use rand::SeedableRng as _;

    use super::{super::template::new_account, *};

    #[test]
    fn all_members_are_in_the_chain_where_they_are_said_to_have_joined() {
        let mut rng = StdRng::seed_from_u64(7);
        let owner = new_account("owner", 1_700_000_000_000, &mut rng).expect("an account");
        let other = |n: u32| {
            let mut account_id = [0; 16];
            account_id[..4].copy_from_slice(&n.to_be_bytes());
            Member { account_id: AccountId::new(account_id), fingerprint: Hash::of(&account_id), role: Role::Member }
        };
        let count = u32::try_from(2 * MAX_CHANGES_PER_LINK).expect("fits");
        let log = Log::make(&owner, (1..=count).map(other), 1_700_000_000_000, &mut rng).expect("a log");
        assert_eq!(log.links.len(), 3);
        assert_eq!(log.chain.members.len(), log.members.len());
        for (at, member) in log.members.iter().enumerate() {
            assert!(log.chain.members.contains_key(&member.account_id));
            let link = &log.links[usize::try_from(Log::joined_m(at)).expect("fits") - 1];
            let link = MembershipLink::parse(&link.link.0).expect("a link");
            assert!(link.changes.iter().any(|change| *change.account_id() == member.account_id), "{at}");
        }
        let replayed = MembershipChain::replay(&log.links, |of| owner.chain.signer_key(of)).expect("valid");
        assert_eq!((replayed.conversation_id, replayed.hash), (log.id(), log.head()));
    }
}
