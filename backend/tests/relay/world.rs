//! A relay with subscribers and an inbox, as a node has them, without the node.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use martlet::{
    clock::{self, Clock},
    config::{Config, SecretUrl},
    health::{Health, Status},
    relay::{Parts, Relay, RelayError, Statistics},
    subscribers::{Inbox, Item, LiveEntry, LiveItem, SubscriberId, Subscribers},
};
use martlet_protocol::wire;
use martlet_servers::shared_redis;
use martlet_storage::{Db, DeviceKey};
use parking_lot::Mutex;
use rand::{Rng as _, RngExt as _};
use tempfile::TempDir;
use tokio::time;

/// The key of all relays that do not say otherwise.
pub const KEY: [u8; 32] = [5; 32];
/// Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What came for a subscriber, in short.
#[derive(Debug, Clone, PartialEq)]
pub enum Came {
    Entry(wire::MailboxEntry),
    Gap(wire::Gap),
    Whisper(Bytes),
    CompareHead,
    Close(u16),
}

pub struct TestRelay {
    pub relay: Relay,
    pub subscribers: Arc<Subscribers>,
    pub health: Health,
    pub clock: Clock,
    inbox: Arc<Inbox>,
    worker: u16,
    slots: AtomicU32,
    came: Mutex<Vec<(SubscriberId, Came)>>,
    missed: AtomicU32,
    _store: TempDir,
}

/// Devices of this test and no other: they share a Redis, and so its channels.
pub fn own_devices(count: i64) -> Vec<DeviceKey> {
    let first = clock::rng().random_range(1..i64::MAX / 2);
    (first..first + count).map(DeviceKey).collect()
}

pub fn shared_url() -> String {
    shared_redis().expect("Redis starts").url()
}

pub fn entry(device_key: DeviceKey, seq: u64) -> Arc<LiveEntry> {
    let sealed = Bytes::from(format!("sealed {seq}"));
    let item = LiveItem::Entry(wire::MailboxEntry { seq, sealed, ..Default::default() });
    Arc::new(LiveEntry { device_key, seq, item, under_way_since: Duration::ZERO })
}

impl TestRelay {
    /// On the Redis of all tests, subscribed.
    pub async fn start() -> Self {
        Self::start_on(&shared_url(), |_| {}).await
    }

    /// Subscribed.
    pub async fn start_on(url: &str, change: impl FnOnce(&mut Config)) -> Self {
        let relay = Self::open(url, KEY, change).expect("the config can be tried");
        relay.relay.start();
        relay.until("it is subscribed", || !relay.relay.is_lost()).await;
        relay
    }

    /// Not started.
    pub fn open(url: &str, key: [u8; 32], change: impl FnOnce(&mut Config)) -> Result<Self, RelayError> {
        Self::open_at(Clock::System, url, key, change)
    }

    pub fn open_at(
        clock: Clock,
        url: &str,
        key: [u8; 32],
        change: impl FnOnce(&mut Config),
    ) -> Result<Self, RelayError> {
        let store = tempfile::tempdir().expect("a folder");
        let mut config = Config::default();
        config.storage.data_dir = store.path().to_owned();
        config.relay.redis_url = Some(SecretUrl::new(url));
        change(&mut config);
        let subscribers = Arc::new(Subscribers::new());
        let (worker, inbox) = subscribers.join().expect("a worker");
        let health = Health::new("test");
        let mut seed = [0; 32];
        clock::rng().fill_bytes(&mut seed);
        let relay = Relay::open(Parts {
            db: Db::open(&config.db_config()).expect("a store"),
            config: Arc::new(config),
            clock: clock.clone(),
            health: health.clone(),
            subscribers: subscribers.clone(),
            key: key.into(),
            seed,
        })?;
        Ok(Self {
            relay,
            subscribers,
            health,
            clock,
            inbox,
            worker,
            slots: AtomicU32::new(0),
            came: Mutex::default(),
            missed: AtomicU32::new(0),
            _store: store,
        })
    }

    /// The device opens a socket here.
    pub fn register(&self, device_key: DeviceKey) -> SubscriberId {
        let slot = self.slots.fetch_add(1, Ordering::Relaxed);
        let id = SubscriberId { worker: self.worker, slot, generation: 1 };
        self.subscribers.register(device_key, id);
        id
    }

    /// It does, and its channel is subscribed to: the heads are to be compared.
    pub async fn subscribe(&self, device_key: DeviceKey) -> SubscriberId {
        let id = self.register(device_key);
        self.until("it is subscribed to", || self.came(id).contains(&Came::CompareHead)).await;
        id
    }

    fn take(&self) {
        let taken = self.inbox.take();
        if taken.missed {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
        let letters = taken.letters.into_iter().map(|letter| {
            let came = match letter.item {
                Item::Live(entry) => match &entry.item {
                    LiveItem::Entry(entry) => Came::Entry(entry.clone()),
                    LiveItem::Gap(gap) => Came::Gap(*gap),
                },
                Item::Whisper(whisper) => Came::Whisper(whisper.payload.clone()),
                Item::CompareHead => Came::CompareHead,
                Item::Close(code) => Came::Close(code),
                Item::Answer(..) | Item::HelloChanged | Item::LogEnded(_) => panic!("nobody said that"),
            };
            (letter.to, came)
        });
        self.came.lock().extend(letters);
    }

    /// What came for a subscriber so far.
    pub fn came(&self, id: SubscriberId) -> Vec<Came> {
        self.take();
        self.came.lock().iter().filter(|(to, _)| *to == id).map(|(_, came)| came.clone()).collect()
    }

    /// The `seq` of the entries among it.
    pub fn seqs(&self, id: SubscriberId) -> Vec<u64> {
        let seq = |came: Came| match came {
            Came::Entry(entry) => Some(entry.seq),
            _ => None,
        };
        self.came(id).into_iter().filter_map(seq).collect()
    }

    /// How often all heads were to be compared.
    pub fn all_compared(&self) -> u32 {
        self.take();
        self.missed.load(Ordering::Relaxed)
    }

    pub fn statistics(&self) -> Statistics {
        self.relay.statistics()
    }

    pub fn reason(&self) -> String {
        self.health.report().reasons.get("relay").cloned().unwrap_or_default()
    }

    pub async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = time::Instant::now() + PATIENCE;
        while !condition() {
            assert!(time::Instant::now() < deadline, "not yet: {what}; {:?} {:?}", self.statistics(), self.reason());
            time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn until_ok(&self) {
        self.until("all is well", || self.health.status() == Status::Ok && !self.relay.is_lost()).await;
    }
}
