//! One device list: reading, making and signing it. Whether it may follow another is [`super::rules`]' to say.

use prost::Message as _;

use super::{ListError, MAX_LISTED_DEVICES};
use crate::{
    crypto::{KNOWN_SUITES, Label, SigningKey, Transcript},
    id::{AccountId, DeviceId, Hash, PublicKey},
    rest::{DeviceSignature, SignedDeviceList},
    wire,
};

/// A device as its list names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListedDevice {
    /// Which.
    pub device_id: DeviceId,
    /// Ed25519.
    pub signing_key: PublicKey,
    /// X25519.
    pub mailbox_key: PublicKey,
    /// Suites that the device can open, ascending.
    pub suites: Vec<u32>,
    /// Unix milliseconds.
    pub added_at_ms: u64,
}

impl ListedDevice {
    /// A device that opens all suites of this crate.
    #[must_use]
    pub fn new(device_id: DeviceId, signing_key: PublicKey, mailbox_key: PublicKey, added_at_ms: u64) -> Self {
        Self { device_id, signing_key, mailbox_key, suites: KNOWN_SUITES.to_vec(), added_at_ms }
    }
}

/// List n of an account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeviceList {
    /// Whose.
    pub account_id: AccountId,
    /// 1, 2, 3 …
    pub n: u64,
    /// Hash of list n-1; none in list 1.
    pub previous_hash: Option<Hash>,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    /// In ascending order of their ids.
    pub devices: Vec<ListedDevice>,
}

impl DeviceList {
    /// List 1 of a new account.
    #[must_use]
    pub fn first(account_id: AccountId, device: ListedDevice, created_at_ms: u64) -> Self {
        Self { account_id, n: 1, previous_hash: None, created_at_ms, devices: vec![device] }
    }

    /// The list after this one, with one device more.
    #[must_use]
    pub fn with_device(&self, device: ListedDevice, created_at_ms: u64) -> Self {
        let mut devices = self.devices.clone();
        devices.push(device);
        devices.sort_by_key(|device| device.device_id);
        self.next(devices, created_at_ms)
    }

    /// The list after this one, without some devices.
    #[must_use]
    pub fn without(&self, gone: &[DeviceId], created_at_ms: u64) -> Self {
        let devices = self.devices.iter().filter(|device| !gone.contains(&device.device_id)).cloned().collect();
        self.next(devices, created_at_ms)
    }

    fn next(&self, devices: Vec<ListedDevice>, created_at_ms: u64) -> Self {
        Self { account_id: self.account_id, n: self.n + 1, previous_hash: Some(self.hash()), created_at_ms, devices }
    }

    /// One of its devices.
    #[must_use]
    pub fn device(&self, device_id: &DeviceId) -> Option<&ListedDevice> {
        let index = self.devices.binary_search_by_key(device_id, |device| device.device_id).ok()?;
        Some(&self.devices[index])
    }

    /// The canonical bytes: to be signed once, then carried as they are.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        wire::DeviceList {
            account_id: self.account_id.to_wire(),
            n: self.n,
            previous_hash: self.previous_hash.map(Hash::to_wire).unwrap_or_default(),
            created_at_ms: self.created_at_ms,
            devices: self.devices.iter().map(device_to_wire).collect(),
        }
        .encode_to_vec()
    }

    /// SHA-256 of the canonical bytes.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of(&self.to_bytes())
    }

    /// Reads list bytes **without verifying any signature**: form only. What it says is to be believed from a
    /// [`super::DeviceChain`].
    ///
    /// # Errors
    /// The [`ListError`]s about form.
    pub fn parse(bytes: &[u8]) -> Result<Self, ListError> {
        let read = wire::DeviceList::decode(bytes).map_err(|_| ListError::Unreadable)?;
        let previous_hash = match read.previous_hash.as_ref() {
            [] => None,
            hash => Some(Hash::try_from(hash).map_err(|_| ListError::Unreadable)?),
        };
        let list = Self {
            account_id: read.account_id.as_ref().try_into().map_err(|_| ListError::Unreadable)?,
            n: read.n,
            previous_hash,
            created_at_ms: read.created_at_ms,
            devices: read.devices.iter().map(device_from_wire).collect::<Result<_, _>>()?,
        };
        if list.to_bytes() != bytes {
            return Err(ListError::NotCanonical);
        }
        list.check_form()?;
        Ok(list)
    }

    /// What can be said of a list by itself.
    fn check_form(&self) -> Result<(), ListError> {
        if self.devices.is_empty() {
            return Err(ListError::NoDevices);
        }
        if self.devices.len() > MAX_LISTED_DEVICES {
            return Err(ListError::TooManyDevices);
        }
        for pair in self.devices.windows(2) {
            match pair[0].device_id.cmp(&pair[1].device_id) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Err(ListError::DuplicateDevice),
                std::cmp::Ordering::Greater => return Err(ListError::NotCanonical),
            }
        }
        for device in &self.devices {
            if device.suites.is_empty() || device.suites.contains(&0) {
                return Err(ListError::UnknownSuite);
            }
            if !device.suites.is_sorted_by(|one, next| one < next) {
                return Err(ListError::NotCanonical);
            }
        }
        let mut keys: Vec<_> =
            self.devices.iter().flat_map(|device| [device.signing_key, device.mailbox_key]).collect();
        keys.sort();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) { Err(ListError::ReusedKey) } else { Ok(()) }
    }
}

/// Signs list bytes as one of the devices that has to.
#[must_use]
pub fn sign_list(bytes: &[u8], device_id: &DeviceId, signer: &SigningKey) -> DeviceSignature {
    DeviceSignature { device_id: *device_id, signature: signer.sign(&list_transcript(bytes)) }
}

impl SignedDeviceList {
    /// Encodes a list once and signs it as one device; further signatures are added with [`sign_list`] over the same bytes.
    #[must_use]
    pub fn sign(list: &DeviceList, device_id: &DeviceId, signer: &SigningKey) -> Self {
        let bytes = list.to_bytes();
        let signature = sign_list(&bytes, device_id, signer);
        Self { list: bytes.into(), signatures: vec![signature] }
    }
}

pub(super) fn list_transcript(bytes: &[u8]) -> Transcript {
    Transcript::new(Label::DeviceList).variable(bytes)
}

fn device_to_wire(device: &ListedDevice) -> wire::ListedDevice {
    wire::ListedDevice {
        device_id: device.device_id.to_wire(),
        signing_key: device.signing_key.to_wire(),
        mailbox_key: device.mailbox_key.to_wire(),
        suites: device.suites.clone(),
        added_at_ms: device.added_at_ms,
    }
}

fn device_from_wire(device: &wire::ListedDevice) -> Result<ListedDevice, ListError> {
    let unreadable = |_| ListError::Unreadable;
    Ok(ListedDevice {
        device_id: device.device_id.as_ref().try_into().map_err(unreadable)?,
        signing_key: device.signing_key.as_ref().try_into().map_err(unreadable)?,
        mailbox_key: device.mailbox_key.as_ref().try_into().map_err(unreadable)?,
        suites: device.suites.clone(),
        added_at_ms: device.added_at_ms,
    })
}
