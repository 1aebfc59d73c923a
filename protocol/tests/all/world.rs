//! Accounts and devices, drawn from a seed so that every run and every vector is the same.

use martlet_protocol::{
    chain::{
        devices::{DeviceChain, DeviceList, ListedDevice, sign_list},
        members::Signer,
    },
    crypto::{DhSecret, SigningKey, UnsignedPrekey, sign_prekey},
    id::{AccountId, Blob, DeviceId},
    rest::{PrekeyKind, SignedDeviceList, SignedPrekey},
};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

/// 2026-01-01T00:00:00Z.
pub const NOW_MS: u64 = 1_767_225_600_000;
pub const DAY_MS: u64 = 86_400_000;

pub fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("two hex digits");
    (0..text.len()).step_by(2).map(byte).collect()
}

/// The name of an error's variant, without its fields.
pub fn variant(error: &impl std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    text.split([' ', '(']).next().unwrap_or_default().to_owned()
}

#[derive(Clone)]
pub struct Device {
    pub id: DeviceId,
    pub signing: SigningKey,
    pub mailbox: DhSecret,
}

impl Device {
    pub fn new(rng: &mut ChaCha20Rng) -> Self {
        Self { id: DeviceId::random(rng), signing: SigningKey::generate(rng), mailbox: DhSecret::generate(rng) }
    }

    pub fn listed(&self) -> ListedDevice {
        ListedDevice::new(self.id, self.signing.public(), self.mailbox.public(), NOW_MS)
    }
}

pub struct Account {
    pub devices: Vec<Device>,
    pub lists: Vec<SignedDeviceList>,
    pub chain: DeviceChain,
}

impl Account {
    pub fn new(rng: &mut ChaCha20Rng) -> Self {
        let device = Device::new(rng);
        let list = DeviceList::first(AccountId::random(rng), device.listed(), NOW_MS);
        let first = signed(&list, &[&device]);
        let chain = DeviceChain::first(&first).expect("a good list 1");
        Self { devices: vec![device], lists: vec![first], chain }
    }

    pub fn with_devices(rng: &mut ChaCha20Rng, count: usize) -> Self {
        let mut account = Self::new(rng);
        for _ in 1..count {
            account.add(rng);
        }
        account
    }

    pub fn add(&mut self, rng: &mut ChaCha20Rng) {
        let device = Device::new(rng);
        let list = self.chain.list().with_device(device.listed(), NOW_MS + self.chain.n());
        self.extend(signed(&list, &[&self.devices[0], &device]));
        self.devices.push(device);
    }

    pub fn remove(&mut self, index: usize) -> Device {
        let gone = self.devices.remove(index);
        let list = self.chain.list().without(&[gone.id], NOW_MS + self.chain.n());
        self.extend(signed(&list, &[&self.devices[0]]));
        gone
    }

    fn extend(&mut self, list: SignedDeviceList) {
        self.chain = self.chain.extend(&list).expect("a good list");
        self.lists.push(list);
    }

    pub fn id(&self) -> AccountId {
        *self.chain.account_id()
    }

    /// The first device as the signer of membership links.
    pub fn signer(&self) -> Signer {
        Signer::new(self.devices[0].id, &self.chain.head())
    }

    /// A prekey of one of its devices, with its private part.
    pub fn prekey(
        &self,
        rng: &mut ChaCha20Rng,
        device: usize,
        kind: PrekeyKind,
        key_id: u32,
    ) -> (DhSecret, SignedPrekey) {
        let device = &self.devices[device];
        let secret = DhSecret::generate(rng);
        let public_key = secret.public();
        let key = UnsignedPrekey { suite: 1, kind, key_id, public_key, not_after_ms: NOW_MS + 60 * DAY_MS };
        let signed = sign_prekey(&key, &device.id, &self.chain.head(), &device.signing);
        (secret, signed)
    }
}

pub fn signed(list: &DeviceList, signers: &[&Device]) -> SignedDeviceList {
    signed_bytes(list.to_bytes(), signers)
}

pub fn signed_bytes(bytes: Vec<u8>, signers: &[&Device]) -> SignedDeviceList {
    let signatures = signers.iter().map(|device| sign_list(&bytes, &device.id, &device.signing)).collect();
    SignedDeviceList { list: Blob::from(bytes), signatures }
}
