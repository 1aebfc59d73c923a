//! Claims of a large conversation: in parts, each kept as soon as it came, whatever becomes of those after it.

use martlet_client::{
    Refused,
    device::{ACCOUNTS_PER_CLAIM, NewConversation, PrepareError, SendHalt},
};
use martlet_protocol::{
    crypto::DhSecret,
    id::{AccountId, ConversationId},
    rest::{ClaimRequest, Role},
};

use crate::world::{World, text_content};

const OTHERS: usize = ACCOUNTS_PER_CLAIM + 8;

/// A group of the first peer and [`OTHERS`], whom it knows and has no keys of; with a message that is due.
fn crowd() -> (World, u64) {
    let mut world = World::new();
    let owner = world.register("owner");
    let mut members = Vec::new();
    for other in 0..OTHERS {
        let other = world.register(&format!("member{other}"));
        world.introduce(owner, other);
        members.push((world.account(other), Role::Member));
    }
    let conversation: ConversationId = world.create(owner, &[owner], &NewConversation::Group(members));
    world.peers[owner].device.enqueue(conversation, &text_content("hello"), 0).unwrap();
    let number = world.peers[owner].device.due()[0].0;
    (world, number)
}

fn next_claim(world: &mut World, number: u64) -> Option<ClaimRequest> {
    match world.peers[0].device.prepare(number) {
        Ok(prepared) => {
            assert_eq!(prepared.unwrap().request.forks.len(), OTHERS, "everybody gets it");
            None
        }
        Err(PrepareError::Halt(SendHalt::Claim(claim))) => Some(claim),
        Err(other) => panic!("{other}"),
    }
}

fn accounts(claim: &ClaimRequest) -> Vec<AccountId> {
    claim.accounts.iter().map(|account| account.account_id).collect()
}

#[test]
fn a_large_conversation_is_claimed_in_parts_and_a_refused_part_loses_nothing() {
    let (mut world, number) = crowd();
    let first = next_claim(&mut world, number).unwrap();
    assert_eq!(first.accounts.len(), ACCOUNTS_PER_CLAIM);
    let answer = world.claim(&first);
    world.peers[0].device.absorb_claim(&first, &answer).unwrap();
    // The server refuses the second part for now; the next try asks for that one only.
    for _ in 0..2 {
        let rest = next_claim(&mut world, number).unwrap();
        assert_eq!(rest.accounts.len(), OTHERS - ACCOUNTS_PER_CLAIM);
        assert!(accounts(&rest).iter().all(|account| !accounts(&first).contains(account)));
    }
    let rest = next_claim(&mut world, number).unwrap();
    let answer = world.claim(&rest);
    world.peers[0].device.absorb_claim(&rest, &answer).unwrap();
    assert!(next_claim(&mut world, number).is_none());
}

#[test]
fn a_forged_key_stops_the_message_and_keeps_what_was_claimed_of_the_others() {
    let (mut world, number) = crowd();
    let first = next_claim(&mut world, number).unwrap();
    let mut answer = world.claim(&first);
    let forged = answer.bundles[0].account_id;
    answer.bundles[0].signed_prekey.public_key = DhSecret::generate(&mut world.rng).public();
    let refused = world.peers[0].device.absorb_claim(&first, &answer);
    assert_eq!(refused.map(|_| ()), Err(Refused::PrekeyNotVouchedFor));
    let next = next_claim(&mut world, number).unwrap();
    assert_eq!(next.accounts.len(), OTHERS - ACCOUNTS_PER_CLAIM + 1);
    assert!(accounts(&next).contains(&forged), "nobody is left out without a word");
}
