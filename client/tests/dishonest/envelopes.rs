//! Lies in the envelope, which the server writes: sender, conversation, id, suite, and the seal around it.

use bytes::Bytes;
use martlet_client::{Refused, refused::EnvelopeField};
use martlet_protocol::{id::ClientMessageId, wire};

use crate::world::{ALICE, BOB, World, refused};

/// Delivers one honest message whose envelope was altered, then the honest one, which must still be read.
fn altered(alter: impl Fn(&mut World, &mut wire::SealedMessage)) -> Refused {
    let (mut world, conversation) = World::pair();
    let request = world.send(ALICE, conversation, "hello");
    let honest = world.envelope(ALICE, &request, BOB);
    let mut lie = honest.clone();
    alter(&mut world, &mut lie);
    let events = world.deliver(BOB, &lie);
    assert!(world.texts(BOB).is_empty(), "nothing was read");
    assert_eq!(refused(&world.deliver(BOB, &honest)), [], "nothing was used up");
    assert_eq!(world.texts(BOB), ["hello"]);
    let refused = refused(&events);
    assert_eq!(refused.len(), 1);
    refused[0]
}

#[test]
fn another_sender_is_refused() {
    let refused = altered(|world, envelope| {
        envelope.sender_account_id = world.account(BOB).to_wire();
        envelope.sender_device_id = world.device_id(BOB).to_wire();
    });
    assert_eq!(refused, Refused::EnvelopeAltered(EnvelopeField::Sender));
}

#[test]
fn another_device_of_the_same_account_is_refused() {
    let (mut world, conversation) = World::pair();
    let second = world.link_device(ALICE);
    world.introduce(BOB, ALICE);
    let request = world.send(ALICE, conversation, "hello");
    let mut lie = world.envelope(ALICE, &request, BOB);
    lie.sender_device_id = world.device_id(second).to_wire();
    assert_eq!(refused(&world.deliver(BOB, &lie)), [Refused::EnvelopeAltered(EnvelopeField::Sender)]);
}

#[test]
fn another_message_id_of_the_sender_is_refused() {
    let refused = altered(|world, envelope| {
        envelope.client_message_id = ClientMessageId::random(&mut world.rng).to_wire();
    });
    // Bound into the header: it does not open, and the true id is nowhere to be found.
    assert_eq!(refused, Refused::ForkNotForThisDevice);
}

#[test]
fn a_sender_who_is_altered_after_reading_is_named() {
    let (mut world, conversation) = World::pair();
    let request = world.send(ALICE, conversation, "hello");
    let honest = world.envelope(ALICE, &request, BOB);
    world.deliver(BOB, &honest);
    let mut lie = world.envelope(ALICE, &request, BOB);
    lie.client_message_id = ClientMessageId::random(&mut world.rng).to_wire();
    let field = Refused::EnvelopeAltered(EnvelopeField::ClientMessageId);
    assert_eq!(refused(&world.deliver(BOB, &lie)), [field]);
}

#[test]
fn another_suite_is_refused() {
    let refused = altered(|_, envelope| envelope.suite = 2);
    assert_eq!(refused, Refused::EnvelopeAltered(EnvelopeField::Suite));
}

#[test]
fn fields_of_the_wrong_length_are_refused() {
    let refused = altered(|_, envelope| envelope.conversation_id = Bytes::from_static(b"short"));
    assert_eq!(refused, Refused::EnvelopeAltered(EnvelopeField::Conversation));
    let refused = altered(|_, envelope| envelope.sender_device_id.clear());
    assert_eq!(refused, Refused::EnvelopeAltered(EnvelopeField::Sender));
    let refused = altered(|_, envelope| envelope.fork_header = envelope.fork_header.slice(..84));
    assert_eq!(refused, Refused::ForkNotForThisDevice);
}

#[test]
fn the_time_that_counts_is_the_sender_s() {
    let (mut world, conversation) = World::pair();
    let request = world.send(ALICE, conversation, "hello");
    let mut lie = world.envelope(ALICE, &request, BOB);
    lie.accepted_at_ms = 1;
    assert_eq!(refused(&world.deliver(BOB, &lie)), []);
    assert_eq!(world.history(BOB)[0].sent_at_ms, world.now_ms());
}

#[test]
fn an_entry_of_another_mailbox_or_under_another_id_is_refused() {
    let (mut world, conversation) = World::pair();
    let request = world.send(ALICE, conversation, "hello");
    let envelope = world.envelope(ALICE, &request, BOB);
    let mut entry = world.seal(BOB, &envelope);
    entry.entry_id = Bytes::from(vec![7; 16]);
    assert_eq!(refused(&world.receive(BOB, &entry)), [Refused::SealBroken]);
    let mut entry = world.seal(ALICE, &envelope);
    entry.seq = 2;
    world.peers[BOB].seq = 2;
    assert_eq!(refused(&world.receive(BOB, &entry)), [Refused::SealBroken]);
    let mut entry = world.seal(BOB, &envelope);
    let mut sealed = entry.sealed.to_vec();
    sealed.push(0);
    entry.sealed = sealed.into();
    assert_eq!(refused(&world.receive(BOB, &entry)), [Refused::SealBroken]);
}

#[test]
fn an_echo_of_something_else_is_refused() {
    let (mut world, conversation) = World::pair();
    let (number, request) = world.compose(ALICE, conversation, "hello");
    let mut lie = world.envelope(ALICE, &request, ALICE);
    lie.content = Bytes::from(vec![1; 300]);
    assert_eq!(refused(&world.deliver(ALICE, &lie)), [Refused::ContentAltered]);
    let mut lie = world.envelope(ALICE, &request, ALICE);
    lie.sender_device_id = world.device_id(BOB).to_wire();
    lie.sender_account_id = world.account(BOB).to_wire();
    assert_eq!(refused(&world.deliver(ALICE, &lie)), [Refused::EnvelopeAltered(EnvelopeField::Sender)]);
    // The true echo proves acceptance, even if the answer never came.
    let echo = world.envelope(ALICE, &request, ALICE);
    assert_eq!(refused(&world.deliver(ALICE, &echo)), []);
    assert_eq!(world.texts(ALICE), ["hello"]);
    assert!(world.peers[ALICE].device.prepare(number).unwrap().is_none(), "nothing is left to send");
    let next = world.send(ALICE, conversation, "next");
    let envelope = world.envelope(ALICE, &next, BOB);
    world.deliver(BOB, &envelope);
    assert_eq!(world.history(BOB)[0].counter, 2);
}
