//! One link at least for every refusal.

use martlet_protocol::{
    chain::members::{
        LinkPlace, MAX_CHANGES_PER_LINK, Member, MembershipChange, MembershipError, MembershipLink, Signer, sign_link,
    },
    id::{AccountId, ConversationId, DeviceId, Hash},
    rest::{ConversationKind, Role, SignedMembershipLink},
    wire,
};

use super::{ALICE, BOB, CAROL, DAVE, ERIN, On, World};
use crate::world::NOW_MS;

/// A link that must be refused, and what it is tried on.
pub struct Refusal {
    pub name: &'static str,
    pub on: On,
    pub signed: SignedMembershipLink,
    pub error: MembershipError,
}

pub fn add(member: Member) -> MembershipChange {
    MembershipChange::Add(member)
}

pub fn set_role(member: Member) -> MembershipChange {
    MembershipChange::SetRole(member)
}

pub fn refusals(world: &World) -> Vec<Refusal> {
    let mut refusals = about_form(world);
    refusals.extend(about_place(world));
    refusals.extend(about_signer(world));
    refusals.extend(about_roles(world));
    refusals.extend(about_creation(world));
    refusals
}

type Row = (&'static str, SignedMembershipLink, MembershipError);

fn on(on: On, rows: Vec<Row>) -> Vec<Refusal> {
    rows.into_iter().map(|(name, signed, error)| Refusal { name, on, signed, error }).collect()
}

fn about_form(world: &World) -> Vec<Refusal> {
    let unreadable = MembershipError::Unreadable;
    let key = &world.accounts[ALICE].devices[0].signing;
    let good = world.change(ALICE, vec![world.remove(DAVE)]);
    let extended = sign_link([&good.link.0[..], &[0x78, 1]].concat(), key);
    let twice = vec![world.remove(DAVE), world.remove(DAVE)];
    let crowd = (0..=MAX_CHANGES_PER_LINK).map(|index| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(index as u64).to_be_bytes());
        let member = Member { account_id: AccountId::new(id), fingerprint: Hash::of(&id), role: Role::Member };
        MembershipChange::Add(member)
    });
    on(
        On::Group,
        vec![
            ("not protobuf", sign_link(vec![0xff], key), unreadable),
            ("no signer", world.rewired(|link| link.signer = None), unreadable),
            ("no member", world.rewired(|link| link.changes[0].member = None), unreadable),
            ("no action", world.rewired(|link| link.changes[0].action = 0), unreadable),
            ("an unknown action", world.rewired(|link| link.changes[0].action = 9), unreadable),
            ("an addition without role", world.rewired(|link| link.changes[0].action = 1), unreadable),
            ("a short hash", world.rewired(|link| link.previous_hash.truncate(31)), unreadable),
            ("an unknown field", extended, MembershipError::NotCanonical),
            (
                "a removal with a role",
                world.rewired(|link| link.changes[0].member.as_mut().expect("there").role = 1),
                MembershipError::NotCanonical,
            ),
            ("a change with a kind", world.rewired(|link| link.kind = 2), MembershipError::WrongForm),
            (
                "a change with a nonce",
                world.rewired(|link| link.nonce = vec![1; 32].into()),
                MembershipError::WrongForm,
            ),
            ("no change", world.change(ALICE, vec![]), MembershipError::Empty),
            ("an account twice", world.change(ALICE, twice), MembershipError::DuplicateMember),
            ("too many changes", world.change(ALICE, crowd.collect()), MembershipError::TooManyChanges),
        ],
    )
}

fn about_place(world: &World) -> Vec<Refusal> {
    let moved = |to: LinkPlace| world.edited(ALICE, vec![world.remove(DAVE)], |link| link.place = to);
    let (conversation_id, previous_hash) = (world.group.conversation_id, world.group.hash);
    let elsewhere = ConversationId::new([8; 32]);
    let place = |conversation_id, m, previous_hash| moved(LinkPlace::Change { conversation_id, m, previous_hash });
    on(
        On::Group,
        vec![
            ("the creation again", world.creation.clone(), MembershipError::Shorter),
            ("number 0", place(conversation_id, 0, previous_hash), MembershipError::Shorter),
            (
                "a number left out",
                place(conversation_id, 3, previous_hash),
                MembershipError::WrongNumber { expected: 2, given: 3 },
            ),
            ("another conversation", place(elsewhere, 2, previous_hash), MembershipError::WrongConversation),
            ("another predecessor", place(conversation_id, 2, Hash::of(b"other")), MembershipError::OtherBranch),
        ],
    )
}

fn about_signer(world: &World) -> Vec<Refusal> {
    let remove = || vec![world.remove(DAVE)];
    let with_signer = |edit: &dyn Fn(&mut Signer)| world.edited(ALICE, remove(), |link| edit(&mut link.signer));
    let bob = world.accounts[BOB].id();
    let mut forged = world.change(ALICE, remove());
    forged.signature = world.creation.signature;
    let add_self = vec![add(world.member(ERIN, Role::Member))];
    on(
        On::Group,
        vec![
            ("by an outsider", world.change(ERIN, add_self), MembershipError::SignerNotMember),
            (
                "by an unknown device",
                with_signer(&|signer| signer.device_id = DeviceId::new([1; 16])),
                MembershipError::SignerUnknown,
            ),
            ("by an unknown list", with_signer(&|signer| signer.list_n = 2), MembershipError::SignerUnknown),
            (
                "by a list of another branch",
                with_signer(&|signer| signer.list_hash = Hash::of(b"other")),
                MembershipError::SignerUnknown,
            ),
            (
                "another account's device",
                with_signer(&|signer| signer.account_id = bob),
                MembershipError::SignerUnknown,
            ),
            ("another link's signature", forged, MembershipError::BadSignature),
        ],
    )
}

