//! What may happen to Redis and to the line to it. Each time: both nodes notice, say so in health, come back, subscribe to everything, and
//! compare the heads of all that they serve.

use std::{net::SocketAddr, time::Duration};

use martlet::config::{Config, kib, millis};
use martlet::subscribers::SubscriberId;
use martlet_servers::{Proxy, Redis};
use martlet_storage::DeviceKey;

use crate::world::{Came, TestRelay, entry, own_devices};

fn hasty(config: &mut Config) {
    config.relay.redis_ping_interval = millis(200);
    config.relay.redis_timeout = millis(500);
    config.relay.subscribe_batch = 7;
}

fn compared(relay: &TestRelay, id: SubscriberId) -> usize {
    relay.came(id).iter().filter(|came| **came == Came::CompareHead).count()
}

struct World {
    redis: Redis,
    here: TestRelay,
    there: TestRelay,
    devices: Vec<DeviceKey>,
    ids: Vec<SubscriberId>,
    _folder: tempfile::TempDir,
}

impl World {
    /// `there` over a line that can be spoiled.
    async fn new(change: fn(&mut Config)) -> (Self, Proxy) {
        let folder = tempfile::tempdir().expect("a folder");
        let redis = Redis::start(folder.path()).expect("Redis starts");
        let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], redis.port()))).expect("a proxy");
        let here = TestRelay::start_on(&redis.url(), change).await;
        let there = TestRelay::start_on(&format!("redis://127.0.0.1:{}", proxy.port()), change).await;
        let devices = own_devices(30);
        let ids: Vec<_> = devices.iter().map(|device| there.register(*device)).collect();
        there.until("all are subscribed to", || ids.iter().all(|id| compared(&there, *id) == 1)).await;
        (Self { redis, here, there, devices, ids, _folder: folder }, proxy)
    }

    /// What is published from now on comes.
    async fn works(&self, seq: u64) {
        self.here.until_ok().await;
        self.there.until_ok().await;
        self.here.relay.publish(self.devices.iter().map(|device| entry(*device, seq)));
        self.there.until("entries come", || self.ids.iter().all(|id| self.there.seqs(*id).contains(&seq))).await;
    }

    /// Everything was compared once more than `before` times.
    async fn was_compared(&self, before: usize) {
        let again = || self.ids.iter().all(|id| compared(&self.there, *id) > before);
        self.there.until("all were compared after the subscription", again).await;
    }
}

#[tokio::test]
async fn a_redis_that_was_killed_and_comes_back_is_subscribed_to_again_and_all_is_compared() {
    let (mut world, _proxy) = World::new(hasty).await;
    world.works(1).await;
    world.redis.kill().expect("killed");
    world.there.until("it is lost", || world.there.relay.is_lost() && !world.there.reason().is_empty()).await;
    world.here.until("it is lost", || world.here.relay.is_lost() && !world.here.reason().is_empty()).await;
    assert!(world.here.reason().contains("start it, or correct relay.redis_url"), "{}", world.here.reason());
    assert!(world.there.all_compared() > 0, "heads are compared at once, and from then on more often");
    // Nobody waits for Redis.
    world.here.relay.publish(world.devices.iter().map(|device| entry(*device, 2)));
    world.here.until("it is left out", || world.here.statistics().left_out > 0).await;
    world.redis.start_again().expect("started");
    world.was_compared(1).await;
    world.works(3).await;
}

#[tokio::test]
async fn connections_that_redis_kills_are_made_anew() {
    let (world, _proxy) = World::new(hasty).await;
    for seq in 1..=3 {
        for kind in ["pubsub", "normal"] {
            // The tool's own connection is spared.
            world.redis.command(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).expect("killed");
        }
        world.was_compared(usize::try_from(seq).expect("small")).await;
        world.works(seq).await;
    }
    assert!(world.there.statistics().lost >= 3);
}

#[tokio::test]
async fn a_line_on_which_nothing_moves_is_given_up_and_found_again() {
    let (world, proxy) = World::new(hasty).await;
    proxy.stall().expect("stalled");
    world.there.until("the silence is noticed", || world.there.relay.is_lost()).await;
    world.there.until("and named", || world.there.reason().contains("in time")).await;
    world.here.relay.publish(world.devices.iter().map(|device| entry(*device, 1)));
    proxy.heal().expect("healed");
    world.was_compared(1).await;
    world.works(2).await;
}

#[tokio::test]
async fn a_redis_that_sleeps_is_lost_and_found() {
    let (world, _proxy) = World::new(hasty).await;
    let port = world.redis.port();
    let sleeping =
        std::thread::spawn(move || Redis::running_on(port).and_then(|redis| redis.command(&["DEBUG", "SLEEP", "3"])));
    world.there.until("the silence is noticed", || world.there.relay.is_lost()).await;
    sleeping.join().expect("joined").expect("slept");
    world.works(1).await;
}

#[tokio::test]
async fn a_full_queue_leaves_out_and_counts_and_the_others_are_told_to_compare() {
    fn small(config: &mut Config) {
        hasty(config);
        config.relay.publish_queue_bytes = kib(64);
    }
    let (world, proxy) = World::new(small).await;
    let before = world.here.all_compared();
    proxy.stall().expect("stalled");
    // This one publishes over the stalled line: what it can't hand over fills its queue, and nobody waits.
    for seq in 1..=200 {
        world.there.relay.publish(own_devices(20).into_iter().map(|device| entry(device, seq)));
    }
    world.there.until("something is left out", || world.there.statistics().left_out > 0).await;
    proxy.heal().expect("healed");
    world.works(1).await;
    world.here.until("the other node compares", || world.here.all_compared() > before).await;
}

#[tokio::test]
async fn a_slow_line_delays_and_loses_nothing() {
    let (world, proxy) = World::new(|_| {}).await;
    proxy.slow(Duration::from_millis(50)).expect("slowed");
    for seq in 1..=100 {
        world.here.relay.publish(world.devices.iter().map(|device| entry(*device, seq)));
    }
    let all: Vec<u64> = (1..=100).collect();
    world.there.until("all came", || world.ids.iter().all(|id| world.there.seqs(*id) == all)).await;
}
