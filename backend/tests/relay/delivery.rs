//! From one node to the other.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use martlet::subscribers::{LiveEntry, LiveItem, Whisper};
use martlet_protocol::wire;
use martlet_servers::shared_redis;
use tokio::time;

use crate::world::{Came, TestRelay, entry, own_devices};

#[tokio::test]
async fn what_one_node_commits_reaches_the_device_on_the_other_in_order() {
    let (here, there) = tokio::join!(TestRelay::start(), TestRelay::start());
    let device = own_devices(1)[0];
    let id = there.subscribe(device).await;
    let gap = wire::Gap { from_seq: 501, to_seq: 503, count: 3, reason: 1 };
    for seqs in (1..=500).collect::<Vec<_>>().chunks(7) {
        here.relay.publish(seqs.iter().map(|seq| entry(device, *seq)));
    }
    here.relay.publish([Arc::new(LiveEntry {
        device_key: device,
        seq: 503,
        item: LiveItem::Gap(gap),
        under_way_since: Duration::ZERO,
    })]);
    there.until("all came", || there.came(id).contains(&Came::Gap(gap))).await;
    assert_eq!(there.seqs(id), (1..=500).collect::<Vec<_>>());
    let first = entry(device, 1);
    let LiveItem::Entry(first) = &first.item else { panic!("an entry") };
    assert!(there.came(id).contains(&Came::Entry(first.clone())), "whole, as it was");
    assert!(here.statistics().published < 501, "several entries share a message");
    assert_eq!(there.statistics().bad, 0);
}

#[tokio::test]
async fn a_device_on_the_same_node_gets_it_at_once_and_once() {
    let here = TestRelay::start().await;
    let device = own_devices(1)[0];
    let id = here.subscribe(device).await;
    let before = here.statistics().published;
    here.relay.publish([entry(device, 1)]);
    assert_eq!(here.seqs(id), [1], "without waiting for Redis");
    here.until("it was published", || here.statistics().published > before).await;
    // What is published after it comes back after it.
    let there = TestRelay::start().await;
    there.relay.publish([entry(device, 2)]);
    here.until("the next came", || here.seqs(id).contains(&2)).await;
    assert_eq!(here.seqs(id), [1, 2]);
}

#[tokio::test]
async fn thousands_of_devices_are_subscribed_to_in_batches_and_each_is_compared_once() {
    let (here, there) = tokio::join!(TestRelay::start(), TestRelay::start());
    let devices = own_devices(1300);
    let ids: Vec<_> = devices.iter().map(|device| there.register(*device)).collect();
    there.until("all are compared", || ids.iter().all(|id| there.came(*id).contains(&Came::CompareHead))).await;
    here.relay.publish(devices.iter().map(|device| entry(*device, 7)));
    there.until("all came", || ids.iter().all(|id| there.seqs(*id) == [7])).await;
    for id in &ids {
        let compared = there.came(*id).iter().filter(|came| **came == Came::CompareHead).count();
        assert_eq!(compared, 1);
    }
}

#[tokio::test]
async fn who_left_is_unsubscribed_and_who_came_back_at_once_is_not() {
    let (here, there) = tokio::join!(TestRelay::start(), TestRelay::start());
    let devices = own_devices(2);
    let [gone, back] = [devices[0], devices[1]];
    let gone_id = there.subscribe(gone).await;
    let mut back_id = there.subscribe(back).await;
    there.subscribers.unregister(gone, gone_id);
    for _ in 0..20 {
        there.subscribers.unregister(back, back_id);
        back_id = there.register(back);
        time::sleep(Duration::from_millis(1)).await;
    }
    let redis = shared_redis().expect("Redis");
    let channel = format!("m:{}", gone.0);
    let subscribers = || redis.command(&["PUBSUB", "NUMSUB", &channel]).expect("an answer");
    there.until("its channel has no subscriber", || subscribers().lines().nth(1) == Some("0")).await;
    let mut seq = 0;
    while !there.seqs(back_id).contains(&seq) || seq < 20 {
        seq += 1;
        here.relay.publish([entry(back, seq)]);
        time::sleep(Duration::from_millis(5)).await;
        assert!(seq < 2000, "nothing comes");
    }
}

#[tokio::test]
async fn whispers_and_control_hints_pass_and_what_has_expired_does_not() {
    let (here, there) = tokio::join!(TestRelay::start(), TestRelay::start());
    let device_key = own_devices(1)[0];
    let id = there.subscribe(device_key).await;
    let now_ms = here.clock.now_ms();
    let whisper = |text: &'static [u8], expires_at_ms| {
        Arc::new(Whisper { device_key, expires_at_ms, payload: Bytes::from_static(text) })
    };
    here.relay.whisper([whisper(b"too late", now_ms - 1), whisper(b"typing", now_ms + 600_000)]);
    there.until("it came", || there.came(id).contains(&Came::Whisper(Bytes::from_static(b"typing")))).await;
    assert!(!there.came(id).contains(&Came::Whisper(Bytes::from_static(b"too late"))));

    let hint = there.relay.control_hint();
    here.relay.control_changed();
    time::timeout(crate::world::PATIENCE, hint.notified()).await.expect("the hint comes");
}
