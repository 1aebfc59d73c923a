//! Following the control stream: what was revoked or changed anywhere is known here within 250 ms, at once if this node did it.
//!
//! Every entry goes to the callbacks (caches that must forget something) and to the subscribers (sockets that must close, hellos that
//! must be sent again), and only then counts as looked at.

use std::sync::atomic::Ordering;

use martlet_protocol::{
    id::{AccountId, ConversationId, DeviceId},
    problem::close,
    wire::{self, control_entry::Event},
};
use martlet_storage::{
    Conn, ConversationKey, DeviceKey, StorageError, accounts,
    control::{self, Position},
    devices, logs,
    planted::{self, Bug},
    tokens,
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
            if let Some((last, _)) = entries.last() {
                seq = seq.max(*last);
            }
            self.act_on(entries.into_iter().map(|(_, entry)| entry).collect()).await?;
            if seq >= head {
                self.gate.checked(since);
                return Ok(Position { epoch, seq });
            }
        }
    }

    /// Tells the caches, then the sockets: those of the devices concerned that read here, found in one read of the store.
    async fn act_on(&self, entries: Vec<wire::ControlEntry>) -> Result<(), StorageError> {
        for entry in &entries {
            for callback in self.callbacks.read().iter() {
                callback(entry);
            }
        }
        let removes = |entry: &wire::ControlEntry| match &entry.event {
            Some(Event::MembershipChanged(changed)) => !changed.removed_account_ids.is_empty(),
            _ => false,
        };
        if entries.iter().any(removes) {
            // Counted before anybody is told: see `Streams::removals`.
            self.removals.fetch_add(1, Ordering::SeqCst);
        }
        if self.subscribers.count() == 0 {
            // A socket that comes now begins with a look at the store.
            return Ok(());
        }
        let now_ms = self.clock.now_ms();
        let words = self.db.read(move |conn| words(conn, &entries, now_ms)).await?;
        for (device_key, word) in words {
            match word {
                Word::Close(code) => self.subscribers.close(device_key, code),
                Word::HelloAgain => self.subscribers.hello_changed(device_key),
                Word::LogEnded(key) => self.subscribers.end_log(device_key, key),
            }
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
}

/// What a device's socket is told.
enum Word {
    Close(u16),
    HelloAgain,
    LogEnded(ConversationKey),
}

/// Whose sockets are told what because of these entries, in their order.
fn words(conn: &mut Conn, entries: &[wire::ControlEntry], now_ms: u64) -> Result<Vec<(DeviceKey, Word)>, StorageError> {
    let mut words = Vec::new();
    for entry in entries {
        match &entry.event {
            Some(Event::DeviceEnded(_)) if planted::is(Bug::OpenAfterRevocation) => {}
            Some(Event::DeviceEnded(ended)) => {
                let device = device(conn, &ended.device_id)?;
                words.extend(device.map(|device_key| (device_key, Word::Close(close::DEVICE_ENDED))));
            }
            Some(Event::SignedOut(signed_out)) => {
                let Some(device_key) = device(conn, &signed_out.device_id)? else { continue };
                // One that has signed in again comes back with its new token; whoever opened the socket with an old one can't.
                let may_return = tokens::has_one(conn, device_key, now_ms)?;
                let code = if may_return { close::GOING_AWAY } else { close::DEVICE_ENDED };
                words.push((device_key, Word::Close(code)));
            }
            Some(Event::AccountListChanged(changed)) => {
                let Ok(account_id) = AccountId::try_from(changed.account_id.as_ref()) else { continue };
                let Some(account) = accounts::by_id(conn, &account_id)? else { continue };
                let devices = devices::by_account(conn, account.account_key)?;
                words.extend(devices.into_iter().map(|device| (device.device_key, Word::HelloAgain)));
            }
            Some(Event::MembershipChanged(changed)) => {
                let Ok(id) = ConversationId::try_from(changed.conversation_id.as_ref()) else { continue };
                for account_id in &changed.removed_account_ids {
                    let Ok(account_id) = AccountId::try_from(account_id.as_ref()) else { continue };
                    let Some(log) = logs::left_behind(conn, &id, &account_id)? else { continue };
                    let devices = devices::by_account(conn, log.account_key)?;
                    let ended = devices.into_iter().map(|device| (device.device_key, Word::LogEnded(log.key)));
                    words.extend(ended);
                }
            }
            // A socket outlives the token it began with: tokens are rotated under it.
            Some(Event::TokenEnded(_)) | None => {}
        }
    }
    Ok(words)
}

fn device(conn: &mut Conn, device_id: &[u8]) -> Result<Option<DeviceKey>, StorageError> {
    let Ok(device_id) = DeviceId::try_from(device_id) else { return Ok(None) };
    Ok(devices::by_id(conn, &device_id)?.map(|device| device.device_key))
}
