//! Acks on their way to the store: cumulative, so that one per device is enough, and written many in one transaction. An ack that is
//! lost with the process costs a repeat that the device drops; it never costs a message.

use std::collections::HashMap;

use martlet_storage::{Db, DeviceKey, StorageError, mailbox};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// So many devices with a waiting ack are written without waiting for the interval.
const FLUSH_AT_DEVICES: usize = 4096;

/// The newest unwritten ack of each device.
#[derive(Default)]
pub(super) struct Acks {
    waiting: Mutex<HashMap<DeviceKey, u64>>,
    /// Woken when there is enough to write at once.
    pub(super) enough: Notify,
}

impl Acks {
    pub(super) fn add(&self, device_key: DeviceKey, seq: u64) {
        let count = {
            let mut waiting = self.waiting.lock();
            raise(&mut waiting, device_key, seq);
            waiting.len()
        };
        if count >= FLUSH_AT_DEVICES {
            self.enough.notify_one();
        }
    }

    /// Writes what waits. What could not be written waits for the next time.
    pub(super) async fn flush(&self, db: &Db) -> Result<(), StorageError> {
        let taken = std::mem::take(&mut *self.waiting.lock());
        if taken.is_empty() {
            return Ok(());
        }
        let mut acks: Vec<(DeviceKey, u64)> = taken.into_iter().collect();
        acks.sort_unstable_by_key(|(device_key, _)| *device_key);
        let written = acks.clone();
        let result = db.write(move |conn| mailbox::apply_acks(conn, &written)).await;
        if let Err(error) = result {
            let mut waiting = self.waiting.lock();
            for (device_key, seq) in acks {
                raise(&mut waiting, device_key, seq);
            }
            return Err(error);
        }
        Ok(())
    }
}

fn raise(waiting: &mut HashMap<DeviceKey, u64>, device_key: DeviceKey, seq: u64) {
    let place = waiting.entry(device_key).or_insert(seq);
    *place = seq.max(*place);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_highest_ack_of_a_device_waits() {
        let acks = Acks::default();
        for seq in [3, 7, 5] {
            acks.add(DeviceKey(1), seq);
        }
        acks.add(DeviceKey(2), 1);
        let waiting = acks.waiting.lock();
        assert_eq!((waiting.len(), waiting[&DeviceKey(1)]), (2, 7));
    }
}
