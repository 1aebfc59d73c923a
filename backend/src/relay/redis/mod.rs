//! The relay between nodes: through Redis, which may lose, delay and repeat anything. What it loses is found by comparing heads; what it
//! can't do is forge.
//!
//! In reading order: [`channel`] (names), [`message`] (what is on the wire, and its MAC), [`queue`] and [`publisher`] (out),
//! [`subscription`] and [`receive`] (in), [`claims`] (one socket per device), [`contents`] (what is too large for a message).
//! [`endpoint`] connects, [`fault`] says in words what is wrong, [`probe`] tries all of it for `martlet check`.

mod channel;
mod claims;
mod contents;
mod counts;
mod endpoint;
mod fault;
mod message;
mod probe;
mod publisher;
mod queue;
mod receive;
mod subscription;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use martlet_storage::{ConversationKey, Db};
use parking_lot::Mutex;
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use redis::RedisError;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

pub use counts::Statistics;
pub use endpoint::EndpointError;
pub use probe::{Probed, probe};

use super::Parts;
use crate::{
    clock::Clock,
    config::Config,
    health::Health,
    subscribers::{LiveEntry, LiveLogItem, Subscribers, Whisper},
    vital,
};
use claims::{Claims, Now};
use contents::Contents;
use counts::Counts;
use endpoint::{Endpoint, Pool};
use message::{BadMessage, NodeTag, Sealer};
use queue::{Committed, CommittedToLog, Outgoing, Queue};

/// The name of this part in health.
const PART: &str = "relay";
/// The name under which health says that clocks are apart.
const CLOCKS_PART: &str = "clocks";
/// Bad messages are logged no more often, and a clock is thought to be apart no longer without another sign of it.
const QUIET: Duration = Duration::from_secs(60);

/// Ends when the node stops.
type Stop = watch::Receiver<bool>;

/// The Redis arm of the relay.
pub struct RedisRelay {
    inner: Arc<Inner>,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

struct Inner {
    config: Arc<Config>,
    clock: Clock,
    health: Health,
    db: Db,
    subscribers: Arc<Subscribers>,
    endpoint: Endpoint,
    pool: Pool,
    sealer: Sealer,
    queue: Queue,
    contents: Contents,
    claims: Mutex<Claims>,
    rng: Mutex<StdRng>,
    counts: Counts,
    /// Notified when another node says that the control stream has grown.
    control_hint: Arc<Notify>,
    /// This node is not subscribed.
    lost: AtomicBool,
    faults: Mutex<Faults>,
    /// Notified when this node is subscribed again.
    recovered: Notify,
    /// Another node could not publish for a while.
    compare_asked: AtomicBool,
    /// When a message was last too old, and when a bad one was last logged: steady milliseconds, 0 for never.
    old_at_ms: AtomicU64,
    logged_at_ms: AtomicU64,
}

/// What does not work, in words.
#[derive(Debug, Default)]
struct Faults {
    subscription: Option<String>,
    publishing: Option<String>,
}

impl RedisRelay {
    /// Connects to nothing yet. `None` if the config names no Redis.
    pub(super) fn new(parts: Parts) -> Result<Option<Self>, EndpointError> {
        let Some(endpoint) = Endpoint::new(&parts.config.relay)? else { return Ok(None) };
        let relay = &parts.config.relay;
        let Some(pool) = endpoint.pool(relay.redis_connections) else {
            return Err(EndpointError::Url("connections need a tokio runtime".into()));
        };
        let mut rng = StdRng::from_seed(parts.seed);
        let mut node: NodeTag = [0; 16];
        rng.fill_bytes(&mut node);
        let inner = Inner {
            sealer: Sealer::new(&parts.key, node),
            queue: Queue::new(relay.publish_queue_bytes),
            contents: Contents::new(relay.content_queue_bytes),
            endpoint,
            pool,
            claims: Mutex::default(),
            rng: Mutex::new(rng),
            counts: Counts::default(),
            control_hint: Arc::default(),
            lost: AtomicBool::new(true),
            faults: Mutex::default(),
            recovered: Notify::new(),
            compare_asked: AtomicBool::new(false),
            old_at_ms: AtomicU64::new(0),
            logged_at_ms: AtomicU64::new(0),
            config: parts.config,
            clock: parts.clock,
            health: parts.health,
            db: parts.db,
            subscribers: parts.subscribers,
        };
        Ok(Some(Self { inner: Arc::new(inner), stop: watch::channel(false).0, tasks: Mutex::default() }))
    }

    pub(super) fn start(&self) {
        let changes = self.inner.subscribers.changes();
        let stop = || self.stop.subscribe();
        self.tasks.lock().extend([
            vital::spawn("the publisher", publisher::run(self.inner.clone(), stop())),
            vital::spawn("the reader of contents", contents::run(self.inner.clone(), stop())),
            vital::spawn("the subscription", subscription::run(self.inner.clone(), changes, stop())),
        ]);
    }

