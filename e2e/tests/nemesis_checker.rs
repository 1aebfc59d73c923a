//! The nemesis's checker proves that it can fail: each fault planted in a good history is found, and nothing is found in the good one.

use std::sync::Arc;

use martlet_e2e::{
    nemesis::{
        checker::{Class, Verdict, Violation, check},
        history::{Delivery, GapSeen, History, Operation, Outcome, Revocation},
    },
    wire::message::Opened,
};
use martlet_protocol::{
    id::{ClientMessageId, ConversationId, DeviceId, EntryId, Hash, MessageId},
    wire::GapReason,
};

/// The last one is revoked at [`REVOKED_MS`].
const DEVICES: [DeviceId; 4] =
    [DeviceId::new([1; 16]), DeviceId::new([2; 16]), DeviceId::new([3; 16]), DeviceId::new([4; 16])];
const CONVERSATION: ConversationId = ConversationId::new([9; 32]);
/// One message per second.
const SECOND: u64 = 1_000;
const REVOKED_MS: u64 = 4_500;
/// Faults go on from the first message to before the last.
const FAULTS_MS: (u64, u64) = (SECOND, 7_900);
/// Who watches [`Violation::Stalled`] must see so much after the answer.
const LONG_AFTER_MS: u64 = 60_000;

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

fn delivery(number: u8, sender: DeviceId, at_ms: u64) -> Delivery {
    Delivery { entry: opened(number, sender, u64::from(number)), at_ms, written_after_ms: at_ms }
}

/// Eight messages, a second apart, of two senders to all devices that are active: the sixth is unknown and arrived, the seventh was
/// refused, the eighth is sent after the last heal.
fn good() -> History {
    let mut history = History { faults_ms: FAULTS_MS, ..History::default() };
    for number in 1..=8_u8 {
        let at_ms = u64::from(number) * SECOND;
        let active = if at_ms > REVOKED_MS { 3 } else { 4 };
        let sender = DEVICES[usize::from(number % 2)];
        let message_id = MessageId::new([number; 16]);
        let operation = history.invoke(Operation {
            client_message_id: ClientMessageId::new([number; 16]),
            sender,
            conversation_id: CONVERSATION,
            content: Hash::of(&[number]),
            devices: Arc::from(&DEVICES[..active]),
            invoked_ms: at_ms,
            settled_ms: 0,
            overtaken: false,
            outcome: Outcome::Invoked,
            answered_otherwise: None,
        });
        let outcome = match number {
            6 => Outcome::Unknown,
            7 => Outcome::Failed { code: "busy".into() },
            _ => Outcome::Ok { message_id, partial: Vec::new() },
        };
        history.settle(operation, outcome, at_ms + 10);
        if number == 7 {
            continue;
        }
        for device in &DEVICES[..active] {
            let part = history.device(*device);
            let mut given = delivery(number, sender, at_ms + 20);
            // The refused one has no number.
            given.entry.seq -= u64::from(number > 7);
            part.head_seq = Some(given.entry.seq);
            // Everything comes twice over the wire, as after a reconnect.
            part.deliveries.extend([given.clone(), given]);
        }
    }
    for device in DEVICES {
        history.device(device).sessions = vec![(0, 100_000)];
    }
    let revoked = history.device(DEVICES[3]);
    revoked.revoked = Some(Revocation { asked_ms: REVOKED_MS - 5, answered_ms: Some(REVOKED_MS) });
    revoked.head_seq = None;
    history
}

fn judged(plant: impl FnOnce(&mut History)) -> Verdict {
    let mut history = good();
    plant(&mut history);
    check(&history)
}

/// Plants a fault and gives what is found.
fn found(plant: impl FnOnce(&mut History)) -> Vec<Violation> {
    judged(plant).violations
}

/// What the third device was given.
fn given(history: &mut History) -> &mut Vec<Delivery> {
    &mut history.device(DEVICES[2]).deliveries
}

#[test]
fn nothing_is_found_in_a_good_history() {
    let verdict = judged(|_| {});
    assert_eq!(verdict.violations, []);
    assert_eq!((verdict.operations, verdict.ok, verdict.unknown, verdict.failed), (8, 6, 1, 1));
    assert_eq!((verdict.on_the_wire, verdict.applied, verdict.revoked), (50, 25, 1));
    assert_eq!((verdict.without_answer_ms, verdict.without_delivery_ms), (2_890, 1_880));
    assert_eq!(verdict.back_ms, 120);
}

#[test]
fn a_lost_message_is_found() {
    let violations = found(|history| given(history).retain(|given| given.entry.seq != 2));
    let lost = [Violation::Hole { seq: 2, device: 2 }, Violation::Lost { operation: 1, device: 2 }];
    assert!(lost.iter().all(|lost| violations.contains(lost)), "{violations:?}");
    assert!(violations.iter().all(|violation| violation.class() == Class::Lost), "{violations:?}");
}

