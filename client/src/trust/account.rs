//! One account: the pinned chain of its device lists.

use martlet_protocol::{
    chain::devices::{DeviceChain, DeviceList},
    id::{AccountId, DeviceId, Hash},
    rest::{ListHead, SignedDeviceList},
};
use serde::{Deserialize, Serialize};

use crate::refused::Refused;

/// An account as it rests in the store.
#[derive(Clone, Serialize, Deserialize)]
pub struct AccountRecord {
    /// As the server named it when it was looked up; people trust the safety number, not this.
    pub username: Option<String>,
    /// From list 1 to the head.
    pub lists: Vec<SignedDeviceList>,
    /// Why nothing is sent to it for now.
    #[serde(default)]
    pub dispute: Option<Dispute>,
}

/// Why sending to an account is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dispute {
    /// The server showed another list 1 under the account's id. The pinned chain stays; a human who has compared safety numbers may go
    /// on with it.
    NewChain,
    /// The account's own devices signed two lists of one number. Nothing but another account recovers.
    TwoBranches,
}

/// How a head that somebody names lies to the chain known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadRelation {
    /// It is one of the known lists.
    Known,
    /// It is after them.
    Newer,
    /// It differs from the known list of its number.
    Forked,
}

/// What absorbing lists changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListChange {
    /// The account was pinned just now.
    pub first_contact: bool,
    /// Devices that joined.
    pub added: Vec<DeviceId>,
    /// Devices that were removed.
    pub removed: Vec<DeviceId>,
}

impl ListChange {
    /// Nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.first_contact && self.added.is_empty() && self.removed.is_empty()
    }
}

/// A pinned account.
pub struct KnownAccount {
    record: AccountRecord,
    chain: DeviceChain,
}

impl KnownAccount {
    /// Pins an account by its whole chain.
    ///
    /// # Errors
    /// [`Refused`] if the chain is not valid, of another account, or starts with another list 1 than expected.
    pub fn first_contact(
        account_id: &AccountId,
        lists: &[SignedDeviceList],
        expected_fingerprint: Option<Hash>,
    ) -> Result<Self, Refused> {
        let chain = DeviceChain::replay(lists)?;
        if chain.account_id() != account_id {
            return Err(Refused::ListInvalid(martlet_protocol::chain::devices::ListError::WrongAccount));
        }
        if expected_fingerprint.is_some_and(|expected| expected != chain.fingerprint()) {
            return Err(Refused::FingerprintChanged);
        }
        Ok(Self { record: AccountRecord { username: None, lists: lists.to_vec(), dispute: None }, chain })
    }

    /// Reads one back from the store.
    ///
    /// # Errors
    /// [`Refused`] if the record is broken.
    pub fn restore(record: AccountRecord) -> Result<Self, Refused> {
        let chain = DeviceChain::replay(&record.lists)?;
        Ok(Self { record, chain })
    }

    /// As it rests in the store.
    #[must_use]
    pub fn record(&self) -> &AccountRecord {
        &self.record
    }

    /// The verified chain.
    #[must_use]
    pub fn chain(&self) -> &DeviceChain {
        &self.chain
    }

    /// Its signed lists, from the first.
    #[must_use]
    pub fn lists(&self) -> &[SignedDeviceList] {
        &self.record.lists
    }

    /// Its name, if it was looked up by one.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        self.record.username.as_deref()
    }

    /// Remembers the name it was looked up by.
    pub fn set_username(&mut self, username: &str) {
        self.record.username = Some(username.to_owned());
    }

    /// Why nothing is sent to it for now.
    #[must_use]
    pub fn dispute(&self) -> Option<Dispute> {
        self.record.dispute
    }

    /// A human has compared safety numbers and goes on with the pinned chain. Returns whether that ends the dispute.
    pub fn confirm(&mut self) -> bool {
        if self.record.dispute == Some(Dispute::NewChain) {
            self.record.dispute = None;
        }
        self.record.dispute.is_none()
    }

    /// Where a head lies.
    #[must_use]
    pub fn relation(&self, head: &ListHead) -> HeadRelation {
        match self.chain.hash_at(head.n) {
            Some(hash) if hash == head.hash => HeadRelation::Known,
            Some(_) => HeadRelation::Forked,
            None if head.n > self.chain.n() => HeadRelation::Newer,
            None => HeadRelation::Forked,
        }
    }

    /// Takes lists that follow the head; known ones are passed over.
    ///
    /// # Errors
    /// [`Refused`]; then nothing was taken.
    pub fn absorb(&mut self, lists: &[SignedDeviceList]) -> Result<ListChange, Refused> {
        let mut chain = self.chain.clone();
        let mut new = Vec::new();
        for signed in lists {
            let n = DeviceList::parse(&signed.list.0)?.n;
            if n > chain.n() {
                chain = chain.extend(signed)?;
                new.push(signed.clone());
            } else if chain.hash_at(n) != Some(Hash::of(&signed.list.0)) {
                return Err(self.second_branch(signed, n));
            }
        }
        let change = ListChange {
            first_contact: false,
            added: chain.added(&self.chain).map(|device| device.device_id).collect(),
            removed: chain.removed(&self.chain).map(|device| device.device_id).collect(),
        };
        self.chain = chain;
        self.record.lists.extend(new);
        Ok(change)
    }

    /// A different list of a known number. If it is signed as the chain demands, the account itself is at fault, not the server.
    fn second_branch(&mut self, other: &SignedDeviceList, n: u64) -> Refused {
        if n <= 1 {
            let is_valid = DeviceChain::first(other).is_ok_and(|chain| chain.account_id() == self.chain.account_id());
            if is_valid && self.record.dispute.is_none() {
                self.record.dispute = Some(Dispute::NewChain);
            }
            return Refused::FingerprintChanged;
        }
        let before = usize::try_from(n - 1).unwrap_or(usize::MAX).min(self.record.lists.len());
        let proved = DeviceChain::replay(&self.record.lists[..before]).and_then(|chain| chain.extend(other));
        match proved {
            Ok(_) => {
                self.record.dispute = Some(Dispute::TwoBranches);
                Refused::ListForked
            }
            Err(error) => error.into(),
        }
    }
}
