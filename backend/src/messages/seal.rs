//! Seal: each entry is closed to its device before it is stored or relayed (docs/PROTOCOL.md, "The sealed mailbox").
//!
//! Costs per send: one lock for randomness, and per entry one cache look-up, one AEAD call, one allocation. A device that is new to the
//! cache costs an HPKE set-up (about 0.1 ms); many of those leave the worker thread.

use std::sync::Arc;

use bytes::Bytes;
use martlet_protocol::{
    id::{ConversationId, EntryId, Hash, MessageId},
    seal::{MailboxSealer, SealError},
    wire,
};
use martlet_storage::{
    DeviceKey,
    db::sends::{EntryBody, PreparedEntry, PreparedLog, PreparedSend},
};
use parking_lot::Mutex;
use prost::Message as _;
use quick_cache::sync::Cache;
use rand::{SeedableRng as _, rngs::StdRng};

use super::{
    Forked, SendError,
    answer::RequestKey,
    directory::LogView,
    fork::{Gets, Recipient},
    request::Request,
};
use crate::{accounts::DeviceIdentity, config, streams::Whisper};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// HPKE set-ups that a worker thread does itself: about 1.6 ms.
const COLD_ON_WORKER: usize = 16;

/// A send that only needs committing.
pub struct Prepared {
    pub send: PreparedSend,
    pub key: RequestKey,
    pub sender: DeviceIdentity,
    /// What the sender hears, without `partial`.
    pub accepted: wire::Accepted,
    /// Kept for explaining a mismatch that the commit finds.
    pub request: Request,
    /// The device of each entry, for naming partial ones.
    pub recipients: Vec<Recipient>,
}

/// Seals entries. Cheap to clone.
#[derive(Clone)]
pub struct Sealer(Arc<Inner>);

struct Inner {
    inline_content_bytes: usize,
    retention_s: u64,
    log_retention_s: u64,
    ephemeral_lifetime_s: u64,
    rng: Mutex<StdRng>,
    sealers: Cache<DeviceKey, Arc<DaySealer>>,
}

/// A device's sealer is made anew each day.
struct DaySealer {
    day: u64,
    sealer: MailboxSealer,
}

impl Sealer {
    pub fn new(config: &config::Config, rng: StdRng) -> Self {
        Self(Arc::new(Inner {
            inline_content_bytes: config.messages.inline_content_bytes,
            retention_s: config.mailbox.retention.as_secs(),
            log_retention_s: config.logs.retention.as_secs(),
            ephemeral_lifetime_s: config.messages.ephemeral_lifetime.as_secs(),
            rng: Mutex::new(rng),
            sealers: Cache::new(config.messages.seal_cache_devices),
        }))
    }

    /// Draws ids and seals one entry per recipient.
    ///
    /// # Errors
    /// `Malformed` if a device's mailbox key can't be sealed to, `ShuttingDown` if the runtime went away.
    pub async fn seal(&self, sender: DeviceIdentity, forked: Forked, key: RequestKey) -> Result<Prepared, SendError> {
        let Forked { request, audience, recipients, now_ms } = forked;
        let conversation_key = audience.conversation.key;
        let membership_m = audience.conversation.m;
        let inner = self.0.clone();
        let cold = inner.cold(&recipients, now_ms);
        run(cold, move || {
            let (accepted, entries) = inner.seal_all(&sender, &request, &recipients, now_ms)?;
            let outside = request.content.len() > inner.inline_content_bytes;
            let lifetime_s = request.lifetime_s.unwrap_or(inner.retention_s);
            let send = PreparedSend {
                request_key: key.row,
                request_mac: key.mac,
                conversation_key,
                membership_m,
                entries,
                content: outside.then(|| request.content.clone()),
                expires_at_s: now_ms / 1000 + lifetime_s,
                own_lifetime: request.lifetime_s.is_some(),
                log: None,
            };
            Ok(Prepared { send, key, sender, accepted, request, recipients })
        })
        .await
    }

    /// Draws an id for a message to a log. Nothing is sealed: what members read is the one ciphertext, and no row says who sent it.
    pub fn append(
        &self,
        sender: DeviceIdentity,
        request: Request,
        log: LogView,
        key: RequestKey,
        now_ms: u64,
    ) -> Prepared {
        let (message_id, _) = self.0.draw_ids(0);
        let lifetime_s = request.lifetime_s.unwrap_or(self.0.log_retention_s);
        let send = PreparedSend {
            request_key: key.row,
            request_mac: key.mac,
            conversation_key: log.key,
            membership_m: log.m,
            entries: Vec::new(),
            content: Some(request.content.clone()),
            expires_at_s: now_ms / 1000 + lifetime_s,
            own_lifetime: request.lifetime_s.is_some(),
            log: Some(PreparedLog {
                message_id,
                accepted_at_ms: now_ms,
                suite: request.suite,
                group_epoch: request.group_epoch,
            }),
        };
        let accepted =
            wire::Accepted { message_id: message_id.to_wire(), accepted_at_ms: now_ms, ..wire::Accepted::default() };
        Prepared { send, key, sender, accepted, request, recipients: Vec::new() }
    }

    /// Seals an ephemeral message to every device that the sender made a fork for. There is no echo: acceptance proves nothing here.
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub async fn seal_ephemeral(
        &self,
        sender: DeviceIdentity,
        forked: Forked,
    ) -> Result<(wire::AcceptedEphemeral, Vec<Whisper>), SendError> {
        let Forked { request, mut recipients, now_ms, .. } = forked;
        recipients.retain(|recipient| matches!(recipient.gets, Gets::Fork(_)));
        let inner = self.0.clone();
        let cold = inner.cold(&recipients, now_ms);
        run(cold, move || {
            let expires_at_ms = now_ms + request.lifetime_s.unwrap_or(inner.ephemeral_lifetime_s) * 1000;
            let outside = request.content.len() > inner.inline_content_bytes;
            let content = if outside { request.content.clone() } else { Bytes::new() };
            let (_, entries) = inner.seal_all(&sender, &request, &recipients, now_ms)?;
            let whispers = entries.into_iter().filter_map(|entry| whisper(entry, &content, expires_at_ms)).collect();
            Ok((wire::AcceptedEphemeral { expires_at_ms }, whispers))
        })
        .await
    }
}

