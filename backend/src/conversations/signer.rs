//! Whose key a membership link is checked with: the asking device's own, from the list that the link names.

use martlet_protocol::{
    chain::{
        devices::DeviceList,
        members::{MembershipLink, Signer, SignerKey},
    },
    id::Hash,
    rest::SignedMembershipLink,
};
use martlet_storage::{Conn, StorageError, accounts};

use super::ConversationError;
use crate::accounts::DeviceIdentity;

/// A link that can be read and names the asking device as its signer, with that device's key.
pub(super) struct Named {
    pub(super) link: MembershipLink,
    pub(super) key: Option<SignerKey>,
}

impl Named {
    /// Reads the link and finds its signer's key. A link that somebody else signed is refused: whoever signs also brings it, so that
    /// nobody is surprised by a link that was held back.
    pub(super) fn read(
        conn: &mut Conn,
        signed: &SignedMembershipLink,
        identity: &DeviceIdentity,
    ) -> Result<Self, ConversationError> {
        let link = MembershipLink::parse(&signed.link.0).map_err(ConversationError::Link)?;
        if link.signer.account_id != identity.account_id || link.signer.device_id != identity.device_id {
            return Err(ConversationError::LinkUnfit("its signer is not the device that brings it"));
        }
        let key = signer_key(conn, &link.signer, identity)?;
        Ok(Self { link, key })
    }

    /// For the chain: the key, if it asks for this link's signer.
    pub(super) fn resolve(&self, signer: &Signer) -> Option<SignerKey> {
        self.key.filter(|_| *signer == self.link.signer)
    }
}

/// None if the account has no such list, or the device isn't in it.
fn signer_key(
    conn: &mut Conn,
    signer: &Signer,
    identity: &DeviceIdentity,
) -> Result<Option<SignerKey>, ConversationError> {
    let account = accounts::by_id(conn, &signer.account_id)?;
    let account = account.ok_or(StorageError::Inconsistent("an authenticated device's account has no row"))?;
    let Some(before) = signer.list_n.checked_sub(1) else { return Ok(None) };
    let lists = accounts::lists_after(conn, identity.account_key, before)?;
    let Some(named) = lists.first().filter(|list| Hash::of(&list.list.0) == signer.list_hash) else { return Ok(None) };
    let list =
        DeviceList::parse(&named.list.0).map_err(|_| StorageError::Inconsistent("a stored list can't be read"))?;
    Ok(list
        .device(&signer.device_id)
        .map(|device| SignerKey { signing_key: device.signing_key, fingerprint: account.fingerprint }))
}
