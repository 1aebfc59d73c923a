//! Memberships: what a link may change and who may sign it, with one case at least for every refusal.

mod refusals;

pub use refusals::{add, refusals};

use martlet_protocol::{
    chain::members::{
        Member, MembershipChain, MembershipChange, MembershipError, MembershipLink, Signer, SignerKey, sign_link,
    },
    id::Hash,
    rest::{ConversationKind, Role, SignedMembershipLink},
    wire,
};
use prost::Message as _;
use rand_chacha::ChaCha20Rng;

use crate::world::{Account, NOW_MS, rng};
use refusals::set_role;

/// A group of Alice (owner), Bob (admin), Carol and Dave (members), a direct conversation of Alice and Bob, and Erin outside.
pub struct World {
    pub accounts: Vec<Account>,
    pub creation: SignedMembershipLink,
    pub group: MembershipChain,
    pub direct_creation: SignedMembershipLink,
    pub direct: MembershipChain,
}

pub const ALICE: usize = 0;
pub const BOB: usize = 1;
pub const CAROL: usize = 2;
pub const DAVE: usize = 3;
pub const ERIN: usize = 4;

/// What a refused link is tried on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    Nothing,
    Group,
    Direct,
}

impl World {
    pub fn new(rng: &mut ChaCha20Rng) -> Self {
        let accounts: Vec<_> = (0..5).map(|_| Account::new(rng)).collect();
        let member = |who: usize, role| member(&accounts[who], role);
        let (alice, bob) = (&accounts[ALICE], &accounts[BOB]);
        let others = [member(BOB, Role::Admin), member(CAROL, Role::Member), member(DAVE, Role::Member)];
        let creation = MembershipLink::create_group([3; 32], alice.signer(), alice.chain.fingerprint(), others, NOW_MS)
            .sign(&alice.devices[0].signing);
        let direct_creation = MembershipLink::create_direct(
            [4; 32],
            alice.signer(),
            alice.chain.fingerprint(),
            bob.id(),
            bob.chain.fingerprint(),
            NOW_MS,
        )
        .sign(&alice.devices[0].signing);
        let group = MembershipChain::create(&creation, resolver(&accounts)).expect("a good group");
        let direct = MembershipChain::create(&direct_creation, resolver(&accounts)).expect("a good pair");
        Self { accounts, creation, group, direct_creation, direct }
    }

    pub fn try_on(&self, on: On, signed: &SignedMembershipLink) -> Result<MembershipChain, MembershipError> {
        match on {
            On::Nothing => MembershipChain::create(signed, resolver(&self.accounts)),
            On::Group => self.group.extend(signed, resolver(&self.accounts)),
            On::Direct => self.direct.extend(signed, resolver(&self.accounts)),
        }
    }

    pub fn member(&self, who: usize, role: Role) -> Member {
        member(&self.accounts[who], role)
    }

    fn remove(&self, who: usize) -> MembershipChange {
        let account = &self.accounts[who];
        MembershipChange::Remove { account_id: account.id(), fingerprint: account.chain.fingerprint() }
    }

    /// A change of the group by somebody, edited before it is signed.
    fn edited(
        &self,
        who: usize,
        changes: Vec<MembershipChange>,
        edit: impl FnOnce(&mut MembershipLink),
    ) -> SignedMembershipLink {
        let mut link = self.group.change(self.accounts[who].signer(), changes, NOW_MS + 1);
        edit(&mut link);
        link.sign(&self.accounts[who].devices[0].signing)
    }

    pub fn change(&self, who: usize, changes: Vec<MembershipChange>) -> SignedMembershipLink {
        self.edited(who, changes, |_| {})
    }

    /// A creation record by Alice, edited as wire bytes before it is signed.
    fn created(&self, edit: impl FnOnce(&mut wire::MembershipLink)) -> SignedMembershipLink {
        let mut link = wire::MembershipLink::decode(self.creation.link.0.clone()).expect("readable");
        edit(&mut link);
        sign_link(link.encode_to_vec(), &self.accounts[ALICE].devices[0].signing)
    }

