//! Lies about forks and content.

use martlet_client::{Refused, device::NewConversation};
use martlet_protocol::{
    id::Hash,
    rest::PrekeyKind,
    suite1::{ForkContext, fork_header, seal_content},
    wire,
};

use crate::world::{ALICE, BOB, World, refused, text_content};

#[test]
fn an_honest_message_is_read_and_its_one_time_key_is_gone() {
    let (mut world, conversation) = World::pair();
    assert_eq!(refused(&world.say(ALICE, conversation, "hello", BOB)), []);
    assert_eq!(refused(&world.say(BOB, conversation, "hello back", ALICE)), []);
    assert_eq!(world.texts(BOB), ["hello"]);
    assert_eq!(world.texts(ALICE), ["hello back"]);
}

#[test]
fn a_repeat_is_passed_over_and_a_replay_is_refused() {
    let (mut world, conversation) = World::pair();
    let request = world.send(ALICE, conversation, "hello");
    let envelope = world.envelope(ALICE, &request, BOB);
    world.deliver(BOB, &envelope);
    // At least once on the wire: the same message id again is nothing special.
    assert!(world.deliver(BOB, &envelope).is_empty());
    // As if it were new, it is an attack, with a one-time key …
    let replayed = world.envelope(ALICE, &request, BOB);
    assert_ne!(replayed.message_id, envelope.message_id);
    assert_eq!(refused(&world.deliver(BOB, &replayed)), [Refused::ForkReplayed]);
    // … and with the signed prekey, which would still open it.
    let second = world.send(ALICE, conversation, "again");
    assert_eq!(second.forks[0].header[0], 1);
    let envelope = world.envelope(ALICE, &second, BOB);
    world.deliver(BOB, &envelope);
    let replayed = world.envelope(ALICE, &second, BOB);
    assert_eq!(refused(&world.deliver(BOB, &replayed)), [Refused::ForkReplayed]);
    assert_eq!(world.texts(BOB), ["hello", "again"]);
}

#[test]
fn a_fork_of_another_conversation_is_refused() {
    let (mut world, direct) = World::pair();
    let bob = world.account(BOB);
    let group = NewConversation::Group(vec![(bob, martlet_protocol::rest::Role::Member)]);
    let group = world.create(ALICE, &[ALICE, BOB], &group);
    let request = world.send(ALICE, direct, "for the two of us");
    // Before it was ever read …
    let mut moved = world.envelope(ALICE, &request, BOB);
    moved.conversation_id = group.to_wire();
    assert_eq!(refused(&world.deliver(BOB, &moved)), [Refused::ForkMoved]);
    // … which used up nothing: the true one still opens …
    let honest = world.envelope(ALICE, &request, BOB);
    assert_eq!(refused(&world.deliver(BOB, &honest)), []);
    // … and afterwards too.
    let mut moved = world.envelope(ALICE, &request, BOB);
    moved.conversation_id = group.to_wire();
    assert_eq!(refused(&world.deliver(BOB, &moved)), [Refused::ForkMoved]);
    assert_eq!(world.texts(BOB), ["for the two of us"]);
}

#[test]
fn a_fork_of_another_device_is_refused() {
    let (mut world, conversation) = World::pair();
    let second = world.link_device(BOB);
    world.introduce(ALICE, BOB);
    world.introduce(second, ALICE);
    let links = world.links[&conversation].clone();
    world.peers[second].device.absorb_membership(&conversation, &links).unwrap();
    let request = world.send(ALICE, conversation, "hello");
    let mut swapped = world.envelope(ALICE, &request, BOB);
    swapped.fork_header = world.envelope(ALICE, &request, second).fork_header;
    assert_eq!(refused(&world.deliver(BOB, &swapped)), [Refused::ForkNotForThisDevice]);
}

#[test]
fn a_second_key_for_one_content_is_refused() {
    let (mut world, conversation) = World::pair();
    let request = world.send(ALICE, conversation, "hello");
    // Alice's own device gives Bob another key than the one that the content commits to.
    let alice = world.peers[ALICE].device.keys().clone();
    let (other_key, _) = seal_content(&mut world.rng, &wire::Plaintext::default(), &alice.signing);
    let context = ForkContext {
        conversation_id: conversation,
        sender_account: alice.account_id,
        sender_device: alice.device_id,
        client_message_id: request.client_message_id.as_ref().try_into().unwrap(),
        content_hash: Hash::of(&request.content),
    };
    let signed = world.peers[BOB].stock.signed_prekey.clone().unwrap();
    let bob = world.device_id(BOB);
    let target = world.chain(BOB).check_prekey(&signed, &bob, world.now_ms()).unwrap();
    assert_eq!(target.kind, PrekeyKind::Signed);
    let mut envelope = world.envelope(ALICE, &request, BOB);
    envelope.fork_header = fork_header(&mut world.rng, &other_key, &context, &target).unwrap();
    assert_eq!(refused(&world.deliver(BOB, &envelope)), [Refused::ContentCommitmentBroken]);
    assert!(world.texts(BOB).is_empty());
}

