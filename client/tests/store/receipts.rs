//! Receipts: few messages for many, none for receipts, and neither lost nor repeated by a crash.

use std::time::Duration;

use martlet_client::{Event, StoredMessage, device::ReceiptRules};
use martlet_protocol::wire::{self, MessageRef, ReceiptKind, content::Body};

use crate::scene::{NOW_MS, Scene};

fn with_delivered(scene: &mut Scene, max_per_message: usize) {
    let rules = ReceiptRules { delivered: true, max_per_message, ..ReceiptRules::default() };
    scene.reader().set_receipt_rules(rules);
}

fn bring(scene: &mut Scene, text: &str) {
    let entry = scene.entry(text);
    scene.reader().receive(&entry).unwrap();
    scene.reader().commit().unwrap();
}

/// Kinds and sizes of the receipts in the outbox.
fn made(scene: &mut Scene) -> Vec<(ReceiptKind, usize)> {
    let receipt = |content: &wire::Content| match &content.body {
        Some(Body::Receipt(receipt)) => (receipt.kind(), receipt.messages.len()),
        other => panic!("a receipt was expected, not {other:?}"),
    };
    scene.reader().outgoings().map(|outgoing| receipt(&outgoing.content())).collect()
}

fn history(scene: &mut Scene) -> Vec<StoredMessage> {
    scene.reader().history(0, usize::MAX).unwrap()
}

#[test]
fn nothing_is_told_unless_the_application_wants_it() {
    let mut scene = Scene::new();
    bring(&mut scene, "one");
    assert_eq!(scene.reader().receipts_due_at_ms(), None);
    assert_eq!(scene.reader().make_receipts(true).unwrap(), 0);
    assert_eq!(scene.reader().unsent(), 0);
}

#[test]
fn receipts_wait_for_others_and_go_in_few_messages() {
    let mut scene = Scene::new();
    with_delivered(&mut scene, 3);
    bring(&mut scene, "one");
    bring(&mut scene, "two");
    assert_eq!(scene.reader().receipts_due_at_ms(), Some(NOW_MS + 1000));
    assert_eq!(scene.reader().make_receipts(false).unwrap(), 0, "the first waits for a second");
    bring(&mut scene, "three");
    assert_eq!(scene.reader().receipts_due_at_ms(), Some(0), "a full one needs not wait");
    bring(&mut scene, "four");
    assert_eq!(scene.reader().make_receipts(false).unwrap(), 2);
    assert_eq!(made(&mut scene), [(ReceiptKind::Delivered, 3), (ReceiptKind::Delivered, 1)]);
    assert_eq!(scene.reader().receipts_due_at_ms(), None);
    let later = ReceiptRules { delay: Duration::ZERO, ..ReceiptRules::default() };
    scene.reader().set_receipt_rules(later);
    let messages = history(&mut scene);
    scene.reader().set_read(&messages[..2]).unwrap();
    assert_eq!(scene.reader().make_receipts(false).unwrap(), 1, "its time has come at once");
    assert_eq!(made(&mut scene)[2], (ReceiptKind::Read, 2));
}

#[test]
fn who_is_told_of_reading_is_not_told_of_arrival_too() {
    let mut scene = Scene::new();
    with_delivered(&mut scene, 100);
    bring(&mut scene, "one");
    bring(&mut scene, "two");
    let messages = history(&mut scene);
    scene.reader().set_read(&messages[..1]).unwrap();
    scene.crash();
    assert_eq!(scene.reader().make_receipts(true).unwrap(), 2);
    assert_eq!(made(&mut scene), [(ReceiptKind::Delivered, 1), (ReceiptKind::Read, 1)]);
}

#[test]
fn a_crash_at_any_point_loses_and_repeats_none() {
    let mut scene = Scene::new();
    with_delivered(&mut scene, 100);
    let entry = scene.entry("one");
    scene.reader().receive(&entry).unwrap();
    scene.crash();
    assert_eq!(scene.reader().receipts_due_at_ms(), None, "the message was not stored, so nothing is to be told");
    with_delivered(&mut scene, 100);
    scene.reader().receive(&entry).unwrap();
    scene.reader().commit().unwrap();
    scene.crash();
    assert_eq!(scene.reader().receipts_due_at_ms(), Some(NOW_MS + 1000), "noted with the message");
    let messages = history(&mut scene);
    scene.reader().set_read(&messages).unwrap();
    scene.crash();
    assert_eq!(scene.reader().make_receipts(true).unwrap(), 1);
    scene.crash();
    assert_eq!(made(&mut scene), [(ReceiptKind::Read, 1)], "in the outbox with the commit");
    assert_eq!(scene.reader().make_receipts(true).unwrap(), 0, "and not noted any more");
}

#[test]
fn a_receipt_is_told_once_and_answered_by_none() {
    let mut scene = Scene::new();
    with_delivered(&mut scene, 100);
    let id = vec![3; 16];
    let messages = vec![
        MessageRef { sender_device_id: scene.reader().device_id().to_wire(), client_message_id: id.clone().into() },
        MessageRef { sender_device_id: vec![1; 3].into(), client_message_id: id.into() },
    ];
    let receipt = wire::Receipt { kind: ReceiptKind::Read.into(), messages };
    let entry = scene.entry_of(&wire::Content { body: Some(Body::Receipt(receipt)) });
    let own = scene.reader().device_id();
    match scene.reader().receive(&entry).unwrap().as_slice() {
        [Event::Receipt { number: 1, kind: ReceiptKind::Read, messages, device_id, .. }] => {
            assert_eq!(messages.len(), 1, "a name that can't be read is left out");
            assert_eq!(messages[0].0, own);
            assert_eq!(*device_id, scene.sender.device_id());
        }
        other => panic!("{other:?}"),
    }
    scene.reader().commit().unwrap();
    assert!(scene.reader().receive(&entry).unwrap().is_empty());
    let messages = history(&mut scene);
    assert_eq!(messages.len(), 1, "an application that missed the event finds it in the history");
    scene.reader().set_read(&messages).unwrap();
    assert_eq!(scene.reader().make_receipts(true).unwrap(), 0);
}
