//! What is delivered, and what every node must hear of.
//!
//! [`Streams::publish`] takes committed entries to the [`crate::relay`] and so to the subscribers; `mailboxes` and `logs` read what they missed;
//! `acks` writes what they have; `control` follows the control stream, and `gate` keeps a node that could not follow it from pushing.
//! `tasks` are the loops behind all that.
//!
//! It does not know what is in an entry, who sent it, or how a socket works.

mod acks;
mod control;
mod gate;
mod logs;
mod mailboxes;
mod tasks;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use martlet_protocol::{id::ConversationId, wire};
use martlet_storage::{
    ConversationKey, Db, DeviceKey, StorageError,
    logs::{Access, LogCursor},
    mailbox::Ack,
};
use parking_lot::{Mutex, RwLock};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

pub use crate::subscribers::{LiveEntry, LiveItem, LiveLogItem, Log, Whisper};
use crate::{
    clock::Clock,
    config::Config,
    relay::{self, Relay},
    subscribers::Subscribers,
    vital,
};
use acks::Acks;
use gate::{Gate, Moment};
pub use logs::LogRange;
use logs::StoredLogs;
use mailboxes::Mailboxes;
pub use mailboxes::{MailboxRange, PageWanted, Wanted};

/// One entry for one device, as the commit thread hands it over.
#[derive(Debug, Clone)]
pub struct Published {
    /// Whose mailbox.
    pub device_key: DeviceKey,
    /// The entry.
    pub entry: Arc<LiveEntry>,
}

/// One entry for all who read a log, as the commit thread hands it over.
#[derive(Debug, Clone)]
pub struct PublishedToLog {
    /// Which log.
    pub key: ConversationKey,
    /// The entry.
    pub item: Arc<LiveLogItem>,
}

/// Hears every control entry, in order, on a task of the node; may hear one twice. Must not block.
pub type ControlCallback = Box<dyn Fn(&wire::ControlEntry) + Send + Sync>;

/// Hears that control entries were missed: whatever is cached must be forgotten. Must not block.
pub type LostCallback = Box<dyn Fn() + Send + Sync>;

/// The streams of this node. Cheap to clone.
#[derive(Clone)]
pub struct Streams(Arc<Inner>);