#[test]
fn swapped_and_altered_content_is_refused() {
    let (mut world, conversation) = World::pair();
    let (one, other) = (world.send(ALICE, conversation, "one"), world.send(ALICE, conversation, "other"));
    let mut swapped = world.envelope(ALICE, &one, BOB);
    swapped.content = other.content.clone();
    assert_eq!(refused(&world.deliver(BOB, &swapped)), [Refused::ForkNotForThisDevice]);
    // Beside the seal, where the hash stands within.
    let mut outside = world.envelope(ALICE, &one, BOB);
    outside.content_sha256 = Hash::of(&one.content).to_wire();
    outside.content.clear();
    let mut entry = world.seal(BOB, &outside);
    entry.content = other.content;
    assert_eq!(refused(&world.receive(BOB, &entry)), [Refused::ContentAltered]);
    let mut entry = world.seal(BOB, &outside);
    entry.content = one.content;
    assert_eq!(refused(&world.receive(BOB, &entry)), []);
    assert_eq!(world.texts(BOB), ["one"]);
}

#[test]
fn a_key_that_was_used_up_opens_nothing_more() {
    let (mut world, conversation) = World::pair();
    let request = world.send(ALICE, conversation, "hello");
    let envelope = world.envelope(ALICE, &request, BOB);
    world.deliver(BOB, &envelope);
    // Alice's other device, gone bad, seals to the key that Bob has used: what a stolen copy of the pool is worth.
    let mut forged = world.envelope(ALICE, &request, BOB);
    forged.content = bytes::Bytes::from(vec![1; 300]);
    forged.client_message_id = bytes::Bytes::from(vec![9; 16]);
    assert_eq!(refused(&world.deliver(BOB, &forged)), [Refused::PrekeyUsedUp]);
    let mut unknown = forged.clone();
    let mut header = unknown.fork_header.to_vec();
    header[1..5].copy_from_slice(&9999_u32.to_be_bytes());
    unknown.fork_header = header.into();
    unknown.client_message_id = bytes::Bytes::from(vec![8; 16]);
    assert_eq!(refused(&world.deliver(BOB, &unknown)), [Refused::PrekeyUnknown]);
}

#[test]
fn content_that_nobody_listed_signed_is_refused() {
    let (mut world, conversation) = World::pair();
    world.say(ALICE, conversation, "hello", BOB);
    // The server knows everything but Alice's signing key, and makes a message of its own.
    let honest = world.send(ALICE, conversation, "true");
    let mut impostor = world.peers[ALICE].device.keys().clone();
    impostor.signing = martlet_protocol::crypto::SigningKey::generate(&mut world.rng);
    let signed = world.peers[BOB].stock.signed_prekey.clone().unwrap();
    let bob = world.device_id(BOB);
    let target = world.chain(BOB).check_prekey(&signed, &bob, world.now_ms()).unwrap();
    let heads = [world.chain(ALICE).head(), world.chain(BOB).head()];
    let conversation_state = world.peers[ALICE].device.trust().conversation(&conversation).unwrap().head().head();
    let draft = martlet_client::compose::Draft {
        conversation_id: conversation,
        membership: conversation_state,
        list_heads: &heads,
        client_message_id: honest.client_message_id.as_ref().try_into().unwrap(),
        sent_at_ms: world.now_ms(),
        counter: 2,
        previous: Some(Hash::new([1; 32])),
        body: &text_content("false"),
        lifetime_seconds: 0,
        ephemeral_until_ms: 0,
    };
    let mut rng = world.fork_rng();
    let forged = martlet_client::compose::compose(&impostor, &draft, &[target], &mut rng).unwrap();
    let envelope = world.envelope(ALICE, &forged.request, BOB);
    assert_eq!(refused(&world.deliver(BOB, &envelope)), [Refused::SignatureInvalid]);
    assert_eq!(world.texts(BOB), ["hello"]);
}
