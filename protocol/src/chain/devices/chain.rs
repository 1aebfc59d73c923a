//! The verified head of a device list chain, with as much of its history as was replayed.

use std::sync::Arc;

use super::{
    ListError,
    list::{DeviceList, ListedDevice, sign_list},
    rules,
};
use crate::{
    chain::members::{Signer, SignerKey},
    crypto::{PrekeyError, SigningKey, VerifiedPrekey, check_usable_prekey, verify_prekey},
    id::{AccountId, DeviceId, Hash},
    rest::{ListHead, SignedDeviceList, SignedPrekey},
};

/// A chain whose every link was verified, or a head that its keeper had verified before.
///
/// Extending makes a new value and leaves the old one, so that a refused list changes nothing. Cloning is cheap: lists are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceChain {
    fingerprint: Hash,
    /// Oldest first, never empty; the last is the head.
    known: Vec<Arc<KnownList>>,
}

#[derive(Debug, PartialEq, Eq)]
struct KnownList {
    hash: Hash,
    list: DeviceList,
}

impl DeviceChain {
    /// Starts a chain with list 1. Whether this is the right account is for the caller to compare by [`Self::fingerprint`].
    ///
    /// # Errors
    /// [`ListError`].
    pub fn first(signed: &SignedDeviceList) -> Result<Self, ListError> {
        let list = DeviceList::parse(&signed.list.0)?;
        rules::check_first(&list, signed)?;
        let hash = Hash::of(&signed.list.0);
        Ok(Self { fingerprint: hash, known: vec![Arc::new(KnownList { hash, list })] })
    }

