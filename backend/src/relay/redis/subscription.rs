//! The task that keeps this node subscribed to the channels of the streams that are read here: on one connection of its own, in batches. Once
//! a batch is confirmed, the heads of exactly its streams are compared with the store (subscribe first, read second), so what was
//! published before is found, and the node claims the devices' sockets.
//!
//! It goes by how things are, not by what happened: whoever came or went is looked up at the moment it is dealt with, by one task, one
//! batch after the other. So a device that leaves and comes back at once stays subscribed, in whatever order that was noticed. A
//! connection in doubt is given up, a new one begins with everything.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, pin_mut, stream};
use martlet_storage::DeviceKey;
use redis::RedisError;
use tokio::time::{self, MissedTickBehavior};

use super::{
    Inner, Stop,
    channel::{Channel, Naming},
    endpoint::{Connection, timed_out},
    queue::Outgoing,
    receive::Link,
};
use crate::subscribers::{Changes, StreamKey};

/// Commands of one connection that are unanswered at once.
const COMMANDS_AT_ONCE: usize = 8;
/// How often a wish of other nodes to compare heads is granted: it costs the store a query per thousand devices.
const COMPARE_INTERVAL: Duration = Duration::from_secs(1);

struct Follower {
    inner: Arc<Inner>,
    changes: Arc<Changes>,
    /// Came or went, and the subscriptions don't show it yet.
    pending: HashSet<StreamKey>,
    /// What the present connection is subscribed to.
    subscribed: HashSet<StreamKey>,
}

