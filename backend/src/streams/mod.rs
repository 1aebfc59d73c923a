//! What is delivered, and what every node must hear of.

use std::sync::Arc;

use martlet_protocol::wire;
use martlet_storage::{Db, DeviceKey};

pub use crate::subscribers::{LiveEntry, LiveItem};
use crate::{clock::Clock, config::Config};

/// One entry for one device, as the commit thread hands it over.
#[derive(Debug, Clone)]
pub struct Published {
    /// Whose mailbox.
    pub device_key: DeviceKey,
    /// The entry.
    pub entry: Arc<LiveEntry>,
}

/// Hears every control entry, in order, on a task of the node. Must not block.
pub type ControlCallback = Box<dyn Fn(&wire::ControlEntry) + Send + Sync>;

/// The streams of this node. Cheap to clone.
#[derive(Clone)]
pub struct Streams(Arc<Inner>);

struct Inner {
    db: Db,
    config: Arc<Config>,
    clock: Clock,
}

impl Streams {
    /// Starts nothing yet: see [`Self::start`].
    #[must_use]
    pub fn new(db: Db, config: Arc<Config>, clock: Clock) -> Self {
        Self(Arc::new(Inner { db, config, clock }))
    }

    /// Starts the background tasks on the current tokio runtime, after all callbacks are registered.
    pub fn start(&self) {}

    /// Hands over what was committed, in commit order. Never blocks; what can't be handed over is read from the store later.
    pub fn publish(&self, _entries: Vec<Published>) {}

    /// Registers a callback for control entries. Only before [`Self::start`].
    pub fn on_control(&self, _callback: ControlCallback) {}

    /// Something was just appended to the control stream by this node: look at once instead of within 250 ms.
    pub fn control_changed(&self) {}

    /// What the device's hello says has changed (its prekey stock, for example): send it again if the device is connected here.
    pub fn hello_changed(&self, _device: DeviceKey) {}

    /// Flushes acks and ends the background tasks.
    pub async fn stop(&self) {}
}
