//! One socket per device, on whatever node. Each node knows the sockets it holds and since when; it says so on the device's channel, and
//! hears the others say so. The newest wins. As values only: nothing here publishes or closes.
//!
//! Claims are ordered by when the device connected, and a random tie-breaker: both nodes compare the same two numbers, so exactly one
//! of them gives way, whatever comes twice, late, or not at all. A recorded claim that is played again is older than the one in force and
//! changes nothing. Where clocks are apart, the ages that claims carry show it: a socket that is clearly younger takes a later number.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use martlet_protocol::wire::RelayClaim;
use martlet_storage::DeviceKey;

use crate::subscribers::SubscriberId;

/// One claim is contradicted no more often than this, so that nobody can have a node publish by playing old claims again.
const CONTRADICT_INTERVAL: Duration = Duration::from_secs(1);
/// A difference of ages beyond this is no delay on the way: then clocks are apart.
const CLEARLY: Duration = Duration::from_secs(2);

/// The sockets that this node holds.
#[derive(Debug, Default)]
pub(super) struct Claims(HashMap<DeviceKey, Held>);

#[derive(Debug)]
struct Held {
    id: SubscriberId,
    connected_at_ms: u64,
    since: Duration,
    tie: u64,
    /// It was told to close, and its worker has not done so yet.
    given_up: bool,
    /// The last older claim that was contradicted, and when.
    contradicted: Option<(u64, Duration)>,
}

/// What follows from another node's claim.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// Nothing.
    None,
    /// The device has a newer socket there: close this one.
    GiveUp(SubscriberId),
    /// The socket here is the newer one: say so.
    Contradict(RelayClaim),
}

/// A moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// Unix milliseconds.
    pub(super) wall_ms: u64,
    /// A clock that never steps.
    pub(super) steady: Duration,
}

impl Held {
    fn order(&self) -> (u64, u64) {
        (self.connected_at_ms, self.tie)
    }

    fn age(&self, now: Now) -> Duration {
        now.steady.saturating_sub(self.since)
    }

    fn claim(&self, now: Now) -> RelayClaim {
        let age_ms = u64::try_from(self.age(now).as_millis()).unwrap_or(u64::MAX);
        RelayClaim { connected_at_ms: self.connected_at_ms, tie: self.tie, age_ms }
    }
}

impl Claims {
    /// The device reads here, at this place. Whether that is news.
    pub(super) fn hold(&mut self, device_key: DeviceKey, id: SubscriberId, now: Now, tie: u64) -> bool {
        let held =
            Held { id, connected_at_ms: now.wall_ms, since: now.steady, tie, given_up: false, contradicted: None };
        match self.0.entry(device_key) {
            Entry::Occupied(place) if place.get().id == id => false,
            Entry::Occupied(mut place) => {
                // Later than its own predecessor, even if this machine's time was set back meanwhile.
                let connected_at_ms = held.connected_at_ms.max(place.get().connected_at_ms.saturating_add(1));
                place.insert(Held { connected_at_ms, ..held });
                true
            }
            Entry::Vacant(place) => {
                place.insert(held);
                true
            }
        }
    }

    /// The device reads here no more.
    pub(super) fn release(&mut self, device_key: DeviceKey) {
        self.0.remove(&device_key);
    }

    /// What this node says about the device, if it holds its socket.
    pub(super) fn claim(&self, device_key: DeviceKey, now: Now) -> Option<RelayClaim> {
        self.0.get(&device_key).filter(|held| !held.given_up).map(|held| held.claim(now))
    }

