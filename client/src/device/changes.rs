//! Conversations that this device creates, and changes that it makes to their membership: links to be sent, taken once accepted.

use martlet_protocol::{
    chain::members::{Member, MembershipChange, MembershipLink},
    id::{AccountId, ConversationId, Hash},
    rest::{ConversationKind, Role, SignedMembershipLink},
};
use rand::Rng as _;

use super::Device;
use crate::error::ClientError;

/// A conversation to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewConversation {
    /// With one other account.
    Direct(AccountId),
    /// With any number of others, each with a role.
    Group(Vec<(AccountId, Role)>),
}

impl Device {
    /// The signed creation record; its hash is the conversation's id.
    ///
    /// # Errors
    /// [`ClientError::NoSuchAccount`] for an account whose lists are not known here.
    pub fn creation_link(
        &mut self,
        conversation: &NewConversation,
    ) -> Result<(ConversationId, SignedMembershipLink), ClientError> {
        let mut nonce = [0; 32];
        self.rng.fill_bytes(&mut nonce);
        let own_head = self.own_head();
        let own_fingerprint = self.fingerprint(&self.keys.account_id)?;
        let signer = self.keys.signer(&own_head);
        let now_ms = self.now_ms();
        let link = match conversation {
            NewConversation::Direct(other) => {
                let fingerprint = self.fingerprint(other)?;
                MembershipLink::create_direct(nonce, signer, own_fingerprint, *other, fingerprint, now_ms)
            }
            NewConversation::Group(others) => {
                let members = others.iter().map(|(account_id, role)| self.member(account_id, *role)).collect::<Result<
                    Vec<_>,
                    _,
                >>(
                )?;
                MembershipLink::create_group(nonce, signer, own_fingerprint, members, now_ms)
            }
        };
        let signed = link.sign(&self.keys.signing);
        let id = ConversationId::new(*Hash::of(&signed.link.0).as_bytes());
        Ok((id, signed))
    }

    /// The signed link that adds an account.
    ///
    /// # Errors
    /// [`ClientError::NoSuchConversation`], [`ClientError::NoSuchAccount`].
    pub fn link_add(
        &self,
        id: &ConversationId,
        account: &AccountId,
        role: Role,
    ) -> Result<SignedMembershipLink, ClientError> {
        self.link(id, MembershipChange::Add(self.member(account, role)?))
    }

    /// The signed link that gives a member another role.
    ///
    /// # Errors
    /// [`ClientError::NoSuchConversation`], [`ClientError::NoSuchAccount`].
    pub fn link_set_role(
        &self,
        id: &ConversationId,
        account: &AccountId,
        role: Role,
    ) -> Result<SignedMembershipLink, ClientError> {
        self.link(id, MembershipChange::SetRole(self.member(account, role)?))
    }

    /// The signed link that removes a member; removing oneself is leaving.
    ///
    /// # Errors
    /// [`ClientError::NoSuchConversation`]; [`ClientError::NotAllowed`] if the account is no member.
    pub fn link_remove(&self, id: &ConversationId, account: &AccountId) -> Result<SignedMembershipLink, ClientError> {
        let conversation = self.trust.conversation(id).ok_or(ClientError::NoSuchConversation)?;
        let removal = conversation
            .head()
            .removal(account)
            .ok_or_else(|| ClientError::NotAllowed("this account is not a member".into()))?;
        self.link(id, removal)
    }

    /// The change, checked by the chain's own rules before anything is sent.
    fn link(&self, id: &ConversationId, change: MembershipChange) -> Result<SignedMembershipLink, ClientError> {
        let conversation = self.trust.conversation(id).ok_or(ClientError::NoSuchConversation)?;
        if conversation.kind() == ConversationKind::Direct {
            return Err(ClientError::NotAllowed("a direct conversation's members are fixed".into()));
        }
        let signer = self.keys.signer(&self.own_head());
        let link = conversation.head().change(signer, vec![change], self.now_ms());
        let signed = link.sign(&self.keys.signing);
        let own = self.trust.account(&self.keys.account_id);
        conversation
            .head()
            .extend(&signed, |signer| own.and_then(|own| own.chain().signer_key(signer)))
            .map_err(|error| ClientError::NotAllowed(error.to_string()))?;
        Ok(signed)
    }

    fn member(&self, account_id: &AccountId, role: Role) -> Result<Member, ClientError> {
        Ok(Member { account_id: *account_id, fingerprint: self.fingerprint(account_id)?, role })
    }

    fn fingerprint(&self, account_id: &AccountId) -> Result<Hash, ClientError> {
        let account = self.trust.account(account_id).ok_or(ClientError::NoSuchAccount)?;
        Ok(account.chain().fingerprint())
    }
}
