//! Lies about who has to get a message: ghosts slipped in, honest devices hidden, memberships that nobody signed.

use martlet_client::{Refused, device::NewConversation};
use martlet_protocol::{
    chain::members::MembershipError,
    rest::{AccountLists, Mismatch, Role},
};

use crate::world::{ALICE, BOB, World, bundle, list_hash, mismatch_refused, refused};

#[test]
fn a_ghost_through_missing_is_refused() {
    let (mut world, conversation) = World::pair();
    let (number, before) = world.compose(ALICE, conversation, "hello");
    // A device that the server made up, with a bundle that is valid for its own keys.
    let ghost = world.register("ghost");
    let mut mismatch = Mismatch { missing: vec![bundle(&mut world.peers[ghost])], ..Mismatch::default() };
    assert_eq!(mismatch_refused(&mut world, ALICE, number, &mismatch), Refused::RecipientNotListed);
    // Said to be Bob's.
    mismatch.missing[0].account_id = world.account(BOB);
    assert_eq!(mismatch_refused(&mut world, ALICE, number, &mismatch), Refused::RecipientNotListed);
    // With the ghost's own, valid chain: still nobody of this conversation.
    let account_id = world.account(ghost);
    let lists = world.lists[&account_id].clone();
    mismatch.missing[0].account_id = account_id;
    mismatch.lists = vec![AccountLists { account_id, lists }];
    assert_eq!(mismatch_refused(&mut world, ALICE, number, &mismatch), Refused::RecipientNotListed);
    let (_, after) = world.prepare_with(ALICE, conversation, |_, _| panic!("nothing is claimed")).unwrap();
    assert_eq!(before, after, "the message waits unchanged");
}

#[test]
fn a_ghost_with_a_list_that_bob_did_not_sign_is_refused() {
    let (mut world, conversation) = World::pair();
    let (number, _) = world.compose(ALICE, conversation, "hello");
    let (keys, _, _, mut list) = world.next_device(BOB);
    list.signatures.retain(|signature| signature.device_id == keys.device_id);
    let account_id = world.account(BOB);
    let mismatch = Mismatch { lists: vec![AccountLists { account_id, lists: vec![list] }], ..Mismatch::default() };
    let refused = mismatch_refused(&mut world, ALICE, number, &mismatch);
    assert!(matches!(refused, Refused::ListInvalid(_)), "{refused:?}");
}

#[test]
fn an_honest_device_hidden_through_extra_is_refused() {
    let (mut world, conversation) = World::pair();
    let (number, _) = world.compose(ALICE, conversation, "hello");
    let mismatch = Mismatch { extra: vec![world.device_id(BOB)], ..Mismatch::default() };
    assert_eq!(mismatch_refused(&mut world, ALICE, number, &mismatch), Refused::DeviceHidden);
}

#[test]
fn an_honest_mismatch_is_followed_with_the_same_id_counter_and_one_time_key() {
    let (mut world, conversation) = World::pair();
    world.say(ALICE, conversation, "before", BOB);
    world.clock.advance(std::time::Duration::from_secs(25 * 60 * 60));
    let (number, before) = world.compose(ALICE, conversation, "hello");
    let second = world.link_device(BOB);
    let account_id = world.account(BOB);
    let list = world.lists[&account_id][1].clone();
    let mismatch = Mismatch {
        missing: vec![bundle(&mut world.peers[second])],
        stale: vec![world.chain(BOB).head()],
        lists: vec![AccountLists { account_id, lists: vec![list] }],
        ..Mismatch::default()
    };
    world.peers[ALICE].device.on_mismatch(number, &mismatch).unwrap();
    let (_, after) = world.prepare_with(ALICE, conversation, |_, _| panic!("nothing is claimed")).unwrap();
    assert_eq!(after.client_message_id, before.client_message_id);
    assert_ne!(after.content, before.content, "the plaintext names other lists");
    assert_eq!(after.forks.len(), 2);
    assert_eq!(after.forks[0].header[..5], before.forks[0].header[..5], "the claimed key is kept");
    world.accept(ALICE, number);
    let envelope = world.envelope(ALICE, &after, BOB);
    let events = world.deliver(BOB, &envelope);
    assert_eq!(refused(&events), []);
    let history = world.history(BOB);
    assert_eq!(history.last().unwrap().counter, 2, "no number was spent on the refused one");
}

#[test]
fn a_device_that_a_signed_list_removed_is_left_out() {
    let (mut world, conversation) = World::pair();
    let second = world.link_device(BOB);
    world.introduce(ALICE, BOB);
    let (number, before) = world.compose(ALICE, conversation, "hello");
    assert_eq!(before.forks.len(), 2);
    let list = world.remove_device(BOB, second);
    let mismatch = Mismatch {
        extra: vec![world.device_id(second)],
        stale: vec![world.chain(BOB).head()],
        lists: vec![AccountLists { account_id: world.account(BOB), lists: vec![list] }],
        ..Mismatch::default()
    };
    world.peers[ALICE].device.on_mismatch(number, &mismatch).unwrap();
    let (_, after) = world.prepare_with(ALICE, conversation, |_, _| {}).unwrap();
    assert_eq!(after.forks.len(), 1);
}

