//! The checker proves that it can fail: each fault planted in a good history is found, and nothing is found in the good one.

use martlet_e2e::{
    checker::{Violation, check},
    history::{GapSeen, History, Operation, Outcome},
    wire::message::Opened,
};
use martlet_protocol::{
    id::{ClientMessageId, ConversationId, DeviceId, EntryId, Hash, MessageId},
    wire::GapReason,
};

const DEVICES: [DeviceId; 3] = [DeviceId::new([1; 16]), DeviceId::new([2; 16]), DeviceId::new([3; 16])];
const CONVERSATION: ConversationId = ConversationId::new([9; 32]);

fn opened(number: u8, sender: DeviceId, seq: u64) -> Opened {
    Opened {
        seq,
        entry_id: EntryId::new([number; 16]),
        message_id: MessageId::new([number; 16]),
        client_message_id: ClientMessageId::new([number; 16]),
        sender,
        conversation_id: CONVERSATION,
        content: Hash::of(&[number]),
        header_is_right: true,
    }
}

/// Six messages of two senders to three devices; the fifth is unknown and arrived, the sixth was refused.
fn good() -> History {
    let mut history = History::default();
    for number in 1..=6_u8 {
        let sender = DEVICES[usize::from(number % 2)];
        let message_id = MessageId::new([number; 16]);
        let operation = history.invoke(Operation {
            client_message_id: ClientMessageId::new([number; 16]),
            sender,
            conversation_id: CONVERSATION,
            content: Hash::of(&[number]),
            devices: DEVICES.to_vec(),
            outcome: Outcome::Invoked,
        });
        history.settle(
            operation,
            match number {
                5 => Outcome::Unknown,
                6 => Outcome::Failed { code: "busy".into() },
                _ => Outcome::Ok { message_id, partial: Vec::new() },
            },
        );
        if number == 6 {
            continue;
        }
        for device in DEVICES {
            let part = history.device(device);
            let entry = opened(number, sender, u64::from(number));
            part.head_seq = entry.seq;
            // Everything comes twice over the wire, as after a reconnect.
            part.wire.extend([entry.clone(), entry.clone()]);
            part.applied.push(entry);
        }
    }
    history
}

/// Plants a fault in the last device's part and gives what is found.
fn found(plant: impl FnOnce(&mut History)) -> Vec<Violation> {
    let mut history = good();
    plant(&mut history);
    check(&history).violations
}

fn applied(history: &mut History) -> &mut Vec<Opened> {
    &mut history.device(DEVICES[2]).applied
}

#[test]
fn nothing_is_found_in_a_good_history() {
    let verdict = check(&good());
    assert_eq!(verdict.violations, []);
    assert_eq!((verdict.operations, verdict.ok, verdict.unknown, verdict.failed), (6, 4, 1, 1));
    assert_eq!((verdict.on_the_wire, verdict.applied, verdict.lost(), verdict.repeated()), (30, 15, 0, 0));
}

#[test]
fn a_lost_message_is_found() {
    let violations = found(|history| {
        applied(history).remove(1);
    });
    assert_eq!(violations, [Violation::Lost { operation: 1, device: 2 }]);
}

#[test]
fn a_message_that_never_came_leaves_a_hole_too() {
    let violations = found(|history| {
        applied(history).remove(1);
        history.device(DEVICES[2]).wire.retain(|entry| entry.seq != 2);
    });
    assert_eq!(violations, [Violation::Hole { seq: 2, device: 2 }, Violation::Lost { operation: 1, device: 2 }]);
}

#[test]
fn a_repeated_message_is_found() {
    let violations = found(|history| {
        let again = applied(history)[4].clone();
        applied(history).push(again);
    });
    assert_eq!(violations, [Violation::Repeated { operation: 4, device: 2 }]);
}

#[test]
fn a_retry_that_was_accepted_anew_is_found() {
    let violations = found(|history| {
        let mut again = applied(history)[4].clone();
        again.message_id = MessageId::new([77; 16]);
        applied(history).push(again);
    });
    assert!(violations.contains(&Violation::AcceptedTwice { operation: 4 }), "{violations:?}");
    assert!(violations.contains(&Violation::Repeated { operation: 4, device: 2 }), "{violations:?}");
}

