//! Changes that this device makes to its own account's list, and proofs that it makes of itself.

use martlet_protocol::{
    chain::devices::DeviceList,
    crypto::sign_in_proof,
    id::DeviceId,
    rest::{DeviceLabel, RegisterRequest, SignInRequest, SignedDeviceList},
};

use super::Device;
use crate::error::ClientError;

impl Device {
    /// The list after the newest one, without these devices, signed by this one.
    ///
    /// # Errors
    /// [`ClientError::NoSuchDevice`]; [`ClientError::NotAllowed`] if none would be left.
    pub fn list_without(&self, gone: &[DeviceId]) -> Result<SignedDeviceList, ClientError> {
        let list = self.own_list()?;
        if gone.is_empty() || gone.iter().any(|id| list.device(id).is_none()) {
            return Err(ClientError::NoSuchDevice);
        }
        if gone.len() == list.devices.len() {
            return Err(ClientError::NotAllowed("an account keeps at least one device".into()));
        }
        let next = list.without(gone, self.now_ms());
        Ok(SignedDeviceList::sign(&next, &self.keys.device_id, &self.keys.signing))
    }

    pub(crate) fn own_list(&self) -> Result<&DeviceList, ClientError> {
        let account = self.trust.account(&self.keys.account_id).ok_or(ClientError::NoDevice)?;
        Ok(account.chain().list())
    }

    /// The request that registers this device's account, made from what is stored: for one whose answer was lost.
    ///
    /// # Errors
    /// [`ClientError::NotAllowed`] if this is not the account's first device.
    pub fn registration_request(&self, password: &str, label: DeviceLabel) -> Result<RegisterRequest, ClientError> {
        let account = self.trust.account(&self.keys.account_id).ok_or(ClientError::NoDevice)?;
        let [device_list] = account.lists() else {
            return Err(ClientError::NotAllowed("this device was linked; link it again from an empty folder".into()));
        };
        Ok(RegisterRequest {
            username: self.username.clone(),
            password: password.to_owned(),
            device_list: device_list.clone(),
            label,
            prekeys: self.ring.pending(),
        })
    }

    /// The request by which this device signs in again.
    #[must_use]
    pub fn sign_in_request(&self, password: &str) -> SignInRequest {
        let signed_at_ms = self.now_ms();
        SignInRequest {
            username: self.username.clone(),
            password: password.to_owned(),
            device_id: self.keys.device_id,
            signed_at_ms,
            proof: sign_in_proof(&self.username, &self.keys.device_id, signed_at_ms, &self.keys.signing),
        }
    }
}
