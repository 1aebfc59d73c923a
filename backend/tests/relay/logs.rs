//! Logs between nodes: a channel per log that somebody reads, and nothing lost that the relay loses.

use std::sync::Arc;

use bytes::Bytes;
use martlet::subscribers::{LiveLogItem, Log, LogChange};
use martlet_protocol::{id::ConversationId, wire};
use martlet_servers::shared_redis;
use martlet_storage::ConversationKey;

use crate::world::{TestRelay, entry, own_devices};

fn item(seq: u64, content_bytes: usize) -> Arc<LiveLogItem> {
    let content = Bytes::from(vec![7; content_bytes]);
    LiveLogItem::entry(wire::LogEntry { seq, content, ..Default::default() }, u64::MAX)
}

fn own_log() -> ConversationKey {
    ConversationKey(own_devices(1)[0].0)
}

/// Somebody reads the log, from its very beginning.
async fn read(relay: &TestRelay, key: ConversationKey) -> Arc<Log> {
    let log = relay.subscribers.join_log(key, ConversationId::new([1; 32]), 0);
    relay.subscribers.change_log(&log, LogChange::Loaded(Vec::new(), 0));
    relay.until("its head is to be compared", || !relay.subscribers.logs().take_doubtful().is_empty()).await;
    log
}

fn channels(pattern: &str) -> usize {
    let redis = shared_redis().expect("Redis");
    redis.command(&["PUBSUB", "CHANNELS", pattern]).expect("an answer").lines().filter(|line| !line.is_empty()).count()
}

#[tokio::test]
async fn what_one_node_commits_the_others_have_and_only_as_long_as_they_read_it() {
    let (here, there) = tokio::join!(TestRelay::start(), TestRelay::start());
    let key = own_log();
    let pattern = format!("l:{}", key.0);
    assert_eq!(channels(&pattern), 0);
    let (own, log) = (read(&here, key).await, read(&there, key).await);
    here.relay.publish_to_logs((1..=50).map(|seq| (key, item(seq, 100))).collect());
    assert_eq!(own.end(), 50, "the node's own readers need no relay");
    there.until("all of it came", || log.end() == 50).await;
    let items = log.after(0, 50, usize::MAX, 0).expect("in memory");
    assert_eq!(items.iter().map(|item| item.to_seq).collect::<Vec<_>>(), (1..=50).collect::<Vec<_>>());
    assert_eq!(channels(&pattern), 1);

    there.subscribers.leave_log(&log, 0);
    here.subscribers.leave_log(&own, 0);
    here.until("nobody listens any more", || channels(&pattern) == 0).await;
}

#[tokio::test]
async fn a_mailbox_and_a_log_of_one_number_are_two_streams() {
    let (here, there) = tokio::join!(TestRelay::start(), TestRelay::start());
    let device = own_devices(1)[0];
    let id = there.subscribe(device).await;
    let log = read(&there, ConversationKey(device.0)).await;
    here.relay.publish([entry(device, 1)]);
    here.relay.publish_to_logs(vec![(log.key, item(1, 10)), (log.key, item(2, 10))]);
    there.until("both came", || log.end() == 2 && there.seqs(id) == [1]).await;
}

#[tokio::test]
async fn what_is_too_large_or_of_another_epoch_is_looked_for_in_the_store() {
    let inline = |config: &mut martlet::config::Config| config.relay.inline_content_bytes = 1000;
    let url = crate::world::shared_url();
    let (here, there) = tokio::join!(TestRelay::start_on(&url, inline), TestRelay::start_on(&url, inline));
    let log = read(&there, own_log()).await;
    here.relay.publish_to_logs(vec![(log.key, item(1, 10)), (log.key, item(2, 2000)), (log.key, item(3, 10))]);
    there.until("the hole is known", || log.hole() == Some(1)).await;
    assert_eq!(there.subscribers.logs().take_holed().len(), 1);
    there.subscribers.change_log(&log, LogChange::Came(vec![item(2, 2000)]));
    assert_eq!((log.end(), log.hole()), (3, None));

    here.subscribers.set_epoch(2);
    here.relay.publish_to_logs(vec![(log.key, item(4, 10))]);
    there.until("its head is to be compared", || !there.subscribers.logs().take_doubtful().is_empty()).await;
    assert_eq!(log.end(), 3, "a number of another epoch is another entry's");
}
