//! Prekeys of other devices: what may be sealed to, for how long, and when to claim anew.
//!
//! A one-time key is claimed for the first message to a device and then at most once a day, and kept across retries; between, the
//! signed prekey serves, for at most a day before it is looked up again.

use martlet_protocol::{
    chain::devices::DeviceChain,
    crypto::{PrekeyError, VerifiedPrekey},
    id::{ClientMessageId, DeviceId},
    rest::{DeviceBundle, PrekeyKind, SignedPrekey},
};
use serde::{Deserialize, Serialize};

use crate::{ambient::DAY_MS, refused::Refused};

/// How far the server's clock may be ahead when it says that a prekey has run out.
const CLOCK_SKEW_MS: u64 = 10 * 60 * 1000;
/// Ids of one-time keys that are remembered per device, to notice one that comes twice.
const REMEMBERED_ONE_TIME_IDS: usize = 64;

/// A one-time key that was claimed and belongs to one message.
#[derive(Clone, Serialize, Deserialize)]
pub struct Reserved {
    /// The key.
    pub key: SignedPrekey,
    /// The message that uses it, once there is one; its retries use it too.
    pub for_message: Option<ClientMessageId>,
}

/// What is known of one target device's prekeys.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Target {
    /// The signed prekey.
    pub signed: Option<SignedPrekey>,
    /// A claimed one-time key that is not used up yet.
    pub one_time: Option<Reserved>,
    /// Unix milliseconds of the last look-up.
    pub claimed_at_ms: u64,
    /// Ids of one-time keys that were got before.
    pub seen_one_time: Vec<u32>,
    /// The server gave no keys at the last look-up: dormant, or not served.
    pub left_out: bool,
}

impl Target {
    /// Whether the keys have to be looked up before the next message.
    #[must_use]
    pub fn is_stale(&self, now_ms: u64) -> bool {
        let looked_up_lately = now_ms < self.claimed_at_ms.saturating_add(DAY_MS);
        let usable = self.signed.as_ref().is_some_and(|key| key.not_after_ms > now_ms);
        !looked_up_lately || !(usable || self.left_out)
    }

    /// Takes a bundle whose every key the device vouches for. A one-time key that the device signed and that can't be used is passed over
    /// and returned as what it was refused for: the signed prekey serves, as it does when there is no one-time key, so that one bad key
    /// doesn't stop a whole conversation.
    ///
    /// # Errors
    /// [`Refused`]; nothing is taken then.
    pub fn take(
        &mut self,
        chain: &DeviceChain,
        bundle: &DeviceBundle,
        now_ms: u64,
    ) -> Result<Option<Refused>, Refused> {
        check(chain, &bundle.device_id, &bundle.signed_prekey, PrekeyKind::Signed, now_ms)?;
        let (one_time, passed_over) = match self.check_one_time(chain, bundle, now_ms) {
            Ok(one_time) => (one_time, None),
            Err(refused) if is_dispensable(refused) => (None, Some(refused)),
            Err(refused) => return Err(refused),
        };
        self.signed = Some(bundle.signed_prekey.clone());
        self.claimed_at_ms = now_ms;
        self.left_out = false;
        if let Some(key) = one_time {
            self.seen_one_time.push(key.key_id);
            let surplus = self.seen_one_time.len().saturating_sub(REMEMBERED_ONE_TIME_IDS);
            self.seen_one_time.drain(..surplus);
            // A key that a waiting message holds stays its own; the new one is then for the message after it.
            if self.one_time.as_ref().is_none_or(|kept| kept.for_message.is_none()) {
                self.one_time = Some(Reserved { key: key.clone(), for_message: None });
            }
        }
        Ok(passed_over)
    }

    fn check_one_time<'a>(
        &self,
        chain: &DeviceChain,
        bundle: &'a DeviceBundle,
        now_ms: u64,
    ) -> Result<Option<&'a SignedPrekey>, Refused> {
        let Some(key) = &bundle.one_time_prekey else { return Ok(None) };
        check(chain, &bundle.device_id, key, PrekeyKind::OneTime, now_ms)?;
        if self.seen_one_time.contains(&key.key_id) { Err(Refused::PrekeyRepeated) } else { Ok(Some(key)) }
    }

    /// The server gave no keys for this device.
    pub fn leave_out(&mut self, now_ms: u64) {
        self.signed = None;
        self.claimed_at_ms = now_ms;
        self.left_out = true;
    }

    /// The key that a message to this device is sealed to, checked against the list as it is now. None: the device is left out.
    ///
    /// # Errors
    /// [`Refused`] if the chain no longer vouches for the key.
    pub fn key_for(
        &mut self,
        chain: &DeviceChain,
        device_id: &DeviceId,
        message: ClientMessageId,
        now_ms: u64,
    ) -> Result<Option<VerifiedPrekey>, Refused> {
        if self.left_out {
            return Ok(None);
        }
        if let Some(reserved) = &mut self.one_time
            && reserved.for_message.is_none_or(|owner| owner == message)
            && reserved.key.not_after_ms > now_ms
        {
            reserved.for_message = Some(message);
            return check(chain, device_id, &reserved.key, PrekeyKind::OneTime, now_ms).map(Some);
        }
        self.signed_key(chain, device_id, now_ms)
    }

    /// The signed prekey, for what must not use up a one-time key. None: the device is left out.
    ///
    /// # Errors
    /// [`Refused`] if the chain no longer vouches for the key.
    pub fn signed_key(
        &self,
        chain: &DeviceChain,
        device_id: &DeviceId,
        now_ms: u64,
    ) -> Result<Option<VerifiedPrekey>, Refused> {
        if self.left_out {
            return Ok(None);
        }
        let signed = self.signed.as_ref().ok_or(Refused::PrekeyExpired)?;
        check(chain, device_id, signed, PrekeyKind::Signed, now_ms).map(Some)
    }

    /// The message is accepted, or given up: its one-time key is used up. Returns whether anything changed.
    pub fn release(&mut self, message: ClientMessageId) -> bool {
        let used = self.one_time.as_ref().is_some_and(|reserved| reserved.for_message == Some(message));
        if used {
            self.one_time = None;
        }
        used
    }

    /// Whether the signed prekey that was got is past its life, so that leaving the device out needs no belief in the server.
    #[must_use]
    pub fn is_provably_dormant(&self, now_ms: u64) -> bool {
        self.signed.as_ref().is_some_and(|key| key.not_after_ms <= now_ms.saturating_add(CLOCK_SKEW_MS))
    }
}

/// Whether a one-time key that was refused for this can be done without. Forged keys and forked or withheld lists can't: they say that
/// the server, or the account, is not to be trusted with the message at all.
const fn is_dispensable(refused: Refused) -> bool {
    matches!(
        refused,
        Refused::PrekeyRepeated | Refused::PrekeyExpired | Refused::PrekeyUnfit(PrekeyError::Suite | PrekeyError::Weak)
    )
}

/// Everything a sender checks about a prekey.
///
/// # Errors
/// [`Refused`].
pub fn check(
    chain: &DeviceChain,
    device_id: &DeviceId,
    key: &SignedPrekey,
    kind: PrekeyKind,
    now_ms: u64,
) -> Result<VerifiedPrekey, Refused> {
    if key.kind != kind {
        return Err(Refused::PrekeyUnfit(PrekeyError::Kind));
    }
    Ok(chain.check_prekey(key, device_id, now_ms)?)
}
