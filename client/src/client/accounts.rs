//! People and devices: looking accounts up, comparing safety numbers, the account's own devices.

use martlet_protocol::{
    crypto::safety_number,
    id::{AccountId, DeviceId, Hash},
    problem::Code,
    rest::OwnDevice,
};

use super::Client;
use crate::error::ClientError;

/// How often a change of the own list is rebased onto one that came first.
const MAX_REBASES: usize = 5;

/// An account that was looked up, pinned here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// The account.
    pub account_id: AccountId,
    /// Its name, as it was looked up by.
    pub username: Option<String>,
    /// SHA-256 of its list 1.
    pub fingerprint: Hash,
    /// Number of its newest list.
    pub list_n: u64,
    /// Its devices.
    pub devices: Vec<DeviceId>,
}

impl Client {
    /// Looks an account up by its name and pins it, or extends what is pinned.
    ///
    /// # Errors
    /// [`ClientError::NoSuchAccount`]; [`ClientError::Refused`] if what the server shows contradicts what is pinned.
    pub async fn look_up(&self, username: &str) -> Result<Contact, ClientError> {
        let found = self.inner.api.account_by_name(username).await.map_err(|error| match error.code() {
            Some(Code::NotFound) => ClientError::NoSuchAccount,
            _ => error,
        })?;
        let id = found.account_id;
        let after = self.device(|device| device.trust().account(&id).map_or(0, |account| account.chain().n()));
        let lists = self.inner.api.lists(id, after).await?;
        self.device(|device| {
            let taken = device.absorb_lists_of(&id, &lists.lists, Some(found.fingerprint));
            if taken.is_ok() {
                device.name_account(&id, username);
            }
            device.commit()?;
            taken.map_err(ClientError::from)
        })?;
        self.contact(&id).ok_or(ClientError::NoSuchAccount)
    }

    /// An account that is pinned here.
    #[must_use]
    pub fn contact(&self, account_id: &AccountId) -> Option<Contact> {
        self.device(|device| {
            let account = device.trust().account(account_id)?;
            Some(Contact {
                account_id: *account_id,
                username: account.username().map(str::to_owned),
                fingerprint: account.chain().fingerprint(),
                list_n: account.chain().n(),
                devices: account.chain().list().devices.iter().map(|device| device.device_id).collect(),
            })
        })
    }

    /// 60 digits that both people see alike if nobody stands between them.
    ///
    /// # Errors
    /// [`ClientError::NoSuchAccount`] if the account was never looked up here.
    pub fn safety_number(&self, account_id: &AccountId) -> Result<String, ClientError> {
        let own = self.contact(&self.account_id()).ok_or(ClientError::NoDevice)?;
        let other = self.contact(account_id).ok_or(ClientError::NoSuchAccount)?;
        Ok(safety_number(&own.fingerprint, &other.fingerprint))
    }

    /// The account's devices as the server serves them.
    ///
    /// # Errors
    /// A problem.
    pub async fn devices(&self) -> Result<Vec<OwnDevice>, ClientError> {
        Ok(self.inner.api.devices().await?.devices)
    }

    /// Gives one of the account's devices another name.
    ///
    /// # Errors
    /// A problem.
    pub async fn rename_device(&self, device: DeviceId, name: &str) -> Result<(), ClientError> {
        self.inner.api.rename(device, name).await
    }

    /// Removes devices from the account: they get nothing more from the moment the server answers.
    ///
    /// # Errors
    /// [`ClientError::NoSuchDevice`], [`ClientError::NotAllowed`], a problem.
    pub async fn revoke_devices(&self, devices: &[DeviceId]) -> Result<(), ClientError> {
        self.refresh_own_list().await?;
        for _ in 0..MAX_REBASES {
            let list = self.device(|device| device.list_without(devices))?;
            match self.inner.api.revoke(list.clone()).await {
                Ok(()) => return self.take_own_lists(&[list]),
                Err(ClientError::Problem(problem)) if problem.code == Code::DeviceListConflict.as_str() => {
                    self.take_own_lists(&problem.lists)?;
                    self.refresh_own_list().await?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(ClientError::NotAllowed("the device list keeps changing; try again".into()))
    }

    /// Gets lists of the own account that other devices made.
    ///
    /// # Errors
    /// [`ClientError::Refused`], a problem.
    pub async fn refresh_own_list(&self) -> Result<(), ClientError> {
        let head = self.device(|device| device.own_head());
        let lists = self.inner.api.lists(head.account_id, head.n).await?;
        self.take_own_lists(&lists.lists)
    }

    pub(super) fn take_own_lists(&self, lists: &[martlet_protocol::rest::SignedDeviceList]) -> Result<(), ClientError> {
        self.device(|device| {
            let own = device.account_id();
            let taken = device.absorb_lists(&own, lists);
            device.commit()?;
            taken.map(drop).map_err(ClientError::from)
        })
    }
}
