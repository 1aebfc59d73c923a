//! Resend requests: made when a listed device's message won't open, answered to those who may have it, and never more.

use bytes::Bytes;
use martlet_client::{Refused, device::NewConversation};
use martlet_protocol::{
    id::ConversationId,
    rest::Role,
    wire::{self, content::Body},
};

use crate::world::{ALICE, BOB, World, refused};

fn request_for(world: &World, sender: usize, request: &wire::SendRequest) -> wire::Content {
    let target = wire::MessageRef {
        sender_device_id: world.device_id(sender).to_wire(),
        client_message_id: request.client_message_id.clone(),
    };
    let body = Body::ResendRequest(wire::ResendRequest { target: Some(target), cause: "test".into() });
    wire::Content { body: Some(body) }
}

/// Makes a peer send this content and brings it to another.
fn bring(
    world: &mut World,
    sender: usize,
    conversation: ConversationId,
    content: &wire::Content,
    recipient: usize,
) -> Vec<martlet_client::Event> {
    world.peers[sender].device.enqueue(conversation, content, 0).unwrap();
    carry(world, sender, conversation, recipient)
}

/// Sends what is in the outbox already.
fn carry(
    world: &mut World,
    sender: usize,
    conversation: ConversationId,
    recipient: usize,
) -> Vec<martlet_client::Event> {
    let (number, request) = world.prepare_with(sender, conversation, |_, _| {}).unwrap();
    world.accept(sender, number);
    let envelope = world.envelope(sender, &request, recipient);
    world.deliver(recipient, &envelope)
}

#[test]
fn a_message_that_does_not_open_is_asked_for_once_and_comes_again_as_itself() {
    let (mut world, conversation) = World::pair();
    let lost = world.send(ALICE, conversation, "hello");
    let mut broken = world.envelope(ALICE, &lost, BOB);
    let mut header = broken.fork_header.to_vec();
    header[80] ^= 1;
    broken.fork_header = header.into();
    assert_eq!(refused(&world.deliver(BOB, &broken)), [Refused::ForkNotForThisDevice]);
    assert_eq!(world.peers[BOB].device.unsent(), 1, "Bob asks");
    broken.message_id = Bytes::from(vec![5; 16]);
    world.deliver(BOB, &broken);
    assert_eq!(world.peers[BOB].device.unsent(), 1, "but once");

    assert_eq!(refused(&carry(&mut world, BOB, conversation, ALICE)), []);
    assert_eq!(world.peers[ALICE].device.unsent(), 1, "Alice answers");
    carry(&mut world, ALICE, conversation, BOB);
    assert_eq!(world.texts(BOB), ["hello"]);
    assert_eq!(world.history(BOB)[0].client_message_id.to_wire(), lost.client_message_id, "as the message it was");
    assert_eq!(world.texts(ALICE), Vec::<String>::new(), "neither asking nor answering is for people");

    // If the original turns up after all, it is passed over.
    let original = world.envelope(ALICE, &lost, BOB);
    assert!(world.deliver(BOB, &original).is_empty());
    assert_eq!(world.texts(BOB), ["hello"]);
}

#[test]
fn an_answer_that_the_asker_does_not_need_is_passed_over() {
    let (mut world, conversation) = World::pair();
    let sent = world.send(ALICE, conversation, "hello");
    let envelope = world.envelope(ALICE, &sent, BOB);
    world.deliver(BOB, &envelope);
    let content = request_for(&world, ALICE, &sent);
    bring(&mut world, BOB, conversation, &content, ALICE);
    carry(&mut world, ALICE, conversation, BOB);
    assert_eq!(world.texts(BOB), ["hello"], "once");
}

