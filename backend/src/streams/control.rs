//! Following the control stream: what was revoked or changed anywhere is known here within 250 ms, at once if this node did it.
//!
//! Every entry goes to the callbacks (caches that must forget something) and to the subscribers (sockets that must close, hellos that
//! must be sent again), and only then counts as looked at.

use martlet_protocol::{
    id::{AccountId, DeviceId},
    problem::close,
    wire::{self, control_entry::Event},
};
use martlet_storage::{
    DeviceKey, StorageError, accounts,
    control::{self, Position},
    devices,
    planted::{self, Bug},
};

use super::{Inner, gate::Moment};

/// Entries read at once.
const BATCH: u32 = 500;

impl Inner {
    /// Where the follower begins: what was before can't be in any cache of a process that only starts.
    pub(super) async fn control_position(&self) -> Result<Position, StorageError> {
        let since = Moment::now(&self.clock);
        let position = self.db.read(control::position).await?;
        self.gate.checked(since);
        Ok(position)
    }

    /// Acts on everything after the position and returns the new one.
    pub(super) async fn follow_control(&self, Position { epoch, mut seq }: Position) -> Result<Position, StorageError> {
        loop {
            let since = Moment::now(&self.clock);
            let (entries, now) = self
                .db
                .read(move |conn| Ok::<_, StorageError>((control::after(conn, seq, BATCH)?, control::position(conn)?)))
                .await?;
            let head = now.seq;
            let swept = match entries.first() {
                Some((first, _)) => *first != seq + 1,
                // Less than what was read already: a copy from before.
                None => head != seq,
            };
            if now.epoch != epoch {
                // Numbers of the streams begin anew, for devices too; and what was revoked may be valid again.
                self.forget_all("the store is another one than before");
                self.subscribers.set_epoch(now.epoch);
                self.gate.checked(since);
                return Ok(now);
            }
            if swept {
                self.forget_all("the control stream does not go on from where this node was");
                seq = head;
            }
            for (at, entry) in entries {
                self.act_on(&entry).await?;
                seq = seq.max(at);
            }
            if seq >= head {
                self.gate.checked(since);
                return Ok(Position { epoch, seq });
            }
        }
    }

    async fn act_on(&self, entry: &wire::ControlEntry) -> Result<(), StorageError> {
        for callback in self.callbacks.read().iter() {
            callback(entry);
        }
        match &entry.event {
            Some(Event::DeviceEnded(_)) if planted::is(Bug::OpenAfterRevocation) => {}
            Some(Event::DeviceEnded(ended)) => {
                if let Some(device_key) = self.device_key(&ended.device_id).await? {
                    self.subscribers.close(device_key, close::DEVICE_ENDED);
                }
            }
            Some(Event::AccountListChanged(changed)) => {
                for device_key in self.device_keys(&changed.account_id).await? {
                    self.subscribers.hello_changed(device_key);
                }
            }
            // A socket outlives the token it began with: tokens are rotated under it.
            Some(Event::TokenEnded(_) | Event::MembershipChanged(_)) | None => {}
        }
        Ok(())
    }

    /// This process slept for longer than control entries are kept, or the store is no longer what it was: nothing that it remembers can
    /// be trusted, no socket either.
    fn forget_all(&self, why: &'static str) {
        tracing::warn!(why, "all caches are emptied, all sockets closed");
        for callback in self.lost_callbacks.read().iter() {
            callback();
        }
        self.subscribers.close_all(close::GOING_AWAY);
    }

    async fn device_key(&self, device_id: &[u8]) -> Result<Option<DeviceKey>, StorageError> {
        let Ok(device_id) = DeviceId::try_from(device_id) else { return Ok(None) };
        let device = self.db.read(move |conn| devices::by_id(conn, &device_id)).await?;
        Ok(device.map(|device| device.device_key))
    }

    async fn device_keys(&self, account_id: &[u8]) -> Result<Vec<DeviceKey>, StorageError> {
        let Ok(account_id) = AccountId::try_from(account_id) else { return Ok(Vec::new()) };
        self.db
            .read(move |conn| {
                let Some(account) = accounts::by_id(conn, &account_id)? else { return Ok(Vec::new()) };
                let devices = devices::by_account(conn, account.account_key)?;
                Ok(devices.into_iter().map(|device| device.device_key).collect())
            })
            .await
    }
}
