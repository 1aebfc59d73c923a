//! The task that publishes what waits: many messages in one round trip, entries of one stream in one message. A batch that fails is tried
//! once more on a new connection (a repeat does no harm); then it is left out, and once Redis takes messages again the other nodes are
//! told to compare heads.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use deadpool::managed::{Object, PoolError};
use futures_util::future::try_join_all;
use martlet_protocol::wire::{self, log_item, relay_entry};
use redis::{Pipeline, RedisError};
use sha2::{Digest as _, Sha256};
use tokio::time;

use super::{
    Inner, Stop,
    channel::{Channel, Naming},
    endpoint::{Connection, timed_out},
    message::Body,
    queue::{Committed, CommittedToLog, Outgoing},
};
use crate::subscribers::{LiveEntry, LiveItem, LiveLogItem, StreamKey};

/// About what one round trip carries.
const BATCH_BYTES: usize = 1 << 20;
/// Past this an entry goes into the stream's next message.
const MESSAGE_BYTES: usize = 256 << 10;

/// What one round trip is to carry.
struct Work {
    items: Vec<Outgoing>,
    /// The control stream has grown.
    hint: bool,
    /// Something was left out before: everybody is to compare heads.
    owed: bool,
}

impl Work {
    fn take(inner: &Inner) -> Option<Self> {
        let (items, hint, owed) = (inner.queue.take(BATCH_BYTES), inner.queue.take_hint(), inner.queue.take_owed());
        (hint || owed || !items.is_empty()).then_some(Self { items, hint, owed })
    }
}

