//! The private halves of a device's prekeys: making, replacing, using up, forgetting.

use std::collections::BTreeMap;

use martlet_protocol::{
    crypto::{DhSecret, SUITE_1, UnsignedPrekey, sign_prekey},
    rest::{ListHead, PrekeyKind, PrekeyUpload, SignedPrekey},
};
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use super::DeviceKeys;
use crate::{ambient::DAY_MS, secret::Secret};

/// A prekey may be sealed to for this long after its making.
pub const PREKEY_LIFE_DAYS: u64 = 60;
/// Its private half is kept this long after its replacement (or, one-time, after its life): longer than a mailbox keeps an entry.
pub const SIGNED_PREKEY_GRACE_DAYS: u64 = 32;

/// One prekey of this device.
#[derive(Clone, Serialize, Deserialize)]
pub struct Prekey {
    /// The private half.
    pub secret: Secret,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    /// Unix milliseconds.
    pub not_after_ms: u64,
    /// Unix milliseconds at which a newer signed prekey took its place on the server.
    pub replaced_at_ms: Option<u64>,
    /// The public half as it was signed, until the server has it: it is uploaded unchanged, however often.
    pub pending: Option<SignedPrekey>,
}

/// All prekeys of this device by kind and id.
#[derive(Default)]
pub struct PrekeyRing {
    keys: BTreeMap<(u8, u32), Prekey>,
    last_id: u32,
}

impl PrekeyRing {
    /// Puts back what the store had. `last_id` is the highest id ever given out: ids are never used again.
    #[must_use]
    pub fn restore(keys: impl IntoIterator<Item = ((PrekeyKind, u32), Prekey)>, last_id: u32) -> Self {
        let keys: BTreeMap<_, _> = keys.into_iter().map(|((kind, id), key)| ((rank(kind), id), key)).collect();
        let highest = keys.keys().map(|(_, id)| *id).max().unwrap_or(0);
        Self { keys, last_id: last_id.max(highest) }
    }

    /// The highest id ever given out.
    #[must_use]
    pub fn last_id(&self) -> u32 {
        self.last_id
    }

    /// Makes and signs prekeys of a kind; they are pending until [`Self::uploaded`].
    pub fn make(
        &mut self,
        kind: PrekeyKind,
        count: usize,
        keys: &DeviceKeys,
        head: &ListHead,
        now_ms: u64,
        rng: &mut StdRng,
    ) -> Vec<SignedPrekey> {
        (0..count)
            .map(|_| {
                self.last_id += 1;
                let secret = DhSecret::generate(rng);
                let not_after_ms = now_ms + PREKEY_LIFE_DAYS * DAY_MS;
                let unsigned = UnsignedPrekey {
                    suite: SUITE_1,
                    kind,
                    key_id: self.last_id,
                    public_key: secret.public(),
                    not_after_ms,
                };
                let signed = sign_prekey(&unsigned, &keys.device_id, head, &keys.signing);
                let prekey = Prekey {
                    secret: Secret::new(*secret.to_bytes()),
                    created_at_ms: now_ms,
                    not_after_ms,
                    replaced_at_ms: None,
                    pending: Some(signed.clone()),
                };
                self.keys.insert((rank(kind), self.last_id), prekey);
                signed
            })
            .collect()
    }

    /// What a device registers with: one signed prekey and `one_time` others.
    pub fn first_upload(
        &mut self,
        keys: &DeviceKeys,
        head: &ListHead,
        one_time: usize,
        now_ms: u64,
        rng: &mut StdRng,
    ) -> PrekeyUpload {
        PrekeyUpload {
            signed_prekey: self.make(PrekeyKind::Signed, 1, keys, head, now_ms, rng).pop(),
            one_time_prekeys: self.make(PrekeyKind::OneTime, one_time, keys, head, now_ms, rng),
        }
    }

    /// What the server does not have yet, as it was signed; of signed prekeys the newest only, since one replaces another.
    #[must_use]
    pub fn pending(&self) -> PrekeyUpload {
        let of = |kind| {
            let range = (rank(kind), 0)..=(rank(kind), u32::MAX);
            self.keys.range(range).filter_map(|(_, key)| key.pending.clone())
        };
        PrekeyUpload {
            signed_prekey: of(PrekeyKind::Signed).next_back(),
            one_time_prekeys: of(PrekeyKind::OneTime).collect(),
        }
    }

