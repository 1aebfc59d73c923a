//! Device to subscriber, in shards so that worker threads and the commit thread seldom meet. Holds no buffers and no sockets.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::atomic::{AtomicUsize, Ordering},
};

use martlet_storage::DeviceKey;
use parking_lot::RwLock;

use super::SubscriberId;

/// Enough that two cores seldom want the same one; an empty map costs nothing.
const SHARDS: usize = 64;

pub(super) struct Registry {
    shards: Vec<RwLock<HashMap<DeviceKey, SubscriberId>>>,
    count: AtomicUsize,
}

impl Default for Registry {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect(), count: AtomicUsize::new(0) }
    }
}

impl Registry {
    fn shard(&self, device_key: DeviceKey) -> &RwLock<HashMap<DeviceKey, SubscriberId>> {
        // Keys are handed out one after the other, so that their lowest bits spread evenly.
        let index = device_key.0.unsigned_abs() % SHARDS as u64;
        &self.shards[index as usize]
    }

    /// Puts `id` in place and returns the one that it replaces.
    pub(super) fn insert(&self, device_key: DeviceKey, id: SubscriberId) -> Option<SubscriberId> {
        let older = self.shard(device_key).write().insert(device_key, id);
        if older.is_none() {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        older
    }

    /// Whether it was in place.
    pub(super) fn remove(&self, device_key: DeviceKey, id: SubscriberId) -> bool {
        if let Entry::Occupied(place) = self.shard(device_key).write().entry(device_key)
            && *place.get() == id
        {
            place.remove();
            self.count.fetch_sub(1, Ordering::Relaxed);
            return true;
        }
        false
    }

    pub(super) fn find(&self, device_key: DeviceKey) -> Option<SubscriberId> {
        self.shard(device_key).read().get(&device_key).copied()
    }

    pub(super) fn all(&self) -> Vec<(DeviceKey, SubscriberId)> {
        self.shards
            .iter()
            .flat_map(|shard| shard.read().iter().map(|(key, id)| (*key, *id)).collect::<Vec<_>>())
            .collect()
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}
