//! New conversations: link 1, checked, with accounts that exist.

use martlet_protocol::{
    chain::members::MembershipChain,
    id::{ConversationId, Hash},
    rest::{Conversation, ConversationKind, CreateConversation},
};
use martlet_storage::{
    Conn, accounts,
    conversations::{self, CreateError, NewConversation, NewMember},
};

use super::{ConversationError, Conversations, check_title, find, show, signer::Named};
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
    if chain.kind == ConversationKind::Group && chain.members.len() > limits.max_members_group {
        return Err(ConversationError::TooManyMembers { allowed: limits.max_members_group });
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
    chain
        .members
        .iter()
        .map(|(account_id, member)| {
            let account = accounts::by_id(conn, account_id)?.filter(|row| row.fingerprint == member.fingerprint);
            let account =
                account.ok_or(ConversationError::LinkUnfit("it names an account that this node does not have"))?;
            Ok(NewMember {
                account_key: account.account_key,
                fingerprint: member.fingerprint,
                role: member.role.into(),
            })
        })
        .collect()
}
