//! Links by devices whose account has moved on: a device that was removed goes on signing, and the server passes it off as in time.

use martlet_client::{Refused, device::NewConversation, trust::Halt};
use martlet_protocol::{
    chain::members::{MembershipChange, Signer},
    id::ConversationId,
    rest::{ListHead, Role, SignedMembershipLink},
};

use crate::world::{ALICE, BOB, World, list_hash, refused};

/// A group of Alice and Bob (admin), and Bob's second device, which is in his list 2 and removed by his list 3.
struct Scene {
    world: World,
    group: ConversationId,
    second: usize,
    carol: usize,
}

impl Scene {
    fn new() -> Self {
        let (mut world, _) = World::pair();
        let carol = world.register("carol");
        let second = world.link_device(BOB);
        world.introduce(ALICE, BOB);
        for peer in [ALICE, BOB] {
            world.introduce(peer, carol);
        }
        let new = NewConversation::Group(vec![(world.account(BOB), Role::Admin)]);
        let group = world.create(ALICE, &[ALICE, BOB], &new);
        world.remove_device(BOB, second);
        Self { world, group, second, carol }
    }

    /// The link after the one that Alice knows, which adds Carol, by a device of Bob's under one of his lists.
    fn link(&self, by: usize, list_n: u64) -> SignedMembershipLink {
        let world = &self.world;
        let account_id = world.account(BOB);
        let list = &world.lists[&account_id][usize::try_from(list_n - 1).unwrap()];
        let signer = Signer::new(world.device_id(by), &ListHead { account_id, n: list_n, hash: list_hash(list) });
        let alice = world.peers[ALICE].device.trust();
        let members = alice.conversation(&self.group).unwrap().head();
        let carol = world.account(self.carol);
        let change = members.removal(&carol).unwrap_or_else(|| {
            let fingerprint = world.chain(self.carol).fingerprint();
            let member =
                martlet_protocol::chain::members::Member { account_id: carol, fingerprint, role: Role::Member };
            MembershipChange::Add(member)
        });
        members.change(signer, vec![change], world.now_ms()).sign(&world.peers[by].device.keys().signing)
    }

    fn take(&mut self, link: &SignedMembershipLink) -> Result<usize, Halt> {
        self.world.peers[ALICE].device.absorb_membership(&self.group, std::slice::from_ref(link))
    }
}

#[test]
fn a_new_link_by_a_removed_device_is_refused_after_a_message_under_the_newer_list() {
    let mut scene = Scene::new();
    assert_eq!(refused(&scene.world.say(BOB, scene.group, "that device is gone", ALICE)), []);
    let known = scene.world.peers[ALICE].device.trust().conversation(&scene.group).unwrap().record();
    assert_eq!(known.list_floors, [(scene.world.account(BOB), 3)], "what the message named is stored");
    let link = scene.link(scene.second, 2);
    assert_eq!(scene.take(&link), Err(Halt::Refused(Refused::MembershipSignerRemoved)));
    // Under the newer list it does not stand at all.
    let link = scene.link(scene.second, 3);
    assert!(matches!(scene.take(&link), Err(Halt::Refused(Refused::MembershipInvalid(_)))));
    // The device that stayed goes on, under the list that it has now and no other.
    let link = scene.link(BOB, 2);
    assert_eq!(scene.take(&link), Err(Halt::Refused(Refused::MembershipListOlder)));
    let link = scene.link(BOB, 3);
    assert_eq!(scene.take(&link), Ok(1));
}

#[test]
fn an_own_message_under_the_newer_list_is_as_good() {
    let mut scene = Scene::new();
    scene.world.introduce(ALICE, BOB);
    scene.world.send(ALICE, scene.group, "hello, one device of yours");
    let link = scene.link(scene.second, 2);
    assert_eq!(scene.take(&link), Err(Halt::Refused(Refused::MembershipSignerRemoved)));
}

#[test]
fn links_of_one_account_never_go_back_to_an_older_list() {
    let mut scene = Scene::new();
    scene.world.introduce(ALICE, BOB);
    let link = scene.link(BOB, 3);
    assert_eq!(scene.take(&link), Ok(1));
    let link = scene.link(scene.second, 2);
    assert_eq!(scene.take(&link), Err(Halt::Refused(Refused::MembershipSignerRemoved)));
}

#[test]
fn a_link_from_before_the_removal_is_taken_by_who_reads_it_late() {
    let mut scene = Scene::new();
    // Alice has heard of list 3 elsewhere; nothing in this group says that the link came after it.
    scene.world.introduce(ALICE, BOB);
    let link = scene.link(scene.second, 2);
    assert_eq!(scene.take(&link), Ok(1));
}