    /// The chain with one list more.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn extend(&self, signed: &SignedDeviceList) -> Result<Self, ListError> {
        self.extend_waiting_for(signed, None)
    }

    /// The chain with all of these lists more.
    ///
    /// # Errors
    /// [`ListError`] of the first list that is refused.
    pub fn extend_all<'a>(&self, lists: impl IntoIterator<Item = &'a SignedDeviceList>) -> Result<Self, ListError> {
        lists.into_iter().try_fold(self.clone(), |chain, signed| chain.extend(signed))
    }

    /// Verifies a whole chain, from list 1.
    ///
    /// # Errors
    /// [`ListError`] of the first list that is refused; [`ListError::NoDevices`] if there is none.
    pub fn replay<'a>(lists: impl IntoIterator<Item = &'a SignedDeviceList>) -> Result<Self, ListError> {
        let mut lists = lists.into_iter();
        Self::first(lists.next().ok_or(ListError::NoDevices)?)?.extend_all(lists)
    }

    /// A head that its keeper verified before it stored it. Only for one's own store.
    ///
    /// # Errors
    /// [`ListError`] about form, if the store is broken.
    pub fn trusted(list_bytes: &[u8], fingerprint: Hash) -> Result<Self, ListError> {
        let list = DeviceList::parse(list_bytes)?;
        Ok(Self { fingerprint, known: vec![Arc::new(KnownList { hash: Hash::of(list_bytes), list })] })
    }

    /// As a new device: checks a proposed list that still lacks this device's signature, and only then adds it.
    ///
    /// # Errors
    /// [`ListError`]; [`ListError::SignerNotListed`] if the list doesn't hold this device with this key.
    pub fn countersign(
        &self,
        proposed: &SignedDeviceList,
        device_id: &DeviceId,
        signer: &SigningKey,
    ) -> Result<SignedDeviceList, ListError> {
        let next = self.extend_waiting_for(proposed, Some(device_id))?;
        let listed = next.device(device_id).ok_or(ListError::SignerNotListed)?;
        if listed.signing_key != signer.public() {
            return Err(ListError::SignerNotListed);
        }
        let mut complete = proposed.clone();
        complete.signatures.retain(|signature| signature.device_id != *device_id);
        complete.signatures.push(sign_list(&proposed.list.0, device_id, signer));
        Ok(complete)
    }

    fn extend_waiting_for(&self, signed: &SignedDeviceList, waiting_for: Option<&DeviceId>) -> Result<Self, ListError> {
        let list = DeviceList::parse(&signed.list.0)?;
        let hash = Hash::of(&signed.list.0);
        self.check_place(&list, &hash)?;
        rules::check_devices(&list, self.list(), |id| self.was_removed(id))?;
        rules::check_signers(&list, self.list(), signed, |id| self.was_removed(id), waiting_for)?;
        let mut known = self.known.clone();
        known.push(Arc::new(KnownList { hash, list }));
        Ok(Self { fingerprint: self.fingerprint, known })
    }

    fn check_place(&self, list: &DeviceList, hash: &Hash) -> Result<(), ListError> {
        if list.account_id != *self.account_id() {
            return Err(ListError::WrongAccount);
        }
        let expected = self.n() + 1;
        if list.n < expected {
            return match self.hash_at(list.n) {
                Some(known) if known != *hash => Err(ListError::OtherBranch),
                _ => Err(ListError::Shorter),
            };
        }
        if list.n > expected {
            return Err(ListError::WrongNumber { expected, given: list.n });
        }
        if list.previous_hash != Some(self.hash()) { Err(ListError::OtherBranch) } else { Ok(()) }
    }

    fn was_removed(&self, device_id: &DeviceId) -> bool {
        self.list().device(device_id).is_none() && self.known.iter().any(|known| known.list.device(device_id).is_some())
    }

    fn head_list(&self) -> &KnownList {
        self.known.last().expect("a chain has a head from its making")
    }

    /// SHA-256 of list 1: what contacts pin.
    #[must_use]
    pub fn fingerprint(&self) -> Hash {
        self.fingerprint
    }

    /// Whose chain.
    #[must_use]
    pub fn account_id(&self) -> &AccountId {
        &self.list().account_id
    }

    /// Number of the newest list.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.list().n
    }

    /// Hash of the newest list.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.head_list().hash
    }

    /// The newest list.
    #[must_use]
    pub fn list(&self) -> &DeviceList {
        &self.head_list().list
    }

    /// The head as messages and prekeys name it.
    #[must_use]
    pub fn head(&self) -> ListHead {
        ListHead { account_id: *self.account_id(), n: self.n(), hash: self.hash() }
    }

    /// A device of the newest list.
    #[must_use]
    pub fn device(&self, device_id: &DeviceId) -> Option<&ListedDevice> {
        self.list().device(device_id)
    }

    /// An earlier list, if it was replayed.
    #[must_use]
    pub fn list_at(&self, n: u64) -> Option<&DeviceList> {
        self.known_at(n).map(|known| &known.list)
    }

    /// Hash of an earlier list, if it was replayed.
    #[must_use]
    pub fn hash_at(&self, n: u64) -> Option<Hash> {
        self.known_at(n).map(|known| known.hash)
    }

    /// The list that a head names, if it is of this chain: none for another branch, a newer list, or one from before the replay.
    #[must_use]
    pub fn list_of(&self, head: &ListHead) -> Option<&DeviceList> {
        let known = self.known_at(head.n)?;
        (known.hash == head.hash && known.list.account_id == head.account_id).then_some(&known.list)
    }

    fn known_at(&self, n: u64) -> Option<&KnownList> {
        let index = n.checked_sub(self.known[0].list.n)?;
        self.known.get(usize::try_from(index).ok()?).map(Arc::as_ref)
    }

    /// Devices that this chain's head has and `before`'s has not.
    pub fn added<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a ListedDevice> {
        self.list().devices.iter().filter(|device| before.device(&device.device_id).is_none())
    }

    /// Devices that `before`'s head has and this chain's has not.
    pub fn removed<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a ListedDevice> {
        before.list().devices.iter().filter(|device| self.device(&device.device_id).is_none())
    }

    /// The key of a membership link's signer, by the list that the link names.
    #[must_use]
    pub fn signer_key(&self, signer: &Signer) -> Option<SignerKey> {
        let head = ListHead { account_id: signer.account_id, n: signer.list_n, hash: signer.list_hash };
        let device = self.list_of(&head)?.device(&signer.device_id)?;
        Some(SignerKey { signing_key: device.signing_key, fingerprint: self.fingerprint })
    }

    /// Everything a sender checks about a prekey before it seals to it: the device is listed and signed it, the list at hand is not
    /// older than the one it names, it has not expired and its suite is known.
    ///
    /// # Errors
    /// [`PrekeyError`].
    pub fn check_prekey(
        &self,
        key: &SignedPrekey,
        device_id: &DeviceId,
        now_ms: u64,
    ) -> Result<VerifiedPrekey, PrekeyError> {
        let device = self.device(device_id).ok_or(PrekeyError::DeviceNotListed)?;
        let verified = verify_prekey(key, self.account_id(), device_id, &device.signing_key)?;
        if key.list_n > self.n() {
            return Err(PrekeyError::ListTooOld);
        }
        if self.hash_at(key.list_n).is_some_and(|hash| hash != key.list_hash) {
            return Err(PrekeyError::OtherBranch);
        }
        check_usable_prekey(key, now_ms)?;
        Ok(verified)
    }
}
