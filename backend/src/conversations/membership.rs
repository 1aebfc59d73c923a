//! Links after the first: add, remove, leave, give a role. Clients check the signatures; the node checks them too, and the roles.

use martlet_protocol::{
    chain::members::{Member, MembershipChain, MembershipChange, MembershipError, MembershipLink},
    id::{AccountId, ConversationId},
    rest::SignedMembershipLink,
};
use martlet_storage::{
    AccountKey, Conn, StorageError, accounts,
    conversations::{self, AppendLink, ConversationRow, MemberChange, MemberRow},
};

use super::{ConversationError, Conversations, accounts::Accounts, find, kind, most_members, role, signer::Named};
use crate::{accounts::DeviceIdentity, config};

impl Conversations {
    /// Appends a link to the membership chain. The head again changes nothing.
    ///
    /// # Errors
    /// [`ConversationError::LinkConflict`] if it does not extend the head, [`ConversationError::ListConflict`] if it names an older
    /// device list than the signer's newest, [`ConversationError::Link`] if it breaks a rule, [`ConversationError::Forbidden`] if the
    /// signer's role does not allow it.
    pub async fn change_membership(
        &self,
        identity: &DeviceIdentity,
        conversation_id: ConversationId,
        signed: SignedMembershipLink,
    ) -> Result<(), ConversationError> {
        let (limits, now_s) = (self.0.config.conversations.clone(), self.0.clock.now_s());
        let identity = *identity;
        // Read, checked and appended in one transaction: two changes at once can't both extend one head.
        let change = move |conn: &mut Conn| change(conn, &identity, &conversation_id, &signed, &limits, now_s);
        self.0.db.write(change).await?;
        self.0.streams.control_changed();
        Ok(())
    }
}

fn change(
    conn: &mut Conn,
    identity: &DeviceIdentity,
    conversation_id: &ConversationId,
    signed: &SignedMembershipLink,
    limits: &config::Conversations,
    now_s: u64,
) -> Result<(), ConversationError> {
    // The account first: a revocation that is under way comes before this link or after it, not in between.
    accounts::lock(conn, &identity.account_id)?;
    conversations::lock(conn, conversation_id)?;
    let row = find(conn, conversation_id, identity.account_key)?;
    let hash = martlet_protocol::id::Hash::of(&signed.link.0);
    if hash == row.head_hash {
        return Ok(());
    }
    let rows = conversations::members(conn, row.conversation_key)?;
    let head = head_chain(&row, &rows)?;
    let mut named = Named::read(signed, identity)?;
    named.find_key(conn, identity)?;
    let next = match head.extend(signed, |signer| named.resolve(signer)) {
        Ok(next) => next,
        Err(MembershipError::Shorter | MembershipError::WrongNumber { .. } | MembershipError::OtherBranch) => {
            return Err(conflict(conn, &row, &named.link)?);
        }
        Err(error) => return Err(ConversationError::Link(error)),
    };
    let allowed = most_members(next.kind, limits);
    if next.members.len() > allowed && next.members.len() > head.members.len() {
        return Err(ConversationError::TooManyMembers { allowed });
    }
    let added = named.link.changes.iter().filter(|change| matches!(change, MembershipChange::Add(_)));
    let accounts = Accounts::find(conn, added.map(MembershipChange::account_id))?;
    let changes = named.link.changes.iter().map(|change| stored(change, &accounts, &rows));
    let changes = changes.collect::<Result<Vec<_>, _>>()?;
    let append = AppendLink {
        conversation_key: row.conversation_key,
        expected_m: row.m,
        link: signed,
        hash,
        changes: &changes,
        now_s,
    };
    Ok(conversations::append_link(conn, &append)?)
}

/// The membership's head, as the node verified it when it was appended.
fn head_chain(row: &ConversationRow, rows: &[MemberRow]) -> Result<MembershipChain, StorageError> {
    let members = rows
        .iter()
        .map(|row| Ok(Member { account_id: row.account_id, fingerprint: row.fingerprint, role: role(row.role)? }))
        .collect::<Result<Vec<_>, StorageError>>()?;
    Ok(MembershipChain::trusted(row.conversation_id, kind(row.kind)?, row.m, row.head_hash, members))
}

/// The links after the one that the refused link meant to extend; at least the head, so that another branch is seen for what it is.
fn conflict(
    conn: &mut Conn,
    row: &ConversationRow,
    link: &MembershipLink,
) -> Result<ConversationError, ConversationError> {
    let after = link.m().saturating_sub(1).min(row.m.saturating_sub(1));
    Ok(ConversationError::LinkConflict(conversations::links_after(conn, row.conversation_key, after)?))
}

/// The change in terms of rows.
fn stored(
    change: &MembershipChange,
    accounts: &Accounts,
    rows: &[MemberRow],
) -> Result<MemberChange, ConversationError> {
    let member_key = |account_id: &AccountId| -> Result<AccountKey, StorageError> {
        let row = rows.iter().find(|row| row.account_id == *account_id);
        row.map(|row| row.account_key).ok_or(StorageError::Inconsistent("a verified change names no member"))
    };
    Ok(match change {
        MembershipChange::Add(member) => {
            MemberChange::Add(accounts.member(&member.account_id, &member.fingerprint, member.role)?)
        }
        MembershipChange::Remove { account_id, .. } => MemberChange::Remove(member_key(account_id)?),
        MembershipChange::SetRole(member) => MemberChange::SetRole(member_key(&member.account_id)?, member.role.into()),
    })
}
