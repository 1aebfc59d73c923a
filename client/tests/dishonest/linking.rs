//! Lies while a device is linked.

use martlet_client::{Refused, identity::DeviceKeys};
use martlet_protocol::{
    chain::devices::ListError,
    crypto::{DhSecret, KNOWN_SUITES},
    id::{AccountId, LinkId},
    link::{LinkCode, LinkError, check_offer, open_answer, seal_answer},
    wire,
};
use prost::Message as _;

use crate::world::{ALICE, World};

struct Newcomer {
    ephemeral: DhSecret,
    offer: Vec<u8>,
}

fn newcomer(world: &mut World) -> Newcomer {
    let keys = DeviceKeys::generate(AccountId::new([0; 16]), &mut world.rng);
    let ephemeral = DhSecret::generate(&mut world.rng);
    let offer = wire::LinkOffer {
        device_id: keys.device_id.to_wire(),
        signing_key: keys.signing.public().to_wire(),
        mailbox_key: keys.mailbox.public().to_wire(),
        suites: KNOWN_SUITES.to_vec(),
        ephemeral_key: ephemeral.public().to_wire(),
        name: "phone".into(),
        platform: "test".into(),
    };
    Newcomer { ephemeral, offer: offer.encode_to_vec() }
}

#[test]
fn another_device_than_the_code_s_is_refused() {
    let (mut world, _) = World::pair();
    let (honest, servers_own) = (newcomer(&mut world), newcomer(&mut world));
    let link_id = LinkId::random(&mut world.rng);
    let code = LinkCode::new(&mut world.rng, link_id, &honest.offer);
    assert!(check_offer(&code, &honest.offer).is_ok());
    assert_eq!(check_offer(&code, &servers_own.offer), Err(LinkError::OfferMismatch));
}

#[test]
fn an_answer_by_the_server_is_refused() {
    let (mut world, _) = World::pair();
    let new = newcomer(&mut world);
    let link_id = LinkId::random(&mut world.rng);
    let code = LinkCode::new(&mut world.rng, link_id, &new.offer);
    // The server knows the link and the offer, not the code's secret.
    let guess = LinkCode::new(&mut world.rng, link_id, &new.offer);
    let offer = check_offer(&guess, &new.offer).unwrap();
    let answer = wire::LinkAnswer::default();
    let sealed = seal_answer(&mut world.rng, &guess, &offer, &answer).unwrap();
    assert_eq!(open_answer(&code, &new.ephemeral, &sealed).err(), Some(LinkError::Answer));
}

#[test]
fn a_list_that_lacks_the_newcomer_s_signature_is_refused_by_contacts() {
    let (mut world, _) = World::pair();
    let (keys, _, _, list) = world.next_device(crate::world::BOB);
    let account = world.account(crate::world::BOB);
    let mut incomplete = list;
    incomplete.signatures.retain(|signature| signature.device_id != keys.device_id);
    let refused = world.peers[ALICE].device.absorb_lists(&account, &[incomplete]);
    assert_eq!(refused, Err(Refused::ListInvalid(ListError::NewDeviceSignatureMissing)));
}

#[test]
fn a_newcomer_signs_only_a_list_that_follows_the_chain_and_holds_it() {
    let (mut world, _) = World::pair();
    let (keys, _, _, list) = world.next_device(ALICE);
    let other = DeviceKeys::generate(keys.account_id, &mut world.rng);
    let chain = world.chain(ALICE);
    // The list holds another device than the one that is asked to sign.
    assert!(chain.countersign(&list, &other.device_id, &other.signing).is_err());
    // It holds this one, under another key.
    assert!(chain.countersign(&list, &keys.device_id, &other.signing).is_err());
    assert!(chain.countersign(&list, &keys.device_id, &keys.signing).is_ok());
}