struct Inner {
    db: Db,
    config: Arc<Config>,
    clock: Clock,
    relay: Relay,
    subscribers: Arc<Subscribers>,
    mailboxes: Mailboxes,
    logs: StoredLogs,
    /// Counts control entries that took members away, before anybody is told of them.
    removals: AtomicU64,
    acks: Acks,
    gate: Gate,
    callbacks: RwLock<Vec<ControlCallback>>,
    lost_callbacks: RwLock<Vec<LostCallback>>,
    control_changed: Notify,
    /// The same, said by another node.
    control_hint: Arc<Notify>,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Streams {
    /// Of a node that is the only one. Starts nothing yet: see [`Self::start`].
    #[must_use]
    pub fn new(db: Db, config: Arc<Config>, clock: Clock) -> Self {
        let subscribers = Arc::new(Subscribers::new());
        let relay = Relay::InProcess(subscribers.clone());
        Self::with_relay(db, config, clock, subscribers, relay)
    }

    /// With a relay that tells other nodes, of the same subscribers.
    #[must_use]
    pub fn with_relay(db: Db, config: Arc<Config>, clock: Clock, subscribers: Arc<Subscribers>, relay: Relay) -> Self {
        Self(Arc::new(Inner {
            control_hint: relay.control_hint(),
            relay,
            mailboxes: Mailboxes::new(db.clone(), clock.clone(), config.storage.read_connections),
            logs: StoredLogs::new(db.clone(), clock.clone(), subscribers.clone(), &config),
            removals: AtomicU64::new(0),
            db,
            config,
            clock,
            subscribers,
            acks: Acks::default(),
            gate: Gate::default(),
            callbacks: RwLock::default(),
            lost_callbacks: RwLock::default(),
            control_changed: Notify::new(),
            stop: watch::channel(false).0,
            tasks: Mutex::default(),
        }))
    }

    /// Begins to follow the control stream, starts the relay and the background tasks on the current tokio runtime. Only after all callbacks are
    /// registered and before anything is served: what changes from here on is heard of.
    ///
    /// # Errors
    /// [`StorageError`] if the control stream can't be read.
    pub async fn start(&self) -> Result<(), StorageError> {
        let position = self.0.control_position().await?;
        self.0.subscribers.set_epoch(position.epoch);
        let stop = self.0.stop.subscribe();
        let mut tasks = self.0.tasks.lock();
        tasks.push(vital::spawn(
            "the follower of the control stream",
            tasks::follow_control(self.0.clone(), position, stop.clone()),
        ));
        tasks.push(vital::spawn("the writer of acks", tasks::write_acks(self.0.clone(), stop.clone())));
        tasks.push(vital::spawn("the sweeper", tasks::sweep(self.0.clone(), stop.clone())));
        tasks.push(vital::spawn("the repair of logs", tasks::repair_logs(self.0.clone(), stop.clone())));
        tasks.push(vital::spawn("the comparison of logs", tasks::compare_logs(self.0.clone(), stop)));
        self.0.relay.start();
        Ok(())
    }

    /// Hands over what was committed, in commit order; `committed_in` is [`Self::epoch`] from before the commit. Never blocks; what can't be
    /// handed over is read from the store later.
    pub fn publish(&self, entries: Vec<Published>, to_logs: Vec<PublishedToLog>, committed_in: u64) {
        let epoch = self.0.subscribers.epoch();
        if committed_in != epoch || self.0.db.newest_epoch() > epoch {
            // The store was found to be another one meanwhile. Nobody must get these by the old numbers: this node's sockets are about to
            // be closed, and other nodes, which may have noticed already, are told to look for themselves.
            self.0.subscribers.logs().doubt(to_logs.iter().map(|published| published.key));
            return self.0.relay.left_out(entries.len() + to_logs.len());
        }
        if !entries.is_empty() {
            self.0.relay.publish(entries.into_iter().map(|published| published.entry));
        }
        if !to_logs.is_empty() {
            self.0
                .relay
                .publish_to_logs(to_logs.into_iter().map(|published| (published.key, published.item)).collect());
        }
    }

    /// Something may have been committed to these mailboxes and logs without word of it, by a try whose outcome was not known: heads are to
    /// be compared, here and on other nodes.
    pub fn in_doubt(&self, devices: Vec<DeviceKey>, logs: Vec<ConversationKey>) {
        self.0.relay.left_out(devices.len() + logs.len());
        self.0.subscribers.compare_heads(devices);
        self.0.subscribers.logs().doubt(logs);
    }

    /// The store's epoch, as far as this node has noticed.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.subscribers.epoch()
    }

    /// Hands over ephemeral messages to whoever is connected, here or on another node. Never blocks, stores nothing.
    pub fn whisper(&self, whispers: Vec<Whisper>) {
        self.0.relay.whisper(whispers.into_iter().map(Arc::new));
    }

    /// Registers a callback for control entries. Only before [`Self::start`].
    pub fn on_control(&self, callback: ControlCallback) {
        self.0.callbacks.write().push(callback);
    }

    /// Registers a callback for a node that missed control entries. Only before [`Self::start`].
    pub fn on_control_lost(&self, callback: LostCallback) {
        self.0.lost_callbacks.write().push(callback);
    }

    /// Something was just appended to the control stream by this node: look at once instead of within 250 ms, here and elsewhere.
    pub fn control_changed(&self) {
        self.0.control_changed.notify_one();
        self.0.relay.control_changed();
    }

    /// How often heads are to be compared: more often while nothing is heard from other nodes.
    #[must_use]
    pub fn head_check_interval(&self) -> Duration {
        self.0.head_check_interval()
    }

    /// What the relay between nodes has done, in numbers.
    #[must_use]
    pub fn relay_statistics(&self) -> relay::Statistics {
        self.0.relay.statistics()
    }

    /// What the device's hello says has changed (its prekey stock, for example): send it again if the device is connected here.
    pub fn hello_changed(&self, device_key: DeviceKey) {
        self.0.subscribers.hello_changed(device_key);
    }

    /// Who reads here.
    #[must_use]
    pub fn subscribers(&self) -> &Arc<Subscribers> {
        &self.0.subscribers
    }

