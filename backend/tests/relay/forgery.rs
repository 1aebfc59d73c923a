//! What whoever holds Redis may try.

use martlet::clock::Clock;
use martlet_protocol::problem::close;
use martlet_servers::{Redis, shared_redis};
use martlet_storage::DeviceKey;

use crate::world::{Came, KEY, TestRelay, entry, own_devices};

/// Publishes bytes that no node has made.
async fn publish(redis: &Redis, channel: &str, message: &[u8]) {
    let client = redis::Client::open(redis.url()).expect("an address");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    redis::cmd("PUBLISH").arg(channel).arg(message).exec_async(&mut connection).await.expect("published");
}

/// What is published on the device's channel while `act` runs.
async fn overheard(redis: &Redis, device: DeviceKey, act: impl AsyncFnOnce()) -> Vec<Vec<u8>> {
    use futures_util::StreamExt as _;
    let client = redis::Client::open(redis.url()).expect("an address");
    let mut listening = client.get_async_pubsub().await.expect("a connection");
    listening.subscribe(format!("m:{}", device.0)).await.expect("subscribed");
    act().await;
    let mut messages = Vec::new();
    let mut stream = listening.on_message();
    while let Ok(Some(message)) = tokio::time::timeout(std::time::Duration::from_millis(500), stream.next()).await {
        messages.push(message.get_payload_bytes().to_vec());
    }
    messages
}

#[tokio::test]
async fn forged_altered_and_moved_messages_are_counted_and_dropped() {
    let redis = shared_redis().expect("Redis");
    let (here, there) = tokio::join!(TestRelay::start(), TestRelay::start());
    let devices = own_devices(2);
    let (id, other) = (there.subscribe(devices[0]).await, there.subscribe(devices[1]).await);
    let stranger = TestRelay::open(&redis.url(), [6; 32], |_| {}).expect("opened");
    stranger.relay.start();

    let recorded = overheard(redis, devices[0], async || here.relay.publish([entry(devices[0], 1)])).await;
    there.until("the true one came", || there.seqs(id) == [1]).await;
    let message = recorded.iter().find(|message| message[1] == 1).expect("entries");
    let channel = |device: DeviceKey| format!("m:{}", device.0);
    let mut sent = 0;
    for at in [0, 1, 5, 20, message.len() / 2, message.len() - 1] {
        let mut altered = message.clone();
        altered[at] ^= 0x40;
        publish(redis, &channel(devices[0]), &altered).await;
        sent += 1;
    }
    publish(redis, &channel(devices[1]), message).await;
    publish(redis, &channel(devices[0]), b"").await;
    publish(redis, &channel(devices[0]), &vec![0xff; 100_000]).await;
    stranger.relay.publish([entry(devices[0], 2)]);
    let expected = sent + 3;
    there.until("all are counted", || there.statistics().bad >= expected).await;
    here.relay.publish([entry(devices[0], 9)]);
    there.until("the next true one came", || there.seqs(id).contains(&9)).await;
    assert_eq!(there.seqs(id), [1, 9]);
    assert_eq!(there.seqs(other), [0; 0]);
}

#[tokio::test]
async fn a_recorded_message_is_worth_nothing_once_it_is_old_and_health_names_the_clocks() {
    let redis = shared_redis().expect("Redis");
    let here = TestRelay::start().await;
    let clock = Clock::manual(here.clock.now_ms());
    let there = TestRelay::open_at(clock.clone(), &redis.url(), KEY, |_| {}).expect("opened");
    there.relay.start();
    let device = own_devices(1)[0];
    let id = there.subscribe(device).await;
    let recorded = overheard(redis, device, async || here.relay.publish([entry(device, 1)])).await;
    there.until("it came", || there.seqs(id) == [1]).await;
    clock.advance(std::time::Duration::from_secs(121));
    let message = recorded.iter().find(|message| message[1] == 1).expect("entries");
    publish(redis, &format!("m:{}", device.0), message).await;
    there.until("it is counted", || there.statistics().old > 0).await;
    assert_eq!(there.seqs(id), [1]);
    let reasons = there.health.report().reasons;
    assert!(reasons["clocks"].contains("relay.max_message_age"), "{reasons:?}");
}

#[tokio::test]
async fn claims_that_are_played_again_close_no_socket() {
    let redis = shared_redis().expect("Redis");
    let (first, second) = tokio::join!(TestRelay::start(), TestRelay::start());
    let device = own_devices(1)[0];
    let recorded = overheard(redis, device, async || {
        first.subscribe(device).await;
        first.until("it claims", || first.statistics().published > 0).await;
    })
    .await;
    let claim = recorded.iter().find(|message| message[1] == 2).expect("a claim");
    let newer = second.subscribe(device).await;
    for _ in 0..50 {
        publish(redis, &format!("m:{}", device.0), claim).await;
    }
    let marker = TestRelay::start().await;
    marker.relay.publish([entry(device, 1)]);
    second.until("what came after them came", || second.seqs(newer) == [1]).await;
    assert!(!second.came(newer).contains(&Came::Close(close::REPLACED)));
    assert!(second.statistics().published < 20, "it does not answer each of them");
}
