//! Whose key a membership link is checked with: the asking device's own, from its account's newest list, which the link must name.

use martlet_protocol::{
    chain::{
        devices::DeviceList,
        members::{MembershipLink, Signer, SignerKey},
    },
    rest::SignedMembershipLink,
};
use martlet_storage::{Conn, StorageError, accounts};

use super::ConversationError;
use crate::accounts::DeviceIdentity;

/// A link that can be read and names the asking device as its signer, with that device's key once it was looked up.
pub(super) struct Named {
    pub(super) link: MembershipLink,
    key: Option<SignerKey>,
}

impl Named {
    /// Reads the link. One that somebody else signed is refused: whoever signs also brings it, so that nobody is surprised by a link
    /// that was held back.
    pub(super) fn read(signed: &SignedMembershipLink, identity: &DeviceIdentity) -> Result<Self, ConversationError> {
        let link = MembershipLink::parse(&signed.link.0).map_err(ConversationError::Link)?;
        if link.signer.account_id != identity.account_id || link.signer.device_id != identity.device_id {
            return Err(ConversationError::LinkUnfit("its signer is not the device that brings it"));
        }
        Ok(Self { link, key: None })
    }

    /// Looks the signer up in its account's newest list. The caller holds the account's lock, so that this list is still the newest when
    /// the link is written: a device that was removed after it had authenticated writes nothing more.
    pub(super) fn find_key(&mut self, conn: &mut Conn, identity: &DeviceIdentity) -> Result<(), ConversationError> {
        self.key = head_key(conn, &self.link.signer, identity)?;
        Ok(())
    }

    /// For the chain: the key, if it asks for this link's signer.
    pub(super) fn resolve(&self, signer: &Signer) -> Option<SignerKey> {
        self.key.filter(|_| *signer == self.link.signer)
    }
}

/// None if the account has no such list, or the device isn't in it.
fn head_key(
    conn: &mut Conn,
    signer: &Signer,
    identity: &DeviceIdentity,
) -> Result<Option<SignerKey>, ConversationError> {
    let account = accounts::by_id(conn, &signer.account_id)?;
    let account = account.ok_or(StorageError::Inconsistent("an authenticated device's account has no row"))?;
    if signer.list_n < account.list_n {
        let lists = accounts::lists_after(conn, identity.account_key, signer.list_n)?;
        return Err(ConversationError::ListConflict(lists));
    }
    if signer.list_n > account.list_n || signer.list_hash != account.list_hash {
        return Ok(None);
    }
    let lists = accounts::lists_after(conn, identity.account_key, account.list_n.saturating_sub(1))?;
    let head = lists.first().ok_or(StorageError::Inconsistent("an account's head has no row"))?;
    let list =
        DeviceList::parse(&head.list.0).map_err(|_| StorageError::Inconsistent("a stored list can't be read"))?;
    Ok(list
        .device(&signer.device_id)
        .map(|device| SignerKey { signing_key: device.signing_key, fingerprint: account.fingerprint }))
}
