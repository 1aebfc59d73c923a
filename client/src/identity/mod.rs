//! A device's own keys: making them, putting them into a list, registering. Pure: no network, no store.

mod prekeys;

use martlet_protocol::{
    chain::{
        devices::{DeviceChain, DeviceList, ListError, ListedDevice},
        members::Signer,
    },
    crypto::{DhSecret, SigningKey},
    id::{AccountId, DeviceId},
    rest::{self, ListHead, SignedDeviceList},
};
use rand::rngs::StdRng;

pub use prekeys::{PREKEY_LIFE_DAYS, Prekey, PrekeyRing, SIGNED_PREKEY_GRACE_DAYS};

/// The long-lived keys of one device.
#[derive(Clone)]
pub struct DeviceKeys {
    /// Whose device.
    pub account_id: AccountId,
    /// Drawn by the device itself.
    pub device_id: DeviceId,
    /// Signs lists, memberships, prekeys and messages.
    pub signing: SigningKey,
    /// Opens the node's seal.
    pub mailbox: DhSecret,
}

impl DeviceKeys {
    /// Draws a device's id and keys.
    pub fn generate(account_id: AccountId, rng: &mut StdRng) -> Self {
        Self {
            account_id,
            device_id: DeviceId::random(rng),
            signing: SigningKey::generate(rng),
            mailbox: DhSecret::generate(rng),
        }
    }

    /// The device as a list names it.
    #[must_use]
    pub fn listed(&self, added_at_ms: u64) -> ListedDevice {
        ListedDevice::new(self.device_id, self.signing.public(), self.mailbox.public(), added_at_ms)
    }

    /// Whether a list's entry is this very device: the same id with the same keys.
    #[must_use]
    pub fn is_listed_as(&self, listed: &ListedDevice) -> bool {
        listed.device_id == self.device_id
            && listed.signing_key == self.signing.public()
            && listed.mailbox_key == self.mailbox.public()
    }

    /// The device as the signer of a membership link.
    #[must_use]
    pub fn signer(&self, head: &ListHead) -> Signer {
        Signer::new(self.device_id, head)
    }
}

/// A device of a new account before the server has heard of it.
pub struct NewAccount {
    /// The device's keys.
    pub keys: DeviceKeys,
    /// List 1.
    pub list: SignedDeviceList,
    /// The chain that list 1 starts.
    pub chain: DeviceChain,
    /// The private halves of the prekeys in the request.
    pub prekeys: PrekeyRing,
    /// What to send to `POST /v1/accounts`.
    pub request: rest::RegisterRequest,
}

impl NewAccount {
    /// Makes an account with its first device, with `one_time` one-time prekeys beside the signed one.
    ///
    /// # Errors
    /// [`ListError`] only if drawn keys are weak, which does not happen.
    pub fn generate(
        username: &str,
        password: &str,
        label: rest::DeviceLabel,
        one_time: usize,
        now_ms: u64,
        rng: &mut StdRng,
    ) -> Result<Self, ListError> {
        let keys = DeviceKeys::generate(AccountId::random(rng), rng);
        let list = DeviceList::first(keys.account_id, keys.listed(now_ms), now_ms);
        let list = SignedDeviceList::sign(&list, &keys.device_id, &keys.signing);
        let chain = DeviceChain::first(&list)?;
        let mut prekeys = PrekeyRing::default();
        let request = rest::RegisterRequest {
            username: username.to_owned(),
            password: password.to_owned(),
            device_list: list.clone(),
            label,
            prekeys: prekeys.first_upload(&keys, &chain.head(), one_time, now_ms, rng),
        };
        Ok(Self { keys, list, chain, prekeys, request })
    }
}
