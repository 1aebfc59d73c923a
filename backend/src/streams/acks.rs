//! Acks on their way to the store: cumulative, so that one per device is enough, and written many in one transaction. An ack that is
//! lost with the process costs a repeat that the device drops; it never costs a message.

use std::collections::HashMap;

use martlet_storage::{
    Db, DeviceKey, StorageError,
    mailbox::{self, Ack},
};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// So many devices with a waiting ack are written without waiting for the interval.
const FLUSH_AT_DEVICES: usize = 4096;
/// Devices whose acks share a transaction. An ack takes some 20 µs on SQLite, whose one writer the commits wait for: they get their turn
/// between two of these.
const DEVICES_PER_WRITE: usize = 256;

/// The newest unwritten ack of each device.
#[derive(Default)]
pub(super) struct Acks {
    waiting: Mutex<HashMap<DeviceKey, Ack>>,
    /// Woken when there is enough to write at once.
    pub(super) enough: Notify,
}

impl Acks {
    pub(super) fn add(&self, ack: Ack) {
        let count = {
            let mut waiting = self.waiting.lock();
            raise(&mut waiting, ack);
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
        let mut acks: Vec<Ack> = taken.into_values().collect();
        acks.sort_unstable_by_key(|ack| ack.device_key);
        for (at, part) in acks.chunks(DEVICES_PER_WRITE).enumerate() {
            let written = part.to_vec();
            if let Err(error) = db.write(move |conn| mailbox::apply_acks(conn, &written)).await {
                let mut waiting = self.waiting.lock();
                for ack in &acks[at * DEVICES_PER_WRITE..] {
                    raise(&mut waiting, *ack);
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

/// A newer epoch outweighs any number of an older one.
fn raise(waiting: &mut HashMap<DeviceKey, Ack>, ack: Ack) {
    let place = waiting.entry(ack.device_key).or_insert(ack);
    if (place.epoch, place.seq) < (ack.epoch, ack.seq) {
        *place = ack;
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use martlet_storage::DbConfig;

    use super::*;

    #[test]
    fn only_the_highest_ack_of_a_device_waits() {
        let acks = Acks::default();
        let ack = |device, epoch, seq| Ack { device_key: DeviceKey(device), epoch, seq };
        for seq in [3, 7, 5] {
            acks.add(ack(1, 1, seq));
        }
        acks.add(ack(2, 1, 1));
        acks.add(ack(3, 2, 1));
        acks.add(ack(3, 1, 9));
        let waiting = acks.waiting.lock();
        assert_eq!((waiting.len(), waiting[&DeviceKey(1)].seq), (3, 7));
        assert_eq!(waiting[&DeviceKey(3)], ack(3, 2, 1), "a number of an older epoch is of other entries");
    }

    #[tokio::test]
    async fn acks_that_could_not_be_written_wait() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = DbConfig::new(folder.path().join("martlet.db"));
        config.wait = Duration::from_millis(20);
        let (db, other) = (Db::open(&config).expect("opens"), Db::open(&config).expect("opens"));
        let acks = Acks::default();
        // More than one transaction takes.
        let all = 3 * DEVICES_PER_WRITE / 2;
        (0_i64..).take(all).for_each(|device| acks.add(Ack { device_key: DeviceKey(device), epoch: 1, seq: 7 }));
        let (locked, is_locked) = mpsc::sync_channel(1);
        let (release, released) = mpsc::sync_channel::<()>(1);
        let held = thread::spawn(move || {
            other.write_blocking(|_| {
                locked.send(()).expect("heard");
                released.recv().expect("released");
                Ok::<_, StorageError>(())
            })
        });
        is_locked.recv().expect("locked");
        assert!(matches!(acks.flush(&db).await, Err(StorageError::Busy)));
        assert_eq!(acks.waiting.lock().len(), all);
        assert_eq!(acks.waiting.lock()[&DeviceKey(1)].seq, 7);
        release.send(()).expect("held");
        held.join().expect("joined").expect("written");
        acks.flush(&db).await.expect("written");
        assert!(acks.waiting.lock().is_empty());
    }
}