    /// Another node says that it holds the device's socket.
    pub(super) fn heard(&mut self, device_key: DeviceKey, theirs: &RelayClaim, now: Now) -> Verdict {
        let Some(mine) = self.0.get_mut(&device_key).filter(|held| !held.given_up) else { return Verdict::None };
        let their_order = (theirs.connected_at_ms, theirs.tie);
        if their_order > mine.order() {
            if Duration::from_millis(theirs.age_ms) > mine.age(now).saturating_add(CLEARLY) {
                mine.connected_at_ms = theirs.connected_at_ms.saturating_add(1);
                return Verdict::Contradict(mine.claim(now));
            }
            mine.given_up = true;
            return Verdict::GiveUp(mine.id);
        }
        let lately = mine
            .contradicted
            .is_some_and(|(tie, at)| tie == theirs.tie && now.steady.saturating_sub(at) < CONTRADICT_INTERVAL);
        if lately || their_order == mine.order() {
            return Verdict::None;
        }
        mine.contradicted = Some((theirs.tie, now.steady));
        Verdict::Contradict(mine.claim(now))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEVICE: DeviceKey = DeviceKey(1);

    fn id(slot: u32) -> SubscriberId {
        SubscriberId { worker: 0, slot, generation: 1 }
    }

    fn at(ms: u64) -> Now {
        Now { wall_ms: 1_000_000 + ms, steady: Duration::from_millis(ms) }
    }

    fn holding(now: Now, tie: u64) -> Claims {
        let mut claims = Claims::default();
        assert!(claims.hold(DEVICE, id(0), now, tie));
        claims
    }

    #[test]
    fn the_newer_socket_wins_and_the_older_node_gives_up_once() {
        let mut older = holding(at(0), 1);
        let mut newer = holding(at(500), 2);
        let claim = newer.claim(DEVICE, at(500)).expect("held");
        assert_eq!(older.heard(DEVICE, &claim, at(501)), Verdict::GiveUp(id(0)));
        assert_eq!(older.heard(DEVICE, &claim, at(502)), Verdict::None);
        assert_eq!(older.claim(DEVICE, at(503)), None, "it does not claim what it gave up");

        let late = RelayClaim { connected_at_ms: 1_000_000, tie: 1, age_ms: 502 };
        assert!(matches!(newer.heard(DEVICE, &late, at(502)), Verdict::Contradict(_)));
    }

    #[test]
    fn an_old_claim_played_again_changes_nothing_and_is_answered_once_a_second() {
        let mut claims = holding(at(10_000), 5);
        let old = RelayClaim { connected_at_ms: 1_000_000, tie: 4, age_ms: 0 };
        assert!(matches!(claims.heard(DEVICE, &old, at(10_100)), Verdict::Contradict(_)));
        for ms in 10_101..11_100 {
            assert_eq!(claims.heard(DEVICE, &old, at(ms)), Verdict::None);
        }
        assert!(matches!(claims.heard(DEVICE, &old, at(11_100)), Verdict::Contradict(_)));
    }

    #[test]
    fn a_node_whose_clock_is_behind_wins_with_the_younger_socket_all_the_same() {
        let mut ahead = holding(at(0), 1);
        // Ten seconds later the device connects elsewhere, where it is a minute earlier.
        let behind_now = |ms: u64| Now { wall_ms: 940_000 + ms, steady: Duration::from_millis(ms) };
        let mut behind = holding(behind_now(10_000), 2);
        let first = behind.claim(DEVICE, behind_now(10_000)).expect("held");
        let Verdict::Contradict(wrong) = ahead.heard(DEVICE, &first, at(10_001)) else {
            panic!("its number is higher")
        };
        let Verdict::Contradict(second) = behind.heard(DEVICE, &wrong, behind_now(10_002)) else { panic!("younger") };
        assert_eq!(ahead.heard(DEVICE, &second, at(10_003)), Verdict::GiveUp(id(0)));
    }

    #[test]
    fn the_same_place_is_no_news_and_another_place_is_newer() {
        let mut claims = holding(at(5), 1);
        assert!(!claims.hold(DEVICE, id(0), at(6), 2));
        let before = claims.claim(DEVICE, at(7)).expect("held");
        assert!(
            claims.hold(DEVICE, id(1), Now { wall_ms: 1, ..at(8) }, 3),
            "another socket, and the time was set back"
        );
        assert!(claims.claim(DEVICE, at(8)).expect("held").connected_at_ms > before.connected_at_ms);
        claims.release(DEVICE);
        assert_eq!(claims.claim(DEVICE, at(9)), None);
    }

    proptest! {
        /// Whatever claims cross, come twice or are lost on the way: never do both nodes give up, and it ends.
        #[test]
        fn never_do_both_give_up(
            gap in 0..5000_u64,
            skew in 0..100_000_u64,
            deliveries in proptest::collection::vec((any::<bool>(), 0..4_usize), 1..40),
        ) {
            let skewed = |ms: u64| Now { wall_ms: 1_000_000 + ms + skew, steady: Duration::from_millis(ms) };
            let mut nodes = [holding(at(0), 1), holding(skewed(gap), 2)];
            let now = |node: usize, ms: u64| if node == 0 { at(ms) } else { skewed(ms) };
            let mut said = [
                vec![nodes[0].claim(DEVICE, now(0, gap)).expect("held")],
                vec![nodes[1].claim(DEVICE, now(1, gap)).expect("held")],
            ];
            let mut given_up = [false; 2];
            for (step, (to_first, which)) in deliveries.into_iter().enumerate() {
                let (to, from) = if to_first { (0, 1) } else { (1, 0) };
                let claim = said[from][which.min(said[from].len() - 1)];
                match nodes[to].heard(DEVICE, &claim, now(to, gap + 10 + step as u64)) {
                    Verdict::None => {}
                    Verdict::GiveUp(_) => given_up[to] = true,
                    Verdict::Contradict(claim) => said[to].push(claim),
                }
            }
            prop_assert!(given_up != [true, true]);
            prop_assert!(said[0].len() + said[1].len() < 12);
        }
    }
}
