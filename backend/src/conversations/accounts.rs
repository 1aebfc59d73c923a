//! The accounts that a link names: looked up together, since one link may name thousands.

use std::collections::HashMap;

use martlet_protocol::{
    id::{AccountId, Hash},
    rest::Role,
};
use martlet_storage::{
    AccountKey, Conn,
    accounts::{self},
    conversations::NewMember,
};

use super::ConversationError;

/// Key and fingerprint by id.
pub(super) struct Accounts(HashMap<AccountId, (AccountKey, Hash)>);

impl Accounts {
    /// Those that this node has.
    pub(super) fn find<'a>(
        conn: &mut Conn,
        ids: impl Iterator<Item = &'a AccountId>,
    ) -> Result<Self, ConversationError> {
        let ids: Vec<AccountId> = ids.copied().collect();
        let rows = accounts::by_ids(conn, &ids)?;
        Ok(Self(rows.into_iter().map(|row| (row.account_id, (row.account_key, row.fingerprint))).collect()))
    }

    /// A new member, if this node has the account under that fingerprint.
    pub(super) fn member(
        &self,
        account_id: &AccountId,
        fingerprint: &Hash,
        role: Role,
    ) -> Result<NewMember, ConversationError> {
        match self.0.get(account_id) {
            Some((account_key, known)) if known == fingerprint => {
                Ok(NewMember { account_key: *account_key, fingerprint: *fingerprint, role: role.into() })
            }
            _ => Err(ConversationError::LinkUnfit("it names an account that this node does not have")),
        }
    }
}