#[test]
fn a_loss_that_a_marker_does_not_explain_is_found() {
    let plant = |reason| {
        move |history: &mut History| {
            given(history).retain(|given| given.entry.seq != 2);
            history.device(DEVICES[2]).gaps.push(GapSeen { from_seq: 2, to_seq: 2, reason });
        }
    };
    for reason in [GapReason::Unexplained, GapReason::Acked, GapReason::Dormant] {
        let gap = Violation::Gap { from_seq: 2, to_seq: 2, reason, device: 2 };
        let violations = found(plant(reason));
        assert!(violations.contains(&gap) && violations.contains(&Violation::Lost { operation: 1, device: 2 }));
    }
}

#[test]
fn a_marker_for_what_was_delivered_and_acknowledged_is_none() {
    let verdict = judged(|history| {
        history.device(DEVICES[2]).gaps.push(GapSeen { from_seq: 1, to_seq: 3, reason: GapReason::Acked });
    });
    assert_eq!((verdict.violations.len(), verdict.gaps), (0, 1));
}

#[test]
fn a_marker_that_the_answer_names_is_no_loss() {
    let violations = found(|history| {
        given(history).retain(|given| given.entry.seq != 2);
        history.device(DEVICES[2]).gaps.push(GapSeen { from_seq: 2, to_seq: 2, reason: GapReason::Quota });
        let Outcome::Ok { partial, .. } = &mut history.operations[1].outcome else { panic!("answered") };
        partial.push(DEVICES[2]);
    });
    assert_eq!(violations, []);
}

#[test]
fn an_entry_that_jumps_is_found() {
    let violations = found(|history| history.device(DEVICES[2]).jumps.push((3, 5)));
    assert_eq!(violations, [Violation::Hole { seq: 3, device: 2 }]);
}

#[test]
fn after_the_last_heal_a_forgotten_socket_is_found_sooner() {
    let stalled = |by_ms| {
        let violations = found(|history| {
            // The one after the heal, which comes twice.
            given(history).iter_mut().rev().take(2).for_each(|given| given.at_ms += by_ms);
        });
        violations.contains(&Violation::Stalled { operation: 7, device: 2 })
    };
    assert!(!stalled(9_000) && stalled(11_000));
}

#[test]
fn a_socket_that_is_forgotten_is_found() {
    let late = |history: &mut History| {
        for given in given(history).iter_mut().filter(|given| given.entry.seq == 2) {
            given.at_ms += LONG_AFTER_MS;
        }
    };
    assert_eq!(found(late), [Violation::Stalled { operation: 1, device: 2 }]);
    let reconnected = found(|history| {
        late(history);
        history.device(DEVICES[2]).sessions = vec![(0, 3_000), (3_100, 100_000)];
    });
    assert_eq!(reconnected, [], "only who stays on a socket waits for it");
}

#[test]
fn a_retry_that_was_accepted_anew_is_found() {
    let violations = found(|history| {
        let mut again = given(history)[4].clone();
        again.entry.message_id = MessageId::new([77; 16]);
        again.entry.seq = 8;
        given(history).push(again);
    });
    assert!(violations.contains(&Violation::AcceptedTwice { operation: 2 }), "{violations:?}");
    assert!(violations.contains(&Violation::Repeated { operation: 2, device: 2 }), "{violations:?}");
}

#[test]
fn another_answer_to_the_same_question_is_found() {
    let violations = found(|history| history.answered_again(0, MessageId::new([77; 16])));
    assert_eq!(violations, [Violation::AcceptedTwice { operation: 0 }]);
    assert_eq!(found(|history| history.answered_again(0, MessageId::new([1; 16]))), []);
}

#[test]
fn a_changed_order_is_found() {
    let swap = |history: &mut History| {
        let given = given(history);
        let (third, first) = (given[4].clone(), given[0].clone());
        (given[0].entry, given[1].entry) = (Opened { seq: 1, ..third.entry.clone() }, Opened { seq: 1, ..third.entry });
        (given[4].entry, given[5].entry) = (Opened { seq: 3, ..first.entry.clone() }, Opened { seq: 3, ..first.entry });
    };
    let reordered = Violation::Reordered { earlier: 0, later: 2, device: 2 };
    assert_eq!(found(swap), [reordered]);
    let overtaken = found(|history| {
        swap(history);
        history.operations[0].overtaken = true;
        history.operations[0].settled_ms = 3_500;
    });
    assert_eq!(overtaken, [], "a sender may overtake itself while it is refused");
    let afterwards = found(|history| {
        swap(history);
        history.operations[0].overtaken = true;
    });
    assert_eq!(afterwards.len(), 1, "but not with what it wrote after the answer");
}