/// Publishes until the node stops, and then what still waits.
pub(super) async fn run(inner: Arc<Inner>, mut stop: Stop) {
    let (shortest, longest) = (inner.config.relay.reconnect_min, inner.config.relay.reconnect_max);
    let mut pause = shortest;
    loop {
        let stopping = tokio::select! {
            () = inner.queue.filled() => false,
            _ = stop.wait_for(|stop| *stop) => true,
        };
        while let Some(work) = Work::take(&inner) {
            if publish(&inner, &work).await {
                pause = shortest;
                continue;
            }
            // What waited longer is left out too, so that a Redis that comes back gets what is new.
            inner.queue.lose(work.items.len() + inner.queue.take(usize::MAX).len());
            if stopping {
                return;
            }
            tokio::select! {
                () = time::sleep(pause) => {}
                // Whoever subscribes has found Redis again.
                () = inner.recovered.notified() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            pause = pause.saturating_mul(2).min(longest);
        }
        if stopping {
            return;
        }
    }
}

/// Whether Redis took it.
async fn publish(inner: &Inner, work: &Work) -> bool {
    let mut bodies = bodies(&work.items, inner.config.relay.inline_content_bytes);
    if work.hint {
        bodies.push((Channel::Control, Body::ControlHint));
    }
    if work.owed {
        bodies.push((Channel::Control, Body::CompareHeads));
    }
    let pipelines = pipelines(inner, inner.endpoint.naming(), &bodies);
    let mut sent = send(inner, &pipelines).await;
    if sent.is_err() {
        // A connection that was cut is found out by using it, and the others of the pool are probably no better.
        inner.pool.retain(|_, _| false);
        sent = send(inner, &pipelines).await;
    }
    match sent {
        Ok(receivers) => {
            inner.counts.published(bodies.len(), receivers);
            inner.publishing(Ok(()));
            true
        }
        Err(error) => {
            inner.publishing(Err(inner.explain(&error)));
            false
        }
    }
}

/// One message per stream as a rule, in the order in which they were committed.
fn bodies(items: &[Outgoing], inline_content_bytes: usize) -> Vec<(Channel, Body)> {
    let mut bodies = Vec::new();
    // Where the stream's message is that still takes entries, and what is in it, in bytes.
    let mut open: HashMap<(u64, StreamKey), (usize, usize)> = HashMap::new();
    let mut hashes = Hashes::default();
    for item in items {
        let key = item.stream_key();
        let channel = Channel::Stream(key);
        match item {
            Outgoing::Claim(_, claim) => bodies.push((channel, Body::Claim(*claim))),
            Outgoing::Whisper(whisper) => {
                let whisper =
                    wire::RelayWhisper { expires_at_ms: whisper.expires_at_ms, payload: whisper.payload.clone() };
                bodies.push((channel, Body::Whisper(whisper)));
            }
            Outgoing::Entry(Committed { epoch, entry }) => {
                let relayed = relayed(entry, inline_content_bytes, &mut hashes);
                let size = entry.item.size_bytes();
                if let Some((at, bytes)) = open.get_mut(&(*epoch, key))
                    && *bytes + size <= MESSAGE_BYTES
                    && let Some((_, Body::Entries(entries))) = bodies.get_mut(*at)
                {
                    *bytes += size;
                    entries.entries.push(relayed);
                } else {
                    open.insert((*epoch, key), (bodies.len(), size));
                    let entries = wire::RelayEntries { entries: vec![relayed], epoch: *epoch };
                    bodies.push((channel, Body::Entries(entries)));
                }
            }
            Outgoing::LogItem(CommittedToLog { epoch, item, .. }) => {
                let size = item.size_bytes();
                if let Some((at, bytes)) = open.get_mut(&(*epoch, key))
                    && *bytes + size <= MESSAGE_BYTES
                    && let Some((_, Body::LogEntries(entries))) = bodies.get_mut(*at)
                {
                    *bytes += size;
                    add_to_log(entries, item, inline_content_bytes);
                } else {
                    open.insert((*epoch, key), (bodies.len(), size));
                    let mut entries = wire::RelayLogEntries { epoch: *epoch, ..Default::default() };
                    add_to_log(&mut entries, item, inline_content_bytes);
                    bodies.push((channel, Body::LogEntries(entries)));
                }
            }
        }
    }
    bodies
}

/// What is too large is told by its number only: other nodes that need it read it from the store.
fn add_to_log(entries: &mut wire::RelayLogEntries, item: &LiveLogItem, inline_content_bytes: usize) {
    entries.head_seq = entries.head_seq.max(item.to_seq);
    if let log_item::Item::Entry(entry) = &item.item
        && entry.content.len() <= inline_content_bytes
    {
        entries.entries.push(entry.clone());
        entries.expires_at_s.push(item.expires_at_s);
    }
}

/// SHA-256 of contents, each computed once however many devices of a batch get it.
#[derive(Default)]
struct Hashes(HashMap<(usize, usize), [u8; 32]>);

impl Hashes {
    /// By where the content lies: the batch keeps it there.
    fn of(&mut self, content: &[u8]) -> [u8; 32] {
        let place = (content.as_ptr() as usize, content.len());
        *self.0.entry(place).or_insert_with(|| Sha256::digest(content).into())
    }
}

fn relayed(entry: &LiveEntry, inline_content_bytes: usize, hashes: &mut Hashes) -> wire::RelayEntry {
    let item = match &entry.item {
        LiveItem::Gap(gap) => relay_entry::Item::Gap(*gap),
        LiveItem::Entry(entry) if entry.content.len() <= inline_content_bytes => {
            relay_entry::Item::Entry(entry.clone())
        }
        LiveItem::Entry(entry) => relay_entry::Item::Large(wire::RelayLargeEntry {
            seq: entry.seq,
            entry_id: entry.entry_id.clone(),
            sealed: entry.sealed.clone(),
            content_sha256: hashes.of(&entry.content).to_vec().into(),
        }),
    };
    wire::RelayEntry { item: Some(item) }
}

/// The commands: on a cluster one pipeline per partition, since a pipeline goes to one server.
fn pipelines(inner: &Inner, naming: Naming, bodies: &[(Channel, Body)]) -> Vec<Pipeline> {
    let now_ms = inner.clock.now_ms();
    let mut pipelines: BTreeMap<u64, Pipeline> = BTreeMap::new();
    for (channel, body) in bodies {
        let (command, partition) = match naming {
            Naming::Plain => ("PUBLISH", 0),
            Naming::Sharded => ("SPUBLISH", channel.partition()),
        };
        let name = channel.name(naming);
        let message = inner.sealer.seal(name.as_bytes(), now_ms, body);
        pipelines.entry(partition).or_default().cmd(command).arg(name).arg(message);
    }
    pipelines.into_values().collect()
}

/// Sends them, side by side if there are several; how many subscriptions they reached.
async fn send(inner: &Inner, pipelines: &[Pipeline]) -> Result<u64, RedisError> {
    let connection = inner.pool.get().await.map_err(of_pool)?;
    let under_way = pipelines.iter().map(|pipeline| {
        let mut connection: Connection = (*connection).clone();
        async move { pipeline.query_async::<Vec<u64>>(&mut connection).await }
    });
    let sent = time::timeout(inner.config.relay.redis_timeout.saturating_mul(2), try_join_all(under_way)).await;
    match sent.unwrap_or_else(|_| Err(timed_out("publishing took too long"))) {
        Ok(receivers) => Ok(receivers.into_iter().flatten().sum()),
        Err(error) => {
            // Not back into the pool.
            drop(Object::take(connection));
            Err(error)
        }
    }
}

fn of_pool(error: PoolError<RedisError>) -> RedisError {
    match error {
        PoolError::Backend(error) => error,
        PoolError::Timeout(_) => timed_out("no connection in time"),
        PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
            timed_out("there are no connections any more")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use martlet_storage::{ConversationKey, DeviceKey};

    use super::*;

    fn to_log(key: i64, seq: u64, content: &Bytes) -> Outgoing {
        let item = LiveLogItem::entry(wire::LogEntry { seq, content: content.clone(), ..Default::default() }, 0);
        Outgoing::LogItem(CommittedToLog { epoch: 1, key: ConversationKey(key), item })
    }

    fn entry(device: i64, seq: u64, content: &Bytes) -> Outgoing {
        let item = LiveItem::Entry(wire::MailboxEntry { seq, content: content.clone(), ..Default::default() });
        let entry = Arc::new(LiveEntry { device_key: DeviceKey(device), seq, item, under_way_since: Duration::ZERO });
        Outgoing::Entry(Committed { epoch: 1, entry })
    }

    fn seqs(body: &Body) -> Vec<u64> {
        let Body::Entries(entries) = body else { return Vec::new() };
        let seq = |entry: &wire::RelayEntry| match &entry.item {
            Some(relay_entry::Item::Entry(entry)) => entry.seq,
            Some(relay_entry::Item::Large(entry)) => entry.seq,
            Some(relay_entry::Item::Gap(gap)) => gap.to_seq,
            None => 0,
        };
        entries.entries.iter().map(seq).collect()
    }

    #[test]
    fn entries_of_one_device_share_a_message_until_it_is_full() {
        let (small, large) = (Bytes::from_static(b"x"), Bytes::from(vec![0; MESSAGE_BYTES / 2]));
        let items = [
            entry(1, 1, &small),
            entry(2, 1, &small),
            entry(1, 2, &large),
            entry(1, 3, &large),
            entry(2, 2, &small),
            entry(1, 4, &small),
        ];
        let bodies = bodies(&items, usize::MAX);
        let expected: [(i64, &[u64]); 3] = [(1, &[1, 2]), (2, &[1, 2]), (1, &[3, 4])];
        assert_eq!(bodies.len(), expected.len());
        for ((channel, body), (device, expected)) in bodies.iter().zip(expected) {
            let mailbox = StreamKey::Mailbox(DeviceKey(device));
            assert_eq!((*channel, seqs(body).as_slice()), (Channel::Stream(mailbox), expected));
        }
    }

    #[test]
    fn a_log_and_a_mailbox_of_one_number_are_two_channels_and_large_content_is_a_number() {
        let (small, large) = (Bytes::from_static(b"x"), Bytes::from(vec![0; 100]));
        let bodies = bodies(&[to_log(1, 1, &small), entry(1, 9, &small), to_log(1, 2, &large)], 99);
        let [(log, Body::LogEntries(entries)), (mailbox, Body::Entries(_))] = &bodies[..] else {
            panic!("two messages")
        };
        assert_eq!(*log, Channel::Stream(StreamKey::Log(ConversationKey(1))));
        assert_eq!(*mailbox, Channel::Stream(StreamKey::Mailbox(DeviceKey(1))));
        assert_eq!((entries.entries.len(), entries.head_seq), (1, 2));
    }

    #[test]
    fn large_content_is_named_instead_of_sent() {
        let content = Bytes::from(vec![7; 100]);
        let bodies = bodies(&[entry(1, 1, &content), entry(2, 5, &content)], 99);
        for (_, body) in bodies {
            let Body::Entries(entries) = body else { panic!("entries") };
            let Some(relay_entry::Item::Large(large)) = &entries.entries[0].item else { panic!("large") };
            assert_eq!(large.content_sha256, Sha256::digest(&content).to_vec());
        }
    }
}
