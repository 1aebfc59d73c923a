//! Which streams began or ceased to be read here since somebody last looked. Only who, not what: whoever looks asks the registry how it is now, so that a
//! device that leaves and comes back at once can't be taken for one that left.

use std::collections::HashSet;

use martlet_storage::{ConversationKey, DeviceKey};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A stream that nodes tell each other of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamKey {
    /// Of one device.
    Mailbox(DeviceKey),
    /// Of a large conversation.
    Log(ConversationKey),
}

/// See the module. Holds a stream once, so it is never larger than the number of streams.
#[derive(Debug, Default)]
pub struct Changes {
    streams: Mutex<HashSet<StreamKey>>,
    wake: Notify,
}

impl Changes {
    pub(super) fn add(&self, key: StreamKey) {
        self.streams.lock().insert(key);
        self.wake.notify_one();
    }

    /// Takes those that may have begun or ceased to be read.
    #[must_use]
    pub fn take(&self) -> HashSet<StreamKey> {
        std::mem::take(&mut *self.streams.lock())
    }

    /// Until there are some since the last [`Self::take`]. One waiter only.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }
}