#[test]
fn one_number_for_two_entries_is_found() {
    let violations = found(|history| {
        let mut other = delivery(6, DEVICES[0], 6_030);
        other.entry.seq = 5;
        given(history).insert(10, other);
    });
    assert_eq!(violations, [Violation::Renumbered { seq: 5, device: 2 }]);
}

#[test]
fn what_nobody_sent_is_found() {
    let violations = found(|history| {
        let mut refused = delivery(7, DEVICES[1], 8_100);
        refused.entry.seq = 8;
        given(history).push(refused);
    });
    assert_eq!(violations, [Violation::Phantom { seq: 8, device: 2 }]);
}

#[test]
fn changed_bytes_are_found() {
    let violations = found(|history| given(history)[0].entry.content = Hash::of(b"other"));
    assert_eq!(violations, [Violation::Altered { operation: 0, device: 2 }]);
}

#[test]
fn a_message_that_some_devices_got_is_found() {
    let violations = found(|history| {
        given(history).retain(|given| given.entry.seq != 6);
        history.device(DEVICES[2]).gaps.push(GapSeen { from_seq: 6, to_seq: 6, reason: GapReason::Expired });
    });
    assert_eq!(violations, [Violation::Torn { operation: 5, device: 2 }]);
}

#[test]
fn what_a_revoked_device_got_is_found() {
    let accepted_after = found(|history| {
        history.operations[4].devices = Arc::from(DEVICES);
        history.device(DEVICES[3]).deliveries.push(delivery(5, DEVICES[1], 5_020));
    });
    assert_eq!(accepted_after, [Violation::AcceptedAfterRevocation { operation: 4, device: 3 }]);
    let mut late = delivery(4, DEVICES[0], 9_000);
    late.written_after_ms = REVOKED_MS + 1_001;
    let written_after = found(|history| history.device(DEVICES[3]).deliveries.push(late.clone()));
    assert_eq!(written_after, [Violation::WrittenAfterRevocation { seq: 4, device: 3, late_ms: 1_001 }]);
    late.written_after_ms -= 1;
    assert_eq!(found(|history| history.device(DEVICES[3]).deliveries.push(late)), [], "a slow reader accuses nobody");
    let served = found(|history| history.device(DEVICES[3]).served_after_revocation_ms = Some(REVOKED_MS + 5_000));
    assert_eq!(served, [Violation::ServedAfterRevocation { device: 3, late_ms: 5_000 }]);
}

#[test]
fn a_revoked_device_is_owed_nothing() {
    assert_eq!(found(|history| history.device(DEVICES[3]).deliveries.truncate(2)), []);
}

#[test]
fn a_refusal_without_a_reason_is_found() {
    let refuse = |code: &'static str| {
        move |history: &mut History| history.settle(6, Outcome::Failed { code: code.into() }, 7_010)
    };
    let refused = |code: &str| Violation::Refused { operation: 6, code: code.to_owned() };
    assert_eq!(found(refuse("message_id_reused")), [refused("message_id_reused")]);
    assert_eq!(found(refuse("unauthenticated")), [refused("unauthenticated")]);
    assert_eq!(found(refuse("mismatch")), []);
}

#[test]
fn a_message_that_is_forgotten_when_it_is_sent_again_is_found() {
    let violations = found(|history| history.refused_again(0, "mismatch"));
    assert!(matches!(&violations[..], [Violation::Odd { device: 1, .. }]), "{violations:?}");
}

#[test]
fn a_device_that_nothing_reaches_after_the_heal_is_found() {
    let violations = found(|history| history.faults_ms.1 = 8_001);
    assert_eq!(violations.len(), 3, "{violations:?}");
    assert!(violations.iter().all(|violation| matches!(violation, Violation::NotBack { after_ms: None, .. })));
    let late = found(|history| {
        for device in &DEVICES[..3] {
            history.device(*device).deliveries.iter_mut().skip(12).for_each(|given| given.at_ms += 11_000);
        }
    });
    let not_back = |violation: &&Violation| matches!(violation, Violation::NotBack { after_ms: Some(11_120), .. });
    assert_eq!(late.iter().filter(not_back).count(), 3, "{late:?}");
}

#[test]
fn a_node_that_ends_by_itself_and_a_send_that_never_does_are_found() {
    assert_eq!(found(|history| history.nodes_ended.push((1, 7))), [Violation::NodeEnded { node: 1, at_ms: 7 }]);
    let unsettled = found(|history| history.operations[6].outcome = Outcome::Invoked);
    assert_eq!(unsettled, [Violation::Unsettled { operation: 6 }]);
}