#[test]
fn messages_in_another_order_are_found() {
    // The first and third are of one sender.
    let violations = found(|history| applied(history).swap(0, 2));
    assert_eq!(violations, [Violation::Reordered { earlier: 0, later: 2, device: 2 }]);
}

#[test]
fn messages_of_different_senders_have_no_order() {
    assert_eq!(found(|history| applied(history).swap(0, 1)), []);
}

#[test]
fn a_phantom_is_found() {
    let violations = found(|history| applied(history).push(opened(200, DEVICES[0], 6)));
    assert_eq!(violations, [Violation::Phantom { seq: 6, device: 2 }]);
}

#[test]
fn a_refused_message_that_arrives_is_a_phantom() {
    let violations = found(|history| applied(history).push(opened(6, DEVICES[0], 6)));
    assert_eq!(violations, [Violation::Phantom { seq: 6, device: 2 }]);
}

#[test]
fn a_message_for_others_is_a_phantom() {
    let violations = found(|history| history.operations[3].devices.retain(|device| *device != DEVICES[2]));
    assert_eq!(violations, [Violation::Phantom { seq: 4, device: 2 }]);
}

#[test]
fn altered_messages_are_found() {
    let alterations: [fn(&mut Opened); 4] = [
        |entry| entry.content = Hash::of(b"other"),
        |entry| entry.conversation_id = ConversationId::new([8; 32]),
        |entry| entry.header_is_right = false,
        |entry| entry.message_id = MessageId::new([99; 16]),
    ];
    for alter in alterations {
        let violations = found(|history| alter(&mut applied(history)[3]));
        assert!(violations.contains(&Violation::Altered { operation: 3, device: 2 }), "{violations:?}");
    }
    // Another sender's name on it makes it a message that nobody sent.
    let violations = found(|history| applied(history)[3].sender = DEVICES[2]);
    assert!(violations.contains(&Violation::Phantom { seq: 4, device: 2 }), "{violations:?}");
}

#[test]
fn an_unknown_send_on_some_devices_only_is_found() {
    let violations = found(|history| {
        applied(history).pop();
    });
    assert_eq!(violations, [Violation::Torn { operation: 4, device: 2 }]);
}

#[test]
fn a_number_that_means_two_entries_is_found() {
    let violations = found(|history| history.device(DEVICES[2]).wire.push(opened(3, DEVICES[1], 2)));
    assert_eq!(violations, [Violation::Renumbered { seq: 2, device: 2 }]);
}

#[test]
fn jumps_and_markers_without_reason_are_found() {
    let violations = found(|history| history.device(DEVICES[2]).jumps.push((3, 5)));
    assert_eq!(violations, [Violation::Hole { seq: 3, device: 2 }]);
    for reason in [GapReason::Unexplained, GapReason::Dormant] {
        let gap = GapSeen { from_seq: 6, to_seq: 7, reason };
        let violations = found(|history| history.device(DEVICES[2]).gaps.push(gap));
        assert_eq!(violations, [Violation::Gap { from_seq: 6, to_seq: 7, reason, device: 2 }]);
    }
    let own_ack = GapSeen { from_seq: 1, to_seq: 3, reason: GapReason::Acked };
    assert_eq!(found(|history| history.device(DEVICES[2]).gaps.push(own_ack)), []);
}

#[test]
fn refusals_and_sends_without_end_are_found() {
    let outcome = Outcome::Failed { code: "mismatch".into() };
    let violations = found(|history| history.settle(5, outcome));
    assert_eq!(violations, [Violation::Refused { operation: 5, code: "mismatch".into() }]);
    let violations = found(|history| history.settle(5, Outcome::Invoked));
    assert_eq!(violations, [Violation::Unsettled { operation: 5 }]);
}

#[test]
fn a_partial_device_is_not_owed_the_message() {
    let violations = found(|history| {
        let message_id = MessageId::new([2; 16]);
        history.settle(1, Outcome::Ok { message_id, partial: vec![DEVICES[2]] });
        let part = history.device(DEVICES[2]);
        part.applied.remove(1);
        part.wire.retain(|entry| entry.seq != 2);
        part.gaps.push(GapSeen { from_seq: 2, to_seq: 2, reason: GapReason::Quota });
    });
    assert_eq!(violations, []);
}
