//! Which devices came or went since somebody last looked. Only who, not what: whoever looks asks the registry how it is now, so that a
//! device that leaves and comes back at once can't be taken for one that left.

use std::collections::HashSet;

use martlet_storage::DeviceKey;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// See the module. Holds a device once, so it is never larger than the number of devices that came or went.
#[derive(Debug, Default)]
pub struct Changes {
    devices: Mutex<HashSet<DeviceKey>>,
    wake: Notify,
}

impl Changes {
    pub(super) fn add(&self, device_key: DeviceKey) {
        self.devices.lock().insert(device_key);
        self.wake.notify_one();
    }

    /// Takes those that came or went.
    #[must_use]
    pub fn take(&self) -> HashSet<DeviceKey> {
        std::mem::take(&mut *self.devices.lock())
    }

    /// Until some came or went since the last [`Self::take`]. One waiter only.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }
}
