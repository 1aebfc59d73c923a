//! What is delivered, and what every node must hear of.
//!
//! [`Streams::publish`] takes committed entries to the [`crate::relay`] and so to the subscribers; `mailboxes` reads what they missed;
//! `acks` writes what they have; `control` follows the control stream, and `gate` keeps a node that could not follow it from pushing.
//! `tasks` are the loops behind all that.
//!
//! It does not know what is in an entry, who sent it, or how a socket works.

mod acks;
mod control;
mod gate;
mod mailboxes;
mod tasks;

use std::{sync::Arc, time::Duration};

use martlet_protocol::wire;
use martlet_storage::{
    Db, DeviceKey, StorageError,
    mailbox::{Ack, MailboxState},
};
use parking_lot::{Mutex, RwLock};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

pub use crate::subscribers::{LiveEntry, LiveItem, Whisper};
use crate::{
    clock::Clock,
    config::Config,
    relay::{self, Relay},
    subscribers::Subscribers,
    vital,
};
use acks::Acks;
use gate::{Gate, Moment};
use mailboxes::Mailboxes;
pub use mailboxes::{MailboxRange, PageFrom, PageWanted, Wanted};

/// One entry for one device, as the commit thread hands it over.
#[derive(Debug, Clone)]
pub struct Published {
    /// Whose mailbox.
    pub device_key: DeviceKey,
    /// The entry.
    pub entry: Arc<LiveEntry>,
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
        tasks.push(vital::spawn("the sweeper", tasks::sweep(self.0.clone(), stop)));
        self.0.relay.start();
        Ok(())
    }

    /// Hands over what was committed, in commit order; `committed_in` is [`Self::epoch`] from before the commit. Never blocks; what can't be
    /// handed over is read from the store later.
    pub fn publish(&self, entries: Vec<Published>, committed_in: u64) {
        let epoch = self.0.subscribers.epoch();
        if committed_in != epoch || self.0.db.newest_epoch() > epoch {
            // The store was found to be another one meanwhile. Nobody must get these by the old numbers: this node's sockets are about to
            // be closed, and other nodes, which may have noticed already, are told to look for themselves.
            return self.0.relay.left_out(entries.len());
        }
        self.0.relay.publish(entries.into_iter().map(|published| published.entry));
    }

    /// Something may have been committed to these mailboxes without word of it, by a try whose outcome was not known: their devices are to
    /// compare heads, here and on other nodes.
    pub fn in_doubt(&self, devices: Vec<DeviceKey>) {
        self.0.relay.left_out(devices.len());
        self.0.subscribers.compare_heads(devices);
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
        let usual = self.0.config.socket.head_check_interval;
        if self.0.relay.is_lost() { usual.min(self.0.config.relay.lost_head_check_interval) } else { usual }
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

    /// Where the device's mailbox stands; `None` if it has none (any more).
    ///
    /// # Errors
    /// [`StorageError`] if the store can't be read.
    pub async fn mailbox_state(&self, device_key: DeviceKey) -> Result<Option<MailboxState>, StorageError> {
        self.0.mailboxes.state(device_key).await
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