    /// Whether this node may push now: it has looked at the control stream within the last second.
    #[must_use]
    pub fn may_push(&self) -> bool {
        self.0.gate.is_open(Moment::now(&self.0.clock))
    }

    /// The device has safely stored everything up to `seq`. Written within `mailbox.ack_flush_interval`.
    pub fn acked(&self, ack: Ack) {
        self.0.acks.add(ack);
    }

    /// A part of the device's mailbox; `None` if it has none (any more).
    ///
    /// # Errors
    /// [`StorageError`] if the store can't be read.
    pub async fn mailbox_range(
        &self,
        device_key: DeviceKey,
        wanted: Wanted,
    ) -> Result<Option<MailboxRange>, StorageError> {
        self.0.mailboxes.range(device_key, wanted).await
    }

    /// A page of the device's mailbox, in either direction; `None` if it has none (any more).
    ///
    /// # Errors
    /// [`StorageError`] if the store can't be read.
    pub async fn mailbox_page(
        &self,
        device_key: DeviceKey,
        page: PageWanted,
    ) -> Result<Option<MailboxRange>, StorageError> {
        self.0.mailboxes.page(device_key, page).await
    }

    /// The log, with its newest part in memory, for a worker that has (or will have) readers of it; `None` if the conversation has none. A
    /// worker that has none in the end says so by [`Subscribers::leave_log`].
    ///
    /// # Errors
    /// [`StorageError`] if the store can't be read.
    pub async fn follow_log(
        &self,
        key: ConversationKey,
        id: ConversationId,
        worker: u16,
    ) -> Result<Option<Arc<Log>>, StorageError> {
        self.0.logs.follow(key, id, worker).await
    }

    /// Compares the log with the store now, and reads what it lacks.
    pub async fn bring_up_to_date(&self, log: &Arc<Log>) {
        self.0.logs.compare(std::slice::from_ref(log)).await;
        self.0.logs.repair(log).await;
    }

    /// What a log has after a `seq`, from the store; about as many bytes as one socket may have waiting.
    ///
    /// # Errors
    /// [`StorageError`] if the store can't be read.
    pub async fn log_range(&self, key: ConversationKey, after_seq: u64) -> Result<Option<LogRange>, StorageError> {
        self.0.logs.range(key, after_seq).await
    }

    /// A page of a log for somebody with this access; `None` if the conversation has no log.
    ///
    /// # Errors
    /// [`StorageError`] if the store can't be read.
    pub async fn log_page(
        &self,
        access: &Access,
        cursor: LogCursor,
        max_items: u32,
        max_bytes: usize,
    ) -> Result<Option<LogRange>, StorageError> {
        self.0.logs.page(access, cursor, max_items, max_bytes).await
    }

    /// How often members were taken away from conversations, as far as this node has heard. Who reads memberships and acts on them later
    /// compares this before and after: had it stayed the same, then whoever was taken away is told after that.
    #[must_use]
    pub fn removals(&self) -> u64 {
        self.0.removals.load(Ordering::SeqCst)
    }

    /// How many replicas failed lately and are left alone for some seconds; the primary answers in their place.
    #[must_use]
    pub fn resting_replicas(&self) -> usize {
        self.0.mailboxes.resting_replicas()
    }

    /// The heads of those of the mailboxes that exist, in one query.
    ///
    /// # Errors
    /// [`StorageError`] if the store can't be read.
    pub async fn mailbox_heads(&self, devices: Vec<DeviceKey>) -> Result<Vec<(DeviceKey, u64)>, StorageError> {
        self.0.mailboxes.heads(devices).await
    }

    /// Ends the background tasks and writes the acks that wait. After the sockets are closed.
    pub async fn stop(&self) {
        self.0.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.0.tasks.lock());
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a background task of the streams failed");
            }
        }
        self.0.relay.stop().await;
        if let Err(error) = self.0.acks.flush(&self.0.db).await {
            tracing::warn!(%error, "the last acks could not be written; their devices will be sent some entries again");
        }
    }
}

impl Inner {
    fn head_check_interval(&self) -> Duration {
        let usual = self.config.socket.head_check_interval;
        if self.relay.is_lost() { usual.min(self.config.relay.lost_head_check_interval) } else { usual }
    }
}
