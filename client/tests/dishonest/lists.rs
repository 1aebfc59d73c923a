//! Lies about device lists.

use martlet_client::{Refused, trust::KnownAccount};
use martlet_protocol::{
    chain::devices::{DeviceList, ListError},
    rest::SignedDeviceList,
};

use crate::world::{ALICE, BOB, World};

#[test]
fn a_device_that_nobody_signed_for_is_refused() {
    let (mut world, _) = World::pair();
    let (keys, _, _, list) = world.next_device(BOB);
    let account = world.account(BOB);
    let mut only_the_new_one = list.clone();
    only_the_new_one.signatures.retain(|signature| signature.device_id == keys.device_id);
    let refused = world.peers[ALICE].device.absorb_lists(&account, &[only_the_new_one]);
    assert_eq!(refused, Err(Refused::ListInvalid(ListError::OldDeviceSignatureMissing)));

    let mut without_consent = list.clone();
    without_consent.signatures.retain(|signature| signature.device_id != keys.device_id);
    let refused = world.peers[ALICE].device.absorb_lists(&account, &[without_consent]);
    assert_eq!(refused, Err(Refused::ListInvalid(ListError::NewDeviceSignatureMissing)));

    let mut forged = list.clone();
    forged.signatures[0].signature = list.signatures[1].signature;
    let refused = world.peers[ALICE].device.absorb_lists(&account, &[forged]);
    assert_eq!(refused, Err(Refused::ListInvalid(ListError::BadSignature)));
    assert_eq!(world.peers[ALICE].device.trust().account(&account).unwrap().chain().n(), 1);
}

#[test]
fn a_list_that_goes_back_is_refused_when_the_server_claims_it() {
    let (mut world, _) = World::pair();
    world.link_device(ALICE);
    let old = world.lists[&world.account(ALICE)][0].clone();
    let hello = martlet_protocol::wire::Hello {
        list_head: Some(martlet_protocol::wire::ListHead {
            account_id: world.account(ALICE).to_wire(),
            n: 1,
            hash: crate::world::list_hash(&old).to_wire(),
        }),
        ..Default::default()
    };
    let mut hello = hello;
    hello.mailbox = Some(martlet_protocol::wire::MailboxState { epoch: 1, head_seq: 0, acked_seq: 0 });
    let advice = world.peers[ALICE].device.on_hello(&hello).unwrap();
    assert_eq!(crate::world::refused(&advice.events), [Refused::ListRolledBack]);
}

#[test]
fn a_chain_that_is_cut_for_a_new_contact_shows_by_the_prekeys() {
    let mut world = World::new();
    let alice = world.register("alice");
    let bob = world.register("bob");
    let bob_two = world.link_device(bob);
    // Bob's second device signed its prekeys under list 2; his first replaces its own under list 2 as well.
    let account = world.account(bob);
    let cut = vec![world.lists[&account][0].clone()];
    world.peers[alice].device.absorb_lists(&account, &cut).unwrap();
    world.clock.advance(std::time::Duration::from_secs(25 * 60 * 60));
    let fresh = world.peers[bob].device.due_prekeys(100).unwrap().unwrap();
    world.peers[bob].stock.signed_prekey = fresh.signed_prekey;
    world.introduce(bob, alice);
    let new = martlet_client::device::NewConversation::Direct(account);
    let conversation = world.create(alice, &[alice], &new);
    let result = world.compose_with(alice, conversation, "hello", |_, answer| answer.lists.clear());
    assert_eq!(result.unwrap_err(), Refused::ListRolledBack);
    assert_ne!(world.device_id(bob), world.device_id(bob_two));
}

#[test]
fn two_lists_of_one_number_stop_sending() {
    let (mut world, conversation) = World::pair();
    let account = world.account(BOB);
    let (_, _, _, one) = world.next_device(BOB);
    let (_, _, _, other) = world.next_device(BOB);
    world.peers[ALICE].device.absorb_lists(&account, &[one]).unwrap();
    let refused = world.peers[ALICE].device.absorb_lists(&account, &[other]);
    assert_eq!(refused, Err(Refused::ListForked));
    let result = world.compose_with(ALICE, conversation, "hello", |_, _| {});
    assert_eq!(result.unwrap_err(), Refused::AccountDisputed);
    assert!(world.peers[ALICE].device.confirm_account(&account).is_err(), "and no confirmation mends it");
}

#[test]
fn a_second_branch_that_only_the_server_made_is_refused_without_stopping_anything() {
    let (mut world, conversation) = World::pair();
    let account = world.account(BOB);
    let (_, _, _, one) = world.next_device(BOB);
    let (_, _, _, mut other) = world.next_device(BOB);
    world.peers[ALICE].device.absorb_lists(&account, std::slice::from_ref(&one)).unwrap();
    other.signatures[0].signature = one.signatures[0].signature;
    let refused = world.peers[ALICE].device.absorb_lists(&account, &[other]);
    assert_eq!(refused, Err(Refused::ListInvalid(ListError::BadSignature)));
    assert_eq!(world.peers[ALICE].device.trust().account(&account).unwrap().dispute(), None);
    // The second device has no keys at the server yet, so it is left out; the message goes to the first.
    let (_, request) = world.compose(ALICE, conversation, "hello");
    assert_eq!(request.forks.len(), 1);
}

#[test]
fn a_list_signed_by_a_removed_device_is_refused() {
    let (mut world, _) = World::pair();
    let second = world.link_device(BOB);
    world.remove_device(BOB, second);
    world.introduce(ALICE, BOB);
    let account = world.account(BOB);
    let removed = world.peers[second].device.keys().clone();
    let list = world
        .chain(BOB)
        .list()
        .with_device(martlet_client::identity::DeviceKeys::generate(account, &mut world.rng).listed(1), world.now_ms());
    let signed = SignedDeviceList::sign(&list, &removed.device_id, &removed.signing);
    let refused = world.peers[ALICE].device.absorb_lists(&account, &[signed]);
    assert_eq!(refused, Err(Refused::ListInvalid(ListError::SignerRemoved)));
}

#[test]
fn another_account_under_a_known_id_stops_sending() {
    let (mut world, conversation) = World::pair();
    let account = world.account(BOB);
    // The same account id with other keys: a new list 1.
    let keys = martlet_client::identity::DeviceKeys::generate(account, &mut world.rng);
    let first = DeviceList::first(account, keys.listed(1), 1);
    let first = SignedDeviceList::sign(&first, &keys.device_id, &keys.signing);
    let refused = world.peers[ALICE].device.absorb_lists(&account, std::slice::from_ref(&first));
    assert_eq!(refused, Err(Refused::FingerprintChanged));
    // Sending stops until a human has compared safety numbers, and then goes on to the pinned chain: the new one is never merged.
    let pinned = world.chain(BOB).fingerprint();
    let result = world.compose_with(ALICE, conversation, "hello", |_, _| {});
    assert_eq!(result.unwrap_err(), Refused::AccountDisputed);
    world.peers[ALICE].device.confirm_account(&account).unwrap();
    assert_eq!(world.peers[ALICE].device.trust().account(&account).unwrap().chain().fingerprint(), pinned);
    let (_, request) = world.prepare_with(ALICE, conversation, |_, _| {}).unwrap();
    assert_eq!(request.forks[0].device_id, world.device_id(BOB).to_wire());
    // At first contact, a fingerprint that is known from elsewhere settles it.
    let expected = world.chain(BOB).fingerprint();
    let refused = KnownAccount::first_contact(&account, &[first], Some(expected)).map(|_| ());
    assert_eq!(refused, Err(Refused::FingerprintChanged));
}