fn about_roles(world: &World) -> Vec<Refusal> {
    let forbidden = MembershipError::Forbidden;
    let add_erin = |role| vec![add(world.member(ERIN, role))];
    let promote = |who, role| vec![set_role(world.member(who, role))];
    let other_print = Member { fingerprint: Hash::of(b"other"), ..world.member(DAVE, Role::Admin) };
    let other_removal =
        MembershipChange::Remove { account_id: other_print.account_id, fingerprint: other_print.fingerprint };
    let in_direct = world.direct.change(world.accounts[BOB].signer(), vec![world.remove(BOB)], NOW_MS);
    let in_direct = in_direct.sign(&world.accounts[BOB].devices[0].signing);
    let raise_and_use = vec![set_role(world.member(BOB, Role::Owner)), world.remove(ALICE)];
    let mut refusals = on(
        On::Group,
        vec![
            ("a member adds", world.change(CAROL, add_erin(Role::Member)), forbidden),
            ("a member removes another", world.change(CAROL, vec![world.remove(DAVE)]), forbidden),
            ("a member promotes itself", world.change(CAROL, promote(CAROL, Role::Admin)), forbidden),
            ("an admin adds an admin", world.change(BOB, add_erin(Role::Admin)), forbidden),
            ("an admin removes the owner", world.change(BOB, vec![world.remove(ALICE)]), forbidden),
            ("an admin promotes a member", world.change(BOB, promote(CAROL, Role::Admin)), forbidden),
            ("an admin makes itself owner first", world.change(BOB, raise_and_use), forbidden),
            (
                "adds a member again",
                world.change(ALICE, vec![add(world.member(DAVE, Role::Admin))]),
                MembershipError::AlreadyMember,
            ),
            ("removes an outsider", world.change(ALICE, vec![world.remove(ERIN)]), MembershipError::NotMember),
            ("promotes an outsider", world.change(ALICE, promote(ERIN, Role::Admin)), MembershipError::NotMember),
            (
                "removes under another fingerprint",
                world.change(ALICE, vec![other_removal]),
                MembershipError::WrongFingerprint,
            ),
            (
                "promotes under another fingerprint",
                world.change(ALICE, vec![set_role(other_print)]),
                MembershipError::WrongFingerprint,
            ),
            ("the last owner leaves", world.change(ALICE, vec![world.remove(ALICE)]), MembershipError::LastOwner),
            ("the last owner steps down", world.change(ALICE, promote(ALICE, Role::Admin)), MembershipError::LastOwner),
        ],
    );
    refusals.extend(on(On::Direct, vec![("leaves a direct conversation", in_direct, MembershipError::DirectIsFixed)]));
    refusals
}

fn about_creation(world: &World) -> Vec<Refusal> {
    let alice = &world.accounts[ALICE];
    let role = |link: &mut wire::MembershipLink, index: usize, role: Role| {
        link.changes[index].member.as_mut().expect("there").set_role(role.into());
    };
    let direct = |link: &mut wire::MembershipLink, members: usize| {
        link.set_kind(ConversationKind::Direct.into());
        link.changes.truncate(members);
        (0..members).for_each(|index| role(link, index, Role::Member));
    };
    let mistaken = MembershipLink::create_group([3; 32], alice.signer(), Hash::of(b"other"), [], NOW_MS);
    on(
        On::Nothing,
        vec![
            ("no kind", world.created(|link| link.kind = 0), MembershipError::UnknownKind),
            ("a kind of another release", world.created(|link| link.kind = 4), MembershipError::UnknownKind),
            ("a short nonce", world.created(|link| link.nonce.truncate(31)), MembershipError::Unreadable),
            (
                "a creation with a predecessor",
                world.created(|link| link.previous_hash = vec![1; 32].into()),
                MembershipError::WrongForm,
            ),
            (
                "a change as creation",
                world.change(ALICE, vec![world.remove(DAVE)]),
                MembershipError::WrongNumber { expected: 1, given: 2 },
            ),
            (
                "a creation that removes",
                world.created(|link| {
                    link.changes[1].action = 2;
                    link.changes[1].member.as_mut().expect("there").role = 0;
                }),
                MembershipError::NotMember,
            ),
            (
                "without its creator",
                world.created(|link| drop(link.changes.remove(0))),
                MembershipError::SignerNotMember,
            ),
            (
                "the creator no owner",
                world.created(|link| role(link, 0, Role::Admin)),
                MembershipError::CreatorNotOwner,
            ),
            ("two owners", world.created(|link| role(link, 1, Role::Owner)), MembershipError::CreatorNotOwner),
            ("a direct one alone", world.created(|link| direct(link, 1)), MembershipError::DirectForm),
            ("a direct one of three", world.created(|link| direct(link, 3)), MembershipError::DirectForm),
            (
                "a direct one with an owner",
                world.created(|link| {
                    direct(link, 2);
                    role(link, 0, Role::Owner);
                }),
                MembershipError::DirectForm,
            ),
            (
                "the creator under another fingerprint",
                mistaken.sign(&alice.devices[0].signing),
                MembershipError::SignerFingerprint,
            ),
        ],
    )
}