#[test]
fn a_request_of_a_removed_device_is_set_apart_and_not_answered() {
    let (mut world, conversation) = World::pair();
    let second = world.link_device(BOB);
    world.introduce(ALICE, BOB);
    world.introduce(second, ALICE);
    let links = world.links[&conversation].clone();
    world.peers[second].device.absorb_membership(&conversation, &links).unwrap();
    let sent = world.send(ALICE, conversation, "hello");
    let content = request_for(&world, ALICE, &sent);
    // The removed device does not know of its removal, or does not care.
    world.remove_device(BOB, second);
    world.introduce(ALICE, BOB);
    world.peers[second].device.enqueue(conversation, &content, 0).unwrap();
    let hide = |_: &mut World, answer: &mut martlet_protocol::rest::ClaimAnswer| answer.lists.clear();
    let (_, request) = world.prepare_with(second, conversation, hide).unwrap();
    let envelope = world.envelope(second, &request, ALICE);
    assert_eq!(refused(&world.deliver(ALICE, &envelope)), [Refused::DeviceRemoved]);
    assert_eq!(world.peers[ALICE].device.unsent(), 0);
}

#[test]
fn a_forged_request_is_refused() {
    let (mut world, conversation) = World::pair();
    let sent = world.send(ALICE, conversation, "hello");
    let content = request_for(&world, ALICE, &sent);
    // Bob's request under a key that his list does not hold.
    let mut impostor = world.peers[BOB].device.keys().clone();
    impostor.signing = martlet_protocol::crypto::SigningKey::generate(&mut world.rng);
    let signed = world.peers[ALICE].stock.signed_prekey.clone().unwrap();
    let alice = world.device_id(ALICE);
    let target = world.chain(ALICE).check_prekey(&signed, &alice, world.now_ms()).unwrap();
    let heads = [world.chain(ALICE).head(), world.chain(BOB).head()];
    let draft = martlet_client::compose::Draft {
        conversation_id: conversation,
        membership: world.peers[ALICE].device.trust().conversation(&conversation).unwrap().head().head(),
        list_heads: &heads,
        client_message_id: martlet_protocol::id::ClientMessageId::random(&mut world.rng),
        sent_at_ms: world.now_ms(),
        counter: 1,
        previous: None,
        body: &content,
        lifetime_seconds: 0,
        ephemeral_until_ms: 0,
    };
    let mut rng = world.fork_rng();
    let forged = martlet_client::compose::compose(&impostor, &draft, &[target], &mut rng).unwrap();
    let envelope = world.envelope(BOB, &forged.request, ALICE);
    assert_eq!(refused(&world.deliver(ALICE, &envelope)), [Refused::SignatureInvalid]);
    assert_eq!(world.peers[ALICE].device.unsent(), 0);
}

#[test]
fn a_member_who_joined_later_does_not_get_what_was_said_before() {
    let mut world = World::new();
    let (alice, bob, carol) = (world.register("alice"), world.register("bob"), world.register("carol"));
    for one in [alice, bob, carol] {
        for other in [alice, bob, carol] {
            world.introduce(one, other);
        }
    }
    let group = NewConversation::Group(vec![(world.account(bob), Role::Member)]);
    let conversation = world.create(alice, &[alice, bob], &group);
    let sent = world.send(alice, conversation, "before Carol");
    let carol_account = world.account(carol);
    let link = world.peers[alice].device.link_add(&conversation, &carol_account, Role::Member).unwrap();
    world.links.get_mut(&conversation).unwrap().push(link);
    let links = world.links[&conversation].clone();
    for peer in [alice, bob, carol] {
        world.peers[peer].device.absorb_membership(&conversation, &links).unwrap();
    }
    let content = request_for(&world, alice, &sent);
    let events = bring(&mut world, carol, conversation, &content, alice);
    assert_eq!(refused(&events), [Refused::ResendNotAllowed]);
    // Bob had a right to it, but the answer would reach Carol too.
    let events = bring(&mut world, bob, conversation, &content, alice);
    assert_eq!(refused(&events), [Refused::ResendNotAllowed]);
    assert_eq!(world.peers[alice].device.unsent(), 0);
}