/// Does the work here, or elsewhere if many recipients are new to the cache.
async fn run<T: Send + 'static>(
    cold: usize,
    work: impl FnOnce() -> Result<T, SealError> + Send + 'static,
) -> Result<T, SendError> {
    let sealed = if cold > COLD_ON_WORKER {
        tokio::task::spawn_blocking(work).await.map_err(|_| SendError::ShuttingDown)?
    } else {
        work()
    };
    sealed.map_err(|_| SendError::Malformed("a recipient's mailbox key can't be sealed to"))
}

/// `None` for what is no sealed entry, of which an ephemeral message has none.
fn whisper(entry: PreparedEntry, content: &Bytes, expires_at_ms: u64) -> Option<Whisper> {
    let EntryBody::Sealed(sealed) = entry.body else { return None };
    let entry_id = entry.entry_id.to_wire();
    let ephemeral = wire::Ephemeral { entry_id, sealed, content: content.clone(), expires_at_ms };
    Some(Whisper { device_key: entry.device, expires_at_ms, payload: ephemeral.encode_to_vec().into() })
}

impl Inner {
    fn seal_all(
        &self,
        sender: &DeviceIdentity,
        request: &Request,
        recipients: &[Recipient],
        now_ms: u64,
    ) -> Result<(wire::Accepted, Vec<PreparedEntry>), SealError> {
        let (message_id, entry_ids) = self.draw_ids(recipients.len());
        let mut message = self.message(sender, request, message_id, now_ms);
        // The echo must not be told from the others by its length.
        let echo = Bytes::from(vec![0; request.forks.values().map(Bytes::len).max().unwrap_or(1)]);
        let mut entries = Vec::with_capacity(recipients.len());
        for (recipient, entry_id) in recipients.iter().zip(entry_ids) {
            let body = match &recipient.gets {
                Gets::Dormant => EntryBody::Dormant,
                Gets::Fork(header) => {
                    EntryBody::Sealed(self.seal_one(recipient, &entry_id, header, &mut message, now_ms)?)
                }
                Gets::Echo => EntryBody::Sealed(self.seal_one(recipient, &entry_id, &echo, &mut message, now_ms)?),
            };
            entries.push(PreparedEntry { device: recipient.device_key, list_n: recipient.list_n, entry_id, body });
        }
        let accepted =
            wire::Accepted { message_id: message.message_id, accepted_at_ms: now_ms, ..wire::Accepted::default() };
        Ok((accepted, entries))
    }

    fn seal_one(
        &self,
        recipient: &Recipient,
        entry_id: &EntryId,
        header: &Bytes,
        message: &mut wire::SealedMessage,
        now_ms: u64,
    ) -> Result<Bytes, SealError> {
        message.fork_header = header.clone();
        let sealer = self.sealer(recipient, now_ms / DAY_MS)?;
        Ok(sealer.sealer.seal(&recipient.device_id, entry_id, message))
    }

    /// What all entries of a message share.
    fn message(
        &self,
        sender: &DeviceIdentity,
        request: &Request,
        message_id: MessageId,
        accepted_at_ms: u64,
    ) -> wire::SealedMessage {
        let conversation_id: ConversationId = request.conversation_id;
        let outside = request.content.len() > self.inline_content_bytes;
        let (content, content_sha256) = if outside {
            (Bytes::new(), Hash::of(&request.content).to_wire())
        } else {
            (request.content.clone(), Bytes::new())
        };
        wire::SealedMessage {
            message_id: message_id.to_wire(),
            sender_account_id: sender.account_id.to_wire(),
            sender_device_id: sender.device_id.to_wire(),
            conversation_id: conversation_id.to_wire(),
            client_message_id: request.client_message_id.to_wire(),
            accepted_at_ms,
            suite: request.suite,
            fork_header: Bytes::new(),
            content,
            content_sha256,
        }
    }

    fn draw_ids(&self, entries: usize) -> (MessageId, Vec<EntryId>) {
        let mut rng = self.rng.lock();
        let message_id = MessageId::random(&mut *rng);
        (message_id, (0..entries).map(|_| EntryId::random(&mut *rng)).collect())
    }

    /// Recipients that need a set-up first.
    fn cold(&self, recipients: &[Recipient], now_ms: u64) -> usize {
        let day = now_ms / DAY_MS;
        recipients.iter().filter(|recipient| self.cached(recipient.device_key, day).is_none()).count()
    }

    fn cached(&self, device: DeviceKey, day: u64) -> Option<Arc<DaySealer>> {
        self.sealers.get(&device).filter(|cached| cached.day == day)
    }

    fn sealer(&self, recipient: &Recipient, day: u64) -> Result<Arc<DaySealer>, SealError> {
        if let Some(cached) = self.cached(recipient.device_key, day) {
            return Ok(cached);
        }
        // Two threads may both make one; both are good, and each counts for itself.
        let mut rng = StdRng::from_rng(&mut *self.rng.lock());
        let sealer = MailboxSealer::new(&mut rng, &recipient.mailbox_key)?;
        let made = Arc::new(DaySealer { day, sealer });
        self.sealers.insert(recipient.device_key, made.clone());
        Ok(made)
    }
}