#[test]
fn a_mismatch_without_a_reason_is_refused() {
    let (mut world, conversation) = World::pair();
    let (number, _) = world.compose(ALICE, conversation, "hello");
    let empty = Mismatch::default();
    assert_eq!(mismatch_refused(&mut world, ALICE, number, &empty), Refused::MismatchUnexplained);
}

#[test]
fn a_mismatch_that_claims_an_older_or_another_list_is_refused() {
    let (mut world, conversation) = World::pair();
    world.link_device(BOB);
    world.introduce(ALICE, BOB);
    let (number, _) = world.compose(ALICE, conversation, "hello");
    let mut head = world.chain(BOB).head();
    head.n = 1;
    head.hash = list_hash(&world.lists[&world.account(BOB)][0]);
    let mut mismatch = Mismatch { stale: vec![head], ..Mismatch::default() };
    assert_eq!(mismatch_refused(&mut world, ALICE, number, &mismatch), Refused::ListRolledBack);
    mismatch.stale[0].n = 2;
    assert_eq!(mismatch_refused(&mut world, ALICE, number, &mismatch), Refused::ListForked);
}

#[test]
fn a_member_that_nobody_added_is_refused() {
    let mut world = World::new();
    let (alice, bob, ghost) = (world.register("alice"), world.register("bob"), world.register("ghost"));
    for other in [bob, ghost] {
        world.introduce(alice, other);
        world.introduce(other, alice);
    }
    let group = NewConversation::Group(vec![(world.account(bob), Role::Member)]);
    let conversation = world.create(alice, &[alice, bob], &group);
    let ghost_account = world.account(ghost);
    let added = world.peers[alice].device.link_add(&conversation, &ghost_account, Role::Member).unwrap();
    // Unsigned.
    let mut forged = added.clone();
    forged.signature = martlet_protocol::id::Signature::new([3; 64]);
    let refused = world.peers[bob].device.absorb_membership(&conversation, &[forged]);
    let wrong = Refused::MembershipInvalid(MembershipError::BadSignature);
    assert_eq!(refused, Err(martlet_client::trust::Halt::Refused(wrong)));
    // By somebody who may not: Bob is a plain member.
    let by_bob = world.peers[bob].device.link_add(&conversation, &ghost_account, Role::Member);
    assert!(by_bob.is_err(), "a device does not even make it");
    // Two links of one number.
    let left = world.peers[bob].device.link_remove(&conversation, &world.account(bob).clone()).unwrap();
    world.peers[alice].device.absorb_membership(&conversation, &[added]).unwrap();
    let refused = world.peers[alice].device.absorb_membership(&conversation, &[left]);
    assert_eq!(refused, Err(martlet_client::trust::Halt::Refused(Refused::MembershipForked)));
}

#[test]
fn a_message_for_other_people_than_its_membership_is_refused() {
    let (mut world, conversation) = World::pair();
    let bob = world.device_id(BOB);
    let signed = world.peers[BOB].stock.signed_prekey.clone().unwrap();
    let target = world.chain(BOB).check_prekey(&signed, &bob, world.now_ms()).unwrap();
    let membership = world.peers[ALICE].device.trust().conversation(&conversation).unwrap().head().head();
    let stranger = world.register("stranger");
    let heads = [world.chain(ALICE).head(), world.chain(BOB).head(), world.chain(stranger).head()];
    let alice = world.peers[ALICE].device.keys().clone();
    for (heads, expected) in [(&heads[..], Refused::RecipientsWrong), (&heads[..1], Refused::RecipientsWrong)] {
        let draft = martlet_client::compose::Draft {
            conversation_id: conversation,
            membership: membership.clone(),
            list_heads: heads,
            client_message_id: martlet_protocol::id::ClientMessageId::random(&mut world.rng),
            sent_at_ms: world.now_ms(),
            counter: 1,
            previous: None,
            body: &crate::world::text_content("psst"),
            lifetime_seconds: 0,
            ephemeral_until_ms: 0,
        };
        let mut rng = world.fork_rng();
        let made = martlet_client::compose::compose(&alice, &draft, &[target], &mut rng).unwrap();
        let envelope = world.envelope(ALICE, &made.request, BOB);
        assert_eq!(refused(&world.deliver(BOB, &envelope)), [expected]);
    }
}

#[test]
fn a_message_of_an_account_that_is_no_member_is_refused() {
    let (mut world, conversation) = World::pair();
    let carol = world.register("carol");
    world.introduce(carol, BOB);
    world.introduce(BOB, carol);
    let own = world.direct(carol, BOB);
    let request = world.send(carol, own, "let me in");
    let mut envelope = world.envelope(carol, &request, BOB);
    envelope.conversation_id = conversation.to_wire();
    assert_eq!(refused(&world.deliver(BOB, &envelope)), [Refused::ForkMoved]);
}
