//! Lies about prekeys.

use martlet_client::{
    Refused,
    device::{PrepareError, SendHalt},
};
use martlet_protocol::{
    crypto::{DhSecret, PrekeyError},
    rest::ClaimAnswer,
};

use crate::world::{ALICE, BOB, World, refused, text_content};

fn refused_with(lie: impl Fn(&mut World, &mut ClaimAnswer)) -> Refused {
    let (mut world, conversation) = World::pair();
    let result = world.compose_with(ALICE, conversation, "secret", lie);
    let refused = result.expect_err("the message was encrypted");
    assert!(world.peers[ALICE].device.unsent() == 1, "the message waits");
    refused
}

#[test]
fn a_swapped_signed_prekey_is_refused() {
    let refused = refused_with(|world, answer| {
        answer.bundles[0].signed_prekey.public_key = DhSecret::generate(&mut world.rng).public();
    });
    assert_eq!(refused, Refused::PrekeyNotVouchedFor);
}

#[test]
fn a_swapped_one_time_prekey_is_refused() {
    let refused = refused_with(|world, answer| {
        let key = answer.bundles[0].one_time_prekey.as_mut().unwrap();
        key.public_key = DhSecret::generate(&mut world.rng).public();
    });
    assert_eq!(refused, Refused::PrekeyNotVouchedFor);
}

#[test]
fn a_longer_life_or_another_suite_than_was_signed_is_refused() {
    let refused = refused_with(|_, answer| answer.bundles[0].signed_prekey.not_after_ms += 1);
    assert_eq!(refused, Refused::PrekeyNotVouchedFor);
    let refused = refused_with(|_, answer| answer.bundles[0].signed_prekey.suite = 2);
    assert_eq!(refused, Refused::PrekeyNotVouchedFor);
}

#[test]
fn a_prekey_of_another_device_is_refused() {
    let refused = refused_with(|world, answer| {
        let own = world.peers[ALICE].stock.signed_prekey.clone().unwrap();
        answer.bundles[0].signed_prekey = own;
    });
    assert_eq!(refused, Refused::PrekeyNotVouchedFor);
}

#[test]
fn a_one_time_prekey_in_the_signed_one_s_place_is_refused() {
    let refused = refused_with(|_, answer| {
        let bundle = &mut answer.bundles[0];
        bundle.signed_prekey = bundle.one_time_prekey.take().unwrap();
    });
    assert_eq!(refused, Refused::PrekeyUnfit(PrekeyError::Kind));
}

#[test]
fn an_expired_prekey_is_refused() {
    let refused = refused_with(|world, _| world.clock.advance(std::time::Duration::from_secs(61 * 24 * 60 * 60)));
    assert_eq!(refused, Refused::PrekeyExpired);
}

#[test]
fn keys_of_a_device_that_is_not_listed_are_refused() {
    let refused = refused_with(|world, answer| {
        let (keys, _, stock, _) = world.next_device(BOB);
        answer.bundles[0].device_id = keys.device_id;
        answer.bundles[0].signed_prekey = stock.signed_prekey.unwrap();
    });
    assert_eq!(refused, Refused::RecipientNotListed);
}

#[test]
fn a_one_time_prekey_that_comes_twice_is_refused_and_the_signed_one_serves() {
    let (mut world, conversation) = World::pair();
    let key = world.peers[BOB].stock.one_time_prekeys.last().cloned();
    world.say(ALICE, conversation, "one", BOB);
    world.clock.advance(std::time::Duration::from_secs(25 * 60 * 60));
    world.peers[ALICE].device.enqueue(conversation, &text_content("two"), 0).unwrap();
    let number = world.peers[ALICE].device.due()[0].0;
    let Err(PrepareError::Halt(SendHalt::Claim(claim))) = world.peers[ALICE].device.prepare(number) else {
        panic!("a day later the keys are looked up");
    };
    let mut answer = world.claim(&claim);
    answer.bundles[0].one_time_prekey.clone_from(&key);
    let events = world.peers[ALICE].device.absorb_claim(&claim, &answer).unwrap();
    assert_eq!(refused(&events), [Refused::PrekeyRepeated], "the user is told");
    let (_, request) = world.prepare_with(ALICE, conversation, |_, _| panic!("nothing more is claimed")).unwrap();
    assert_eq!(request.forks[0].header[0], 1, "it is not used a second time, and nobody is left out for it");
}

#[test]
fn a_one_time_key_is_claimed_once_a_day_and_kept_across_retries() {
    let (mut world, conversation) = World::pair();
    let left = |world: &World| world.peers[BOB].stock.one_time_prekeys.len();
    let before = left(&world);
    let (number, first) = world.compose(ALICE, conversation, "one");
    assert_eq!(first.forks[0].header[0], 2, "the first message uses a one-time key");
    let (_, again) = world.prepare_with(ALICE, conversation, |_, _| panic!("nothing is claimed for a retry")).unwrap();
    assert_eq!(first, again, "a retry is the same bytes");
    world.accept(ALICE, number);
    let second = world.send(ALICE, conversation, "two");
    assert_eq!(second.forks[0].header[0], 1, "then the signed prekey serves");
    assert_eq!(left(&world), before - 1);
    world.clock.advance(std::time::Duration::from_secs(25 * 60 * 60));
    let third = world.send(ALICE, conversation, "three");
    assert_eq!(third.forks[0].header[0], 2, "a day later a one-time key again");
    assert_eq!(left(&world), before - 2);
}