/// Subscribes until the node stops.
pub(super) async fn run(inner: Arc<Inner>, changes: Arc<Changes>, mut stop: Stop) {
    let mut follower = Follower { inner: inner.clone(), changes, pending: HashSet::new(), subscribed: HashSet::new() };
    let mut attempt = 0;
    loop {
        let lost = tokio::select! {
            Err(lost) = follower.follow() => lost,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        if !inner.is_lost() {
            attempt = 0;
        }
        inner.lost(inner.explain(&lost));
        let pause = inner.pause(attempt);
        attempt = attempt.saturating_add(1);
        tokio::select! {
            () = follower.noting(time::sleep(pause)) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

impl Follower {
    /// One connection, from its beginning to its end.
    async fn follow(&mut self) -> Result<std::convert::Infallible, RedisError> {
        let link = Arc::new(Link::default());
        let (inner, heard) = (self.inner.clone(), link.clone());
        let push = Box::new(move |info| inner.pushed(info, &heard));
        let inner = self.inner.clone();
        let mut connection = self.noting(inner.endpoint.connect(Some(push))).await?;
        connection.subscribe(&[Channel::Control.name(inner.endpoint.naming())]).await?;
        self.subscribed.clear();
        self.pending = inner.subscribers.streams().into_iter().collect();
        self.note();
        self.pending.iter().for_each(|key| inner.note(*key));
        self.catch_up(&connection, &link).await?;
        inner.found();

        let mut pings = time::interval(inner.config.relay.redis_ping_interval);
        let mut compares = time::interval(COMPARE_INTERVAL);
        for ticks in [&mut pings, &mut compares] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                () = link.lost.notified() => return Err(ended()),
                () = self.changes.changed() => {
                    self.note();
                    self.catch_up(&connection, &link).await?;
                }
                _ = pings.tick() => {
                    // Longer than its own time-out, for a cluster asks several servers.
                    let patience = inner.config.relay.redis_timeout.saturating_mul(2);
                    let answered = self.noting(time::timeout(patience, connection.ping())).await;
                    answered.unwrap_or_else(|_| Err(timed_out("no answer to a ping")))?;
                    self.catch_up(&connection, &link).await?;
                }
                _ = compares.tick() => inner.compare_if_asked(),
            }
        }
    }

    /// Waits for something, and meanwhile notes who comes and goes: when a device connected decides who holds its socket.
    async fn noting<T>(&mut self, future: impl Future<Output = T>) -> T {
        pin_mut!(future);
        loop {
            tokio::select! {
                done = &mut future => return done,
                () = self.changes.changed() => self.note(),
            }
        }
    }

    fn note(&mut self) {
        for key in self.changes.take() {
            self.inner.note(key);
            self.pending.insert(key);
        }
    }

    /// Subscribes and unsubscribes until nothing is pending.
    async fn catch_up(&mut self, connection: &Connection, link: &Link) -> Result<(), RedisError> {
        while !self.pending.is_empty() {
            let inner = self.inner.clone();
            let (mut come, mut gone) = (Vec::new(), Vec::new());
            for key in std::mem::take(&mut self.pending) {
                match (inner.subscribers.reads(key), self.subscribed.contains(&key)) {
                    (true, false) => come.push(key),
                    (false, true) => gone.push(key),
                    // Another socket of a device that reads here already, or one that came and went meanwhile.
                    (true, true) => inner.claim(&[key]),
                    (false, false) => {}
                }
            }
            for key in &gone {
                self.subscribed.remove(key);
            }
            let naming = inner.endpoint.naming();
            let max = inner.config.relay.subscribe_batch;
            let batches = batches(come, naming, max).into_iter().map(|batch| (true, batch));
            let commands = batches.chain(self::batches(gone, naming, max).into_iter().map(|batch| (false, batch)));
            let under_way = stream::iter(commands.collect::<Vec<_>>())
                .map(|(come, batch)| command(&inner, connection.clone(), link, come, batch))
                .buffer_unordered(COMMANDS_AT_ONCE)
                .collect::<Vec<_>>();
            for confirmed in self.noting(under_way).await {
                self.subscribed.extend(confirmed?);
            }
        }
        Ok(())
    }
}

/// One command. Returns the streams that are subscribed to by it.
async fn command(
    inner: &Inner,
    mut connection: Connection,
    link: &Link,
    come: bool,
    batch: Vec<StreamKey>,
) -> Result<Vec<StreamKey>, RedisError> {
    let naming = inner.endpoint.naming();
    let channels: Vec<String> = batch.iter().map(|key| Channel::Stream(*key).name(naming)).collect();
    if !come {
        link.ending.lock().extend(channels.iter().map(|channel| channel.clone().into_bytes()));
        connection.unsubscribe(&channels).await?;
        return Ok(Vec::new());
    }
    connection.subscribe(&channels).await?;
    inner.subscribers.compare_heads(mailboxes(&batch));
    inner.subscribers.logs().doubt(batch.iter().filter_map(|key| match key {
        StreamKey::Log(key) => Some(*key),
        StreamKey::Mailbox(_) => None,
    }));
    inner.claim(&batch);
    Ok(batch)
}

/// At most `max` each, and on a cluster only what lies in one slot.
fn batches(streams: Vec<StreamKey>, naming: Naming, max: usize) -> Vec<Vec<StreamKey>> {
    let mut groups: BTreeMap<u64, Vec<StreamKey>> = BTreeMap::new();
    for key in streams {
        let group = match naming {
            Naming::Plain => 0,
            Naming::Sharded => Channel::Stream(key).partition(),
        };
        groups.entry(group).or_default().push(key);
    }
    groups.into_values().flat_map(|group| group.chunks(max.max(1)).map(<[_]>::to_vec).collect::<Vec<_>>()).collect()
}

fn mailboxes(batch: &[StreamKey]) -> impl Iterator<Item = DeviceKey> + '_ {
    batch.iter().filter_map(|key| match key {
        StreamKey::Mailbox(device_key) => Some(*device_key),
        StreamKey::Log(_) => None,
    })
}

fn ended() -> RedisError {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the connection ended").into()
}

impl Inner {
    /// A device may have come or gone. Of logs nobody needs to know who reads them.
    fn note(&self, key: StreamKey) {
        let StreamKey::Mailbox(device_key) = key else { return };
        let (now, tie) = (self.now(), self.random());
        match self.subscribers.find(device_key) {
            Some(id) => {
                self.claims.lock().hold(device_key, id, now, tie);
            }
            None => self.claims.lock().release(device_key),
        }
    }

    /// Says on their channels that the devices' sockets are here.
    fn claim(&self, streams: &[StreamKey]) {
        let now = self.now();
        let claims = self.claims.lock();
        let held =
            |device_key: DeviceKey| claims.claim(device_key, now).map(|claim| Outgoing::Claim(device_key, claim));
        self.queue.put(mailboxes(streams).filter_map(held).collect::<Vec<_>>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_no_larger_than_they_may_and_on_a_cluster_of_one_partition() {
        let streams: Vec<StreamKey> = (0..1000).map(|key| StreamKey::Mailbox(DeviceKey(key))).collect();
        let plain = batches(streams.clone(), Naming::Plain, 512);
        assert_eq!(plain.iter().map(Vec::len).collect::<Vec<_>>(), [512, 488]);
        let sharded = batches(streams, Naming::Sharded, 5);
        assert_eq!(sharded.iter().map(Vec::len).sum::<usize>(), 1000);
        for batch in sharded {
            let partitions: HashSet<u64> = batch.iter().map(|key| Channel::Stream(*key).partition()).collect();
            assert!(batch.len() <= 5 && partitions.len() == 1);
        }
    }
}
