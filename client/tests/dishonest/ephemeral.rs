//! Ephemeral messages: heard once, in time, from who may speak; and never taken for what is stored, nor the other way round.

use std::{cell::RefCell, time::Duration};

use martlet_client::{
    ClientError, Event, Refused,
    compose::{Draft, compose},
    device::{PrepareError, SendHalt},
};
use martlet_protocol::{
    crypto::SigningKey,
    id::{ClientMessageId, ConversationId},
    wire::{self, PresenceStatus, TypingState, content::Body},
};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

use crate::world::{ALICE, BOB, World, refused, text_content};

fn typing() -> wire::Content {
    wire::Content { body: Some(Body::Typing(wire::Typing { state: TypingState::Started.into() })) }
}

/// Composes honestly, up to the request that would go to the server.
fn whisper(world: &mut World, sender: usize, conversation: ConversationId, body: &wire::Content) -> wire::SendRequest {
    loop {
        match world.peers[sender].device.compose_ephemeral(conversation, body) {
            Ok(request) => return request,
            Err(PrepareError::Halt(SendHalt::Claim(claim))) => {
                let answer = world.claim(&claim);
                world.peers[sender].device.absorb_claim(&claim, &answer).unwrap();
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// What the node would push.
fn frame(world: &mut World, envelope: &wire::SealedMessage, recipient: usize) -> wire::Ephemeral {
    let entry = world.seal(recipient, envelope);
    world.peers[recipient].seq -= 1;
    wire::Ephemeral { entry_id: entry.entry_id, sealed: entry.sealed, content: entry.content, expires_at_ms: 0 }
}

fn hear(world: &mut World, recipient: usize, frame: &wire::Ephemeral) -> Vec<Event> {
    world.peers[recipient].device.receive_ephemeral(frame).unwrap()
}

/// Carries a request as an ephemeral message.
fn push(world: &mut World, request: &wire::SendRequest) -> Vec<Event> {
    let envelope = world.envelope(ALICE, request, BOB);
    let frame = frame(world, &envelope, BOB);
    hear(world, BOB, &frame)
}

fn is_typing(events: &[Event]) -> bool {
    matches!(events, [Event::Typing { started: true, .. }])
}

/// A request that an honest device would not make.
fn forged(
    world: &mut World,
    conversation: ConversationId,
    body: &wire::Content,
    edit: fn(&mut Draft<'_>),
) -> wire::SendRequest {
    let signed = world.peers[BOB].stock.signed_prekey.clone().unwrap();
    let bob = world.device_id(BOB);
    let target = world.chain(BOB).check_prekey(&signed, &bob, world.now_ms()).unwrap();
    let mut heads = [world.chain(ALICE).head(), world.chain(BOB).head()];
    heads.sort_by_key(|head| head.account_id);
    let mut draft = Draft {
        conversation_id: conversation,
        membership: world.peers[ALICE].device.trust().conversation(&conversation).unwrap().head().head(),
        list_heads: &heads,
        client_message_id: ClientMessageId::random(&mut world.rng),
        sent_at_ms: world.now_ms(),
        counter: 0,
        previous: None,
        body,
        lifetime_seconds: 0,
        ephemeral_until_ms: world.now_ms() + 10_000,
    };
    edit(&mut draft);
    let mut rng = world.fork_rng();
    let keys = world.peers[ALICE].device.keys().clone();
    compose(&keys, &draft, &[target], &mut rng).unwrap().request
}

#[test]
fn typing_presence_and_call_signals_are_told_and_kept_nowhere() {
    let (mut world, conversation) = World::pair();
    let (account, device) = (world.account(ALICE), world.device_id(ALICE));
    let request = whisper(&mut world, ALICE, conversation, &typing());
    match push(&mut world, &request).as_slice() {
        [Event::Typing { conversation_id, account_id, device_id, started: true }] => {
            assert_eq!((*conversation_id, *account_id, *device_id), (conversation, account, device));
        }
        other => panic!("{other:?}"),
    }
    let signal = wire::CallSignal { call_id: vec![1; 16].into(), payload: vec![2; 3000].into() };
    let request = whisper(&mut world, ALICE, conversation, &wire::Content { body: Some(Body::CallSignal(signal)) });
    match push(&mut world, &request).as_slice() {
        [Event::CallSignal { call_id, payload, .. }] => assert_eq!((call_id.len(), payload.len()), (16, 3000)),
        other => panic!("{other:?}"),
    }
    let away = wire::Presence { status: PresenceStatus::Away.into() };
    let request = whisper(&mut world, ALICE, conversation, &wire::Content { body: Some(Body::Presence(away)) });
    let events = push(&mut world, &request);
    assert!(matches!(events.as_slice(), [Event::Presence { status: PresenceStatus::Away, .. }]));

    assert!(world.history(BOB).is_empty());
    assert_eq!(world.peers[BOB].device.cursor().unwrap().seq, 0);
    let stored = world.send(ALICE, conversation, "hello");
    assert_eq!(stored.forks[0].header[0], 2, "the one-time key was left for the message");
    let envelope = world.envelope(ALICE, &stored, BOB);
    assert!(
        matches!(world.deliver(BOB, &envelope).as_slice(), [Event::Message(_)]),
        "and the order of messages was not touched"
    );
}

#[test]
fn a_replay_is_dropped_and_so_is_what_is_late_or_early() {
    let (mut world, conversation) = World::pair();
    let request = whisper(&mut world, ALICE, conversation, &typing());
    let envelope = world.envelope(ALICE, &request, BOB);
    let first = frame(&mut world, &envelope, BOB);
    assert!(is_typing(&hear(&mut world, BOB, &first)));
    assert!(hear(&mut world, BOB, &first).is_empty());
    // Under another seal and another message id, with another time of the node's.
    let envelope = wire::SealedMessage { accepted_at_ms: 1, ..world.envelope(ALICE, &request, BOB) };
    let again = frame(&mut world, &envelope, BOB);
    assert!(hear(&mut world, BOB, &again).is_empty());
    world.clock.advance(Duration::from_secs(100));
    assert!(hear(&mut world, BOB, &again).is_empty());

    // Held back by the server: clocks may differ by two minutes, not by more.
    let late = whisper(&mut world, ALICE, conversation, &typing());
    let very_late = whisper(&mut world, ALICE, conversation, &typing());
    world.clock.advance(Duration::from_secs(130));
    assert!(is_typing(&push(&mut world, &late)));
    world.clock.advance(Duration::from_secs(1));
    assert!(push(&mut world, &very_late).is_empty());
    world.clock.advance(Duration::from_secs(1000));
    assert!(push(&mut world, &late).is_empty());
    let early = forged(&mut world, conversation, &typing(), |draft| {
        draft.sent_at_ms += 121_000;
        draft.ephemeral_until_ms += 121_000;
    });
    assert!(push(&mut world, &early).is_empty());
}

#[test]
fn a_stored_message_does_not_pass_for_an_ephemeral_one() {
    let (mut world, conversation) = World::pair();
    let first = world.send(ALICE, conversation, "under a one-time key");
    let second = world.send(ALICE, conversation, "under the signed one");
    assert_eq!((first.forks[0].header[0], second.forks[0].header[0]), (2, 1));
    for request in [&first, &second] {
        assert_eq!(refused(&push(&mut world, request)), [Refused::EphemeralConfused]);
    }
    assert!(world.history(BOB).is_empty());
    for request in [&first, &second] {
        let envelope = world.envelope(ALICE, request, BOB);
        assert_eq!(refused(&world.deliver(BOB, &envelope)), [], "nothing was used up");
        assert_eq!(refused(&push(&mut world, request)).len(), 1, "nor afterwards");
    }
    assert_eq!(world.texts(BOB), ["under a one-time key", "under the signed one"]);
    assert_eq!(world.peers[BOB].device.unsent(), 0, "and nothing is asked for again");
}

#[test]
fn an_ephemeral_message_does_not_pass_for_a_stored_one() {
    let (mut world, conversation) = World::pair();
    world.say(ALICE, conversation, "one", BOB);
    let request = whisper(&mut world, ALICE, conversation, &typing());
    let envelope = world.envelope(ALICE, &request, BOB);
    assert_eq!(refused(&world.deliver(BOB, &envelope)), [Refused::EphemeralConfused]);
    let events = world.say(ALICE, conversation, "two", BOB);
    assert!(matches!(events.as_slice(), [Event::Message(_)]), "nothing is missing between the two");
    assert!(is_typing(&push(&mut world, &request)), "as what it is it is heard still");
}

#[test]
fn neither_kind_says_what_the_other_does() {
    let (mut world, conversation) = World::pair();
    let text = forged(&mut world, conversation, &text_content("not stored"), |_| {});
    assert_eq!(refused(&push(&mut world, &text)), [Refused::EphemeralConfused]);
    let stored = forged(&mut world, conversation, &typing(), |draft| {
        (draft.counter, draft.ephemeral_until_ms) = (1, 0);
    });
    let envelope = world.envelope(ALICE, &stored, BOB);
    assert_eq!(refused(&world.deliver(BOB, &envelope)), [Refused::EphemeralConfused]);
    // Own devices don't make such messages.
    let device = &mut world.peers[ALICE].device;
    assert!(matches!(device.enqueue(conversation, &typing(), 0), Err(ClientError::NotAllowed(_))));
    let composed = device.compose_ephemeral(conversation, &text_content("not stored"));
    assert!(matches!(composed, Err(PrepareError::Client(ClientError::NotAllowed(_)))));
    assert_eq!(device.unsent(), 0);
}

#[test]
fn a_life_that_is_too_long_or_a_number_is_unreadable() {
    let (mut world, conversation) = World::pair();
    let edits: [fn(&mut Draft<'_>); 3] = [
        |draft| draft.ephemeral_until_ms += 60_000,
        |draft| draft.ephemeral_until_ms = draft.sent_at_ms,
        |draft| draft.counter = 1,
    ];
    for edit in edits {
        let request = forged(&mut world, conversation, &typing(), edit);
        assert_eq!(refused(&push(&mut world, &request)), [Refused::PlaintextUnreadable]);
    }
}

#[test]
fn only_a_listed_device_of_a_member_is_heard() {
    let (mut world, conversation) = World::pair();
    let request = whisper(&mut world, ALICE, conversation, &typing());
    let mut moved = world.envelope(ALICE, &request, BOB);
    moved.sender_account_id = world.account(BOB).to_wire();
    let moved = frame(&mut world, &moved, BOB);
    assert_eq!(refused(&hear(&mut world, BOB, &moved)).len(), 1);
    // The server knows everything but Alice's signing key.
    let mut keys = world.peers[ALICE].device.keys().clone();
    keys.signing = SigningKey::generate(&mut world.rng);
    let honest = forged(&mut world, conversation, &typing(), |_| {});
    let signed = world.peers[BOB].stock.signed_prekey.clone().unwrap();
    let target = world.chain(BOB).check_prekey(&signed, &world.device_id(BOB), world.now_ms()).unwrap();
    let heads = [world.chain(ALICE).head(), world.chain(BOB).head()];
    let draft = Draft {
        conversation_id: conversation,
        membership: world.peers[ALICE].device.trust().conversation(&conversation).unwrap().head().head(),
        list_heads: &heads,
        client_message_id: honest.client_message_id.as_ref().try_into().unwrap(),
        sent_at_ms: world.now_ms(),
        counter: 0,
        previous: None,
        body: &typing(),
        lifetime_seconds: 0,
        ephemeral_until_ms: world.now_ms() + 10_000,
    };
    let mut rng = world.fork_rng();
    let impostor = compose(&keys, &draft, &[target], &mut rng).unwrap().request;
    assert_eq!(refused(&push(&mut world, &impostor)), [Refused::SignatureInvalid]);
    assert!(is_typing(&push(&mut world, &honest)), "the id was not used up by the forgery");
}

#[test]
fn a_removed_device_is_not_heard_any_more() {
    let (mut world, conversation) = World::pair();
    let second = world.link_device(ALICE);
    let request = whisper(&mut world, ALICE, conversation, &typing());
    world.remove_device(second, ALICE);
    world.introduce(BOB, ALICE);
    assert!(push(&mut world, &request).is_empty());
}

#[test]
fn no_damage_to_a_frame_is_heard_and_no_bytes_make_the_reader_panic() {
    let (mut world, conversation) = World::pair();
    let request = whisper(&mut world, ALICE, conversation, &typing());
    let envelope = world.envelope(ALICE, &request, BOB);
    let honest = frame(&mut world, &envelope, BOB);
    let world = RefCell::new(world);
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() });
    let strategy = (any::<prop::sample::Index>(), 0..8_u8, vec(any::<u8>(), 0..300), any::<u8>());
    let outcome = runner.run(&strategy, |(at, bit, junk, what)| {
        let mut damaged = honest.clone();
        match what % 4 {
            0 => {
                let mut sealed = damaged.sealed.to_vec();
                let at = at.index(sealed.len());
                sealed[at] ^= 1 << bit;
                damaged.sealed = sealed.into();
            }
            1 => damaged.sealed = damaged.sealed.slice(..at.index(damaged.sealed.len())),
            2 => damaged.sealed = junk.into(),
            _ => damaged.entry_id = junk.into(),
        }
        prop_assert_eq!(refused(&hear(&mut world.borrow_mut(), BOB, &damaged)), [Refused::SealBroken]);
        Ok(())
    });
    outcome.unwrap();
    assert!(is_typing(&hear(&mut world.borrow_mut(), BOB, &honest)));
}
