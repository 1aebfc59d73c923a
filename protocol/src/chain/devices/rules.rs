//! What a list must satisfy to start a chain or to follow a head. Pure functions over parsed lists and their signatures.

use super::{
    ListError,
    list::{DeviceList, ListedDevice, list_transcript},
};
use crate::{
    crypto::{check_dh_key, check_signing_key, verify},
    id::{DeviceId, PublicKey},
    rest::{DeviceSignature, SignedDeviceList},
};

/// Checks list 1.
pub(super) fn check_first(list: &DeviceList, signed: &SignedDeviceList) -> Result<(), ListError> {
    if list.n != 1 {
        return Err(ListError::WrongNumber { expected: 1, given: list.n });
    }
    if list.previous_hash.is_some() {
        return Err(ListError::OtherBranch);
    }
    let [device] = list.devices.as_slice() else { return Err(ListError::FirstNotAlone) };
    check_keys(device)?;
    check_signatures(signed, |id| if *id == device.device_id { Ok(device.signing_key) } else { Err(unlisted()) })?;
    if signed.signatures.is_empty() { Err(ListError::NewDeviceSignatureMissing) } else { Ok(()) }
}

/// Checks the devices of a list against those of the list before it.
pub(super) fn check_devices(
    list: &DeviceList,
    before: &DeviceList,
    was_removed: impl Fn(&DeviceId) -> bool,
) -> Result<(), ListError> {
    for device in &list.devices {
        match before.device(&device.device_id) {
            Some(old) if same_identity(old, device) => {}
            Some(_) => return Err(ListError::DeviceChanged),
            None if was_removed(&device.device_id) => return Err(ListError::DeviceReturned),
            None => {
                check_keys(device)?;
                let listed_before = |key: &PublicKey| {
                    before.devices.iter().any(|old| old.signing_key == *key || old.mailbox_key == *key)
                };
                if listed_before(&device.signing_key) || listed_before(&device.mailbox_key) {
                    return Err(ListError::ReusedKey);
                }
            }
        }
    }
    Ok(())
}

/// Checks who signed a list that follows another. With `waiting_for`, that added device may still have to sign.
pub(super) fn check_signers(
    list: &DeviceList,
    before: &DeviceList,
    signed: &SignedDeviceList,
    was_removed: impl Fn(&DeviceId) -> bool,
    waiting_for: Option<&DeviceId>,
) -> Result<(), ListError> {
    check_signatures(signed, |id| match before.device(id).or_else(|| list.device(id)) {
        Some(device) => Ok(device.signing_key),
        None if was_removed(id) => Err(ListError::SignerRemoved),
        None => Err(unlisted()),
    })?;
    let has_signed = |id: &DeviceId| signed.signatures.iter().any(|signature| signature.device_id == *id);
    if !before.devices.iter().any(|device| has_signed(&device.device_id)) {
        return Err(ListError::OldDeviceSignatureMissing);
    }
    let all_added_signed = list
        .devices
        .iter()
        .filter(|device| before.device(&device.device_id).is_none() && waiting_for != Some(&device.device_id))
        .all(|device| has_signed(&device.device_id));
    if all_added_signed { Ok(()) } else { Err(ListError::NewDeviceSignatureMissing) }
}

/// Every signature must be by a known device, once, and verify: an odd one is a sign of tampering, not a spare.
fn check_signatures(
    signed: &SignedDeviceList,
    key_of: impl Fn(&DeviceId) -> Result<PublicKey, ListError>,
) -> Result<(), ListError> {
    let transcript = list_transcript(&signed.list.0);
    for (index, DeviceSignature { device_id, signature }) in signed.signatures.iter().enumerate() {
        let key = key_of(device_id)?;
        if signed.signatures[..index].iter().any(|earlier| earlier.device_id == *device_id) {
            return Err(ListError::DuplicateSignature);
        }
        verify(&key, &transcript, signature).map_err(|_| ListError::BadSignature)?;
    }
    Ok(())
}

fn check_keys(device: &ListedDevice) -> Result<(), ListError> {
    check_signing_key(&device.signing_key).map_err(|_| ListError::WeakKey)?;
    check_dh_key(&device.mailbox_key).map_err(|_| ListError::WeakKey)
}

/// Suites may change while a device lives (it learns new ones); its keys may not.
fn same_identity(old: &ListedDevice, new: &ListedDevice) -> bool {
    (old.signing_key, old.mailbox_key, old.added_at_ms) == (new.signing_key, new.mailbox_key, new.added_at_ms)
}

const fn unlisted() -> ListError {
    ListError::SignerNotListed
}