    /// The same for a change of the group.
    fn rewired(&self, edit: impl FnOnce(&mut wire::MembershipLink)) -> SignedMembershipLink {
        let good = self.change(ALICE, vec![self.remove(DAVE)]);
        let mut link = wire::MembershipLink::decode(good.link.0).expect("readable");
        edit(&mut link);
        sign_link(link.encode_to_vec(), &self.accounts[ALICE].devices[0].signing)
    }
}

fn member(account: &Account, role: Role) -> Member {
    Member { account_id: account.id(), fingerprint: account.chain.fingerprint(), role }
}

pub fn resolver(accounts: &[Account]) -> impl Fn(&Signer) -> Option<SignerKey> + '_ {
    |signer| accounts.iter().find_map(|account| account.chain.signer_key(signer))
}

#[test]
fn every_bad_link_is_refused_by_name() {
    let world = World::new(&mut rng(10));
    for case in refusals(&world) {
        assert_eq!(world.try_on(case.on, &case.signed), Err(case.error), "{}", case.name);
    }
}

#[test]
fn a_creation_names_the_conversation() {
    let world = World::new(&mut rng(11));
    assert_eq!(world.group.conversation_id.as_bytes(), Hash::of(&world.creation.link.0).as_bytes());
    assert_eq!((world.group.kind, world.group.m, world.group.members.len()), (ConversationKind::Group, 1, 4));
    assert_eq!((world.direct.kind, world.direct.members.len()), (ConversationKind::Direct, 2));
    assert!(world.direct.members.values().all(|member| member.role == Role::Member));
}

#[test]
fn members_come_and_go() {
    let world = World::new(&mut rng(12));
    let mut links = vec![world.creation.clone()];
    let mut chain = world.group.clone();
    let mut step = |who: usize, changes| {
        let account = &world.accounts[who];
        let link = chain.change(account.signer(), changes, NOW_MS).sign(&account.devices[0].signing);
        chain = chain.extend(&link, resolver(&world.accounts)).expect("allowed");
        links.push(link);
    };
    step(BOB, vec![add(world.member(ERIN, Role::Member)), world.remove(CAROL)]);
    step(DAVE, vec![world.remove(DAVE)]);
    step(ALICE, vec![set_role(world.member(BOB, Role::Owner))]);
    step(BOB, vec![world.remove(ALICE)]);
    step(BOB, vec![world.remove(ERIN)]);
    assert_eq!(chain.members.keys().collect::<Vec<_>>(), [&world.accounts[BOB].id()]);
    let link = chain.change(world.accounts[BOB].signer(), vec![world.remove(BOB)], NOW_MS);
    let link = link.sign(&world.accounts[BOB].devices[0].signing);
    let empty = chain.extend(&link, resolver(&world.accounts)).expect("the last one may leave");
    assert!(empty.members.is_empty());

    links.push(link);
    assert_eq!(MembershipChain::replay(&links, resolver(&world.accounts)), Ok(empty));
    assert_eq!(MembershipChain::replay(&[], resolver(&world.accounts)), Err(MembershipError::Empty));
}

#[test]
fn a_state_read_back_goes_on_where_it_was() {
    let world = World::new(&mut rng(13));
    let members = [(ALICE, Role::Owner), (BOB, Role::Admin), (CAROL, Role::Member), (DAVE, Role::Member)];
    let members = members.map(|(who, role)| world.member(who, role));
    let group = &world.group;
    let read_back = MembershipChain::trusted(group.conversation_id, group.kind, group.m, group.hash, members);
    assert_eq!(&read_back, group);
    assert_eq!(group.removal(&world.accounts[DAVE].id()), Some(world.remove(DAVE)));
    assert_eq!(group.removal(&world.accounts[ERIN].id()), None);
}