    /// The server has these now. Returns the prekeys that changed, to be stored.
    pub fn uploaded(&mut self, upload: &PrekeyUpload, now_ms: u64) -> Vec<(PrekeyKind, u32)> {
        let mut changed = Vec::new();
        for key in upload.signed_prekey.iter().chain(&upload.one_time_prekeys) {
            if let Some(own) = self.keys.get_mut(&(rank(key.kind), key.key_id)) {
                own.pending = None;
                changed.push((key.kind, key.key_id));
            }
        }
        if let Some(newest) = &upload.signed_prekey {
            let older = (rank(PrekeyKind::Signed), 0)..(rank(PrekeyKind::Signed), newest.key_id);
            for ((_, key_id), key) in self.keys.range_mut(older).filter(|(_, key)| key.replaced_at_ms.is_none()) {
                key.replaced_at_ms = Some(now_ms);
                key.pending = None;
                changed.push((PrekeyKind::Signed, *key_id));
            }
        }
        changed
    }

    /// The server refused to take these (its pool is full): they will never be given out.
    pub fn discard_pending_one_time(&mut self) -> Vec<(PrekeyKind, u32)> {
        let pending: Vec<_> = self.pending().one_time_prekeys.iter().map(|key| (key.kind, key.key_id)).collect();
        for (kind, key_id) in &pending {
            self.keys.remove(&(rank(*kind), *key_id));
        }
        pending
    }

    /// When the newest signed prekey was made; none: there is none.
    #[must_use]
    pub fn newest_signed_at_ms(&self) -> Option<u64> {
        let signed = (rank(PrekeyKind::Signed), 0)..=(rank(PrekeyKind::Signed), u32::MAX);
        self.keys.range(signed).next_back().map(|(_, key)| key.created_at_ms)
    }

    /// One prekey.
    #[must_use]
    pub fn get(&self, kind: PrekeyKind, key_id: u32) -> Option<&Prekey> {
        self.keys.get(&(rank(kind), key_id))
    }

    /// The private half of one.
    #[must_use]
    pub fn secret(&self, kind: PrekeyKind, key_id: u32) -> Option<DhSecret> {
        self.get(kind, key_id).map(|key| DhSecret::from_bytes(key.secret.expose()))
    }

    /// Whether an id was given out, even if its key is gone.
    #[must_use]
    pub fn was_given_out(&self, key_id: u32) -> bool {
        (1..=self.last_id).contains(&key_id)
    }

    /// Forgets one.
    pub fn remove(&mut self, kind: PrekeyKind, key_id: u32) {
        self.keys.remove(&(rank(kind), key_id));
    }

    /// Forgets what no message can need any more; returns what was forgotten.
    pub fn forget_old(&mut self, now_ms: u64) -> Vec<(PrekeyKind, u32)> {
        let grace = SIGNED_PREKEY_GRACE_DAYS * DAY_MS;
        let old: Vec<_> = self
            .keys
            .iter()
            .filter(|(_, key)| key.replaced_at_ms.unwrap_or(key.not_after_ms) + grace < now_ms)
            .map(|(name, _)| *name)
            .collect();
        old.into_iter()
            .map(|name| {
                self.keys.remove(&name);
                (kind_of(name.0), name.1)
            })
            .collect()
    }

    /// How many there are of a kind.
    #[must_use]
    pub fn count(&self, kind: PrekeyKind) -> usize {
        self.keys.range((rank(kind), 0)..=(rank(kind), u32::MAX)).count()
    }

    /// All of them, to be stored.
    pub fn iter(&self) -> impl Iterator<Item = ((PrekeyKind, u32), &Prekey)> {
        self.keys.iter().map(|((kind, id), key)| ((kind_of(*kind), *id), key))
    }
}

const fn rank(kind: PrekeyKind) -> u8 {
    match kind {
        PrekeyKind::Signed => 1,
        PrekeyKind::OneTime => 2,
    }
}

const fn kind_of(rank: u8) -> PrekeyKind {
    if rank == 1 { PrekeyKind::Signed } else { PrekeyKind::OneTime }
}
