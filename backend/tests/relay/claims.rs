//! One socket per device, on whatever node.

use martlet_protocol::problem::close;
use martlet_servers::Redis;

use crate::world::{Came, TestRelay, entry, own_devices};

#[tokio::test]
async fn a_newer_socket_on_another_node_closes_the_older_one_and_stays() {
    let (first, second) = tokio::join!(TestRelay::start(), TestRelay::start());
    let device = own_devices(1)[0];
    let older = first.subscribe(device).await;
    let newer = second.subscribe(device).await;
    first.until("the older one closes", || first.came(older).contains(&Came::Close(close::REPLACED))).await;
    first.subscribers.unregister(device, older);

    let back = first.register(device);
    second.until("and so it goes on", || second.came(newer).contains(&Came::Close(close::REPLACED))).await;
    second.subscribers.unregister(device, newer);
    second.relay.publish([entry(device, 1)]);
    first.until("the newest one is served", || first.seqs(back) == [1]).await;
    assert!(!first.came(back).contains(&Came::Close(close::REPLACED)));
}

#[tokio::test]
async fn a_device_that_moved_while_redis_was_down_keeps_its_newer_socket_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut redis = Redis::start(folder.path()).expect("Redis starts");
    let url = redis.url();
    let (first, second) = tokio::join!(TestRelay::start_on(&url, |_| {}), TestRelay::start_on(&url, |_| {}));
    let devices = own_devices(20);
    let older: Vec<_> = devices.iter().map(|device| first.register(*device)).collect();
    first.until("they are subscribed to", || older.iter().all(|id| first.came(*id).contains(&Came::CompareHead))).await;
    redis.kill().expect("killed");
    first.until("the relay is lost", || first.relay.is_lost()).await;
    second.until("the relay is lost", || second.relay.is_lost()).await;
    let newer: Vec<_> = devices.iter().map(|device| second.register(*device)).collect();
    redis.start_again().expect("Redis starts again");
    let replaced = Came::Close(close::REPLACED);
    first.until("the older ones close", || older.iter().all(|id| first.came(*id).contains(&replaced))).await;
    first.until_ok().await;
    second.until_ok().await;
    second.relay.publish(devices.iter().map(|device| entry(*device, 1)));
    second.until("the newer ones are served", || newer.iter().all(|id| second.seqs(*id) == [1])).await;
    assert!(newer.iter().all(|id| !second.came(*id).contains(&replaced)));
}
