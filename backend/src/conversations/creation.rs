//! New conversations: link 1, checked, with accounts that exist.

use martlet_protocol::{
    chain::members::MembershipChain,
    id::{ConversationId, Hash},
    rest::{Conversation, CreateConversation},
};
use martlet_storage::{
    Conn, accounts,
    conversations::{self, CreateError, NewConversation, NewMember},
};

use super::{
    ConversationError, Conversations, accounts::Accounts, check_title, find, most_members, show, signer::Named,
};
use crate::{accounts::DeviceIdentity, config};

impl Conversations {
    /// Creates a conversation. The same link again gives the same conversation.
    ///
    /// # Errors
    /// [`ConversationError::Exists`] if the two accounts have a direct conversation already, [`ConversationError::ListConflict`] if the
    /// link names an older device list than the signer's newest; typed per cause otherwise.
    pub async fn create(
        &self,
        identity: &DeviceIdentity,
        create: CreateConversation,
    ) -> Result<Conversation, ConversationError> {
        let limits = self.0.config.conversations.clone();
        check_title(create.title.as_ref(), limits.max_title_bytes)?;
        let identity = *identity;
        self.0.db.write(move |conn| create_in(conn, &identity, &create, &limits)).await
    }
}

fn create_in(
    conn: &mut Conn,
    identity: &DeviceIdentity,
    create: &CreateConversation,
    limits: &config::Conversations,
) -> Result<Conversation, ConversationError> {
    accounts::lock(conn, &identity.account_id)?;
    let mut named = Named::read(&create.creation, identity)?;
    // The first answer was lost; since then the account's list may have moved on, which is no reason for a second conversation.
    let made = ConversationId::new(*Hash::of(&create.creation.link.0).as_bytes());
    if let Some(row) = conversations::by_id_for_member(conn, &made, identity.account_key)? {
        return show(conn, row);
    }
    named.find_key(conn, identity)?;
    let chain = MembershipChain::create(&create.creation, |signer| named.resolve(signer));
    let chain = chain.map_err(ConversationError::Link)?;
    let allowed = most_members(chain.kind, limits);
    if chain.members.len() > allowed {
        return Err(ConversationError::TooManyMembers { allowed });
    }
    let members = members(conn, &chain)?;
    let new = NewConversation {
        conversation_id: chain.conversation_id,
        kind: chain.kind.into(),
        link: &create.creation,
        title: create.title.as_ref().map(|title| title.0.as_ref()).filter(|title| !title.is_empty()),
        members: &members,
    };
    match conversations::create(conn, &new) {
        Ok(_) => {}
        // The same request once more at the same time.
        Err(CreateError::Exists { conversation_id }) if conversation_id == chain.conversation_id => {}
        Err(error) => return Err(error.into()),
    }
    let row = find(conn, &chain.conversation_id, identity.account_key)?;
    show(conn, row)
}

fn members(conn: &mut Conn, chain: &MembershipChain) -> Result<Vec<NewMember>, ConversationError> {
    let accounts = Accounts::find(conn, chain.members.keys())?;
    chain
        .members
        .iter()
        .map(|(account_id, member)| accounts.member(account_id, &member.fingerprint, member.role))
        .collect()
}
