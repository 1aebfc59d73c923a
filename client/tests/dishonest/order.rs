//! Dropping, holding back and mixing up messages shows once a later message of the same device arrives.

use martlet_client::{Event, Refused};
use martlet_protocol::wire;

use crate::world::{ALICE, BOB, World, refused};

/// From where to where, and why.
fn gaps(events: &[Event]) -> Vec<(u64, u64, wire::GapReason)> {
    let gap = |event: &Event| match event {
        Event::Gap(gap) => Some((gap.from_seq, gap.to_seq, gap.reason())),
        _ => None,
    };
    events.iter().filter_map(gap).collect()
}

#[test]
fn a_dropped_message_is_reported_by_the_next() {
    let (mut world, conversation) = World::pair();
    world.say(ALICE, conversation, "one", BOB);
    world.send(ALICE, conversation, "two, which the server keeps");
    world.send(ALICE, conversation, "three, which it keeps too");
    let events = world.say(ALICE, conversation, "four", BOB);
    assert!(events.iter().any(|event| matches!(event, Event::Dropped { count: 2, .. })));
    assert_eq!(world.texts(BOB), ["one", "four"], "what came is read all the same");
}

#[test]
fn a_message_that_comes_late_is_reported() {
    let (mut world, conversation) = World::pair();
    world.say(ALICE, conversation, "one", BOB);
    let held_back = world.send(ALICE, conversation, "two");
    world.say(ALICE, conversation, "three", BOB);
    let envelope = world.envelope(ALICE, &held_back, BOB);
    let events = world.deliver(BOB, &envelope);
    assert!(events.iter().any(|event| matches!(event, Event::Reordered { counter: 2, .. })));
    // The order goes on from the newest.
    let events = world.say(ALICE, conversation, "four", BOB);
    assert!(!events.iter().any(|event| matches!(event, Event::Dropped { .. } | Event::HistoryDiffers { .. })));
    assert_eq!(world.texts(BOB), ["one", "three", "two", "four"]);
}

#[test]
fn a_device_that_joined_later_reports_nothing_about_the_time_before() {
    let (mut world, conversation) = World::pair();
    world.say(ALICE, conversation, "one", BOB);
    let second = world.link_device(BOB);
    world.introduce(ALICE, BOB);
    world.introduce(second, ALICE);
    let links = world.links[&conversation].clone();
    world.peers[second].device.absorb_membership(&conversation, &links).unwrap();
    let events = world.say(ALICE, conversation, "two", second);
    assert!(matches!(events.as_slice(), [Event::Message(_)]));
}

#[test]
fn a_gap_marker_moves_the_cursor_and_is_told() {
    let (mut world, conversation) = World::pair();
    let gap = wire::Gap { from_seq: 1, to_seq: 7, count: 7, reason: wire::GapReason::Quota.into() };
    let events = world.peers[BOB].device.receive_gap(&gap);
    assert!(matches!(events.as_slice(), [Event::Gap(told)] if told.count == 7));
    world.peers[BOB].device.commit().unwrap();
    assert_eq!(world.peers[BOB].device.cursor().unwrap().seq, 7);
    world.peers[BOB].seq = 7;
    world.say(ALICE, conversation, "after", BOB);
    assert_eq!(world.texts(BOB), ["after"]);
}

#[test]
fn numbers_that_nothing_explains_are_told() {
    let (mut world, conversation) = World::pair();
    world.say(ALICE, conversation, "one", BOB);
    // The server leaves 2 to 4 out and says nothing of them.
    world.peers[BOB].seq = 4;
    let events = world.say(ALICE, conversation, "five", BOB);
    assert_eq!(gaps(&events), [(2, 4, wire::GapReason::Unexplained)]);
    assert_eq!(world.texts(BOB), ["one", "five"], "what came is read all the same");
    // A marker explains 8 and 9 only.
    let gap = wire::Gap { from_seq: 8, to_seq: 9, count: 2, reason: wire::GapReason::Expired.into() };
    let events = world.peers[BOB].device.receive_gap(&gap);
    assert_eq!(gaps(&events), [(6, 7, wire::GapReason::Unexplained), (8, 9, wire::GapReason::Expired)]);
}

#[test]
fn entries_before_the_cursor_are_passed_over() {
    let (mut world, conversation) = World::pair();
    let request = world.send(ALICE, conversation, "one");
    let envelope = world.envelope(ALICE, &request, BOB);
    let entry = world.seal(BOB, &envelope);
    assert_eq!(refused(&world.receive(BOB, &entry)), []);
    assert!(world.receive(BOB, &entry).is_empty());
    assert_eq!(world.texts(BOB), ["one"]);
}

#[test]
fn one_number_for_two_messages_is_refused() {
    let (mut world, conversation) = World::pair();
    let (number, first) = world.compose(ALICE, conversation, "what Bob is told");
    // Alice's device is set back to before the first message, as a restored copy would be.
    let failed = world.peers[ALICE].device.on_failed(number, None, "as if refused".into()).unwrap();
    assert!(failed.is_some());
    let envelope = world.envelope(ALICE, &first, BOB);
    assert_eq!(refused(&world.deliver(BOB, &envelope)), []);
    let second = world.send(ALICE, conversation, "what Carol is told");
    let envelope = world.envelope(ALICE, &second, BOB);
    assert_eq!(refused(&world.deliver(BOB, &envelope)), [Refused::CounterReused]);
}