    pub(super) async fn stop(&self) {
        self.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the relay failed");
            }
        }
    }

    pub(super) fn publish(&self, entries: impl IntoIterator<Item = Arc<LiveEntry>>) {
        let entries: Vec<_> = entries.into_iter().collect();
        let epoch = self.inner.subscribers.epoch();
        self.inner.queue.put(entries.iter().cloned().map(|entry| Outgoing::Entry(Committed { epoch, entry })));
        self.inner.subscribers.deliver(entries);
    }

    pub(super) fn publish_to_logs(&self, items: Vec<(ConversationKey, Arc<LiveLogItem>)>) {
        let epoch = self.inner.subscribers.epoch();
        self.inner.queue.put(
            items.iter().map(|(key, item)| Outgoing::LogItem(CommittedToLog { epoch, key: *key, item: item.clone() })),
        );
        self.inner.subscribers.append_to_logs(items);
    }

    pub(super) fn left_out(&self, entries: usize) {
        self.inner.queue.lose(entries);
    }

    pub(super) fn whisper(&self, whispers: impl IntoIterator<Item = Arc<Whisper>>) {
        let whispers: Vec<_> = whispers.into_iter().collect();
        self.inner.queue.put(whispers.iter().cloned().map(Outgoing::Whisper));
        self.inner.subscribers.whisper(whispers);
    }

    pub(super) fn control_changed(&self) {
        self.inner.queue.put_hint();
    }

    pub(super) fn control_hint(&self) -> Arc<Notify> {
        self.inner.control_hint.clone()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.inner.is_lost()
    }

    pub(super) fn statistics(&self) -> Statistics {
        self.inner.counts.read(self.inner.queue.left_out())
    }
}

impl Inner {
    fn now(&self) -> Now {
        Now { wall_ms: self.clock.now_ms(), steady: self.clock.elapsed() }
    }

    fn steady_ms(&self) -> u64 {
        // 0 stands for never.
        u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    fn random(&self) -> u64 {
        self.rng.lock().next_u64()
    }

    fn explain(&self, error: &RedisError) -> String {
        fault::explain(error, self.config.relay.redis_kind)
    }

    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// How long to wait before the next attempt: any time up to a bound that grows, so that nodes don't come back all at once.
    fn pause(&self, attempt: u32) -> Duration {
        let relay = &self.config.relay;
        let bound = relay.reconnect_min.saturating_mul(2_u32.saturating_pow(attempt)).min(relay.reconnect_max);
        let bound_ms = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.rng.lock().random_range(0..=bound_ms))
    }

    /// This node is not subscribed any more, or still isn't.
    fn lost(&self, reason: String) {
        if !self.lost.swap(true, Ordering::AcqRel) {
            self.counts.lost();
            // Wakes the workers' comparison, which from here on runs by the shorter interval.
            self.subscribers.compare_all_heads();
        }
        self.tell(|faults| faults.subscription = Some(reason));
    }

    /// This node is subscribed to everything that it should be.
    fn found(&self) {
        self.lost.store(false, Ordering::Release);
        self.recovered.notify_one();
        self.tell(|faults| faults.subscription = None);
    }

    /// Whether publishing works.
    fn publishing(&self, outcome: Result<(), String>) {
        if outcome.is_ok() && self.faults.lock().publishing.is_none() {
            return;
        }
        self.tell(|faults| faults.publishing = outcome.err());
    }

    fn tell(&self, change: impl FnOnce(&mut Faults)) {
        let mut faults = self.faults.lock();
        change(&mut faults);
        match faults.subscription.as_ref().or(faults.publishing.as_ref()) {
            Some(reason) => self.health.degrade(PART, reason.clone()),
            None => self.health.restore(PART),
        }
    }

    /// A message that is not to be believed. Nothing of it is logged: it may be anything.
    fn distrust(&self, bad: BadMessage) {
        self.counts.bad();
        let (now_ms, before_ms) = (self.steady_ms(), self.logged_at_ms.load(Ordering::Relaxed));
        let quiet = before_ms != 0 && u128::from(now_ms.saturating_sub(before_ms)) < QUIET.as_millis();
        let unchanged =
            || self.logged_at_ms.compare_exchange(before_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !quiet && unchanged() {
            tracing::warn!(reason = %bad, "a relay message was not believed (said once a minute)");
        }
    }

    /// A message that is authentic and too old, or from the future.
    fn clocks_apart(&self) {
        self.counts.old();
        self.old_at_ms.store(self.steady_ms(), Ordering::Relaxed);
        let reason = "another node's messages are older than relay.max_message_age: set the nodes' clocks (by NTP); if they are \
                      right, somebody plays old messages again";
        self.health.degrade(CLOCKS_PART, reason);
    }

    fn ask_to_compare(&self) {
        self.compare_asked.store(true, Ordering::Release);
    }

    /// What another node asked for, and once a second at most. Also notices that clocks are no longer apart.
    fn compare_if_asked(&self) {
        if self.compare_asked.swap(false, Ordering::AcqRel) {
            self.subscribers.compare_all_heads();
        }
        let old_at_ms = self.old_at_ms.load(Ordering::Relaxed);
        if old_at_ms != 0 && u128::from(self.steady_ms().saturating_sub(old_at_ms)) > QUIET.as_millis() {
            self.old_at_ms.store(0, Ordering::Relaxed);
            self.health.restore(CLOCKS_PART);
        }
    }
}
