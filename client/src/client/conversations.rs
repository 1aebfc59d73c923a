//! Conversations: creating, listing, changing who is in them. Nothing is shown that the signed membership doesn't bear out.

use martlet_protocol::{
    id::{AccountId, ConversationId},
    problem::Code,
    rest::{self, ConversationKind, Role, SignedMembershipLink},
    wire::{self, content::Body},
};

use super::{Client, body};
use crate::{
    device::{Device, NewConversation},
    error::ClientError,
    event::Event,
    refused::Refused,
    secret::Secret,
    title::seal_title,
    trust::{Halt, Need},
};

/// How often a link is rebased onto a membership or a device list that came first.
const MAX_REBASES: usize = 5;

/// A conversation for people to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationView {
    /// Which.
    pub id: ConversationId,
    /// Direct or group.
    pub kind: ConversationKind,
    /// As a member told it.
    pub title: Option<String>,
    /// Number of the newest membership link.
    pub m: u64,
    /// Everybody in it.
    pub members: Vec<MemberView>,
    /// This account is no member any more.
    pub gone: bool,
}

/// A member for people to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// Who.
    pub account_id: AccountId,
    /// The name it was looked up by, if it was.
    pub username: Option<String>,
    /// What it may do.
    pub role: Role,
}

impl Client {
    /// Creates a direct conversation, or finds the one that exists.
    ///
    /// # Errors
    /// [`ClientError::NoSuchAccount`] for an account that was not looked up, a problem.
    pub async fn create_direct(&self, with: AccountId) -> Result<ConversationId, ClientError> {
        match self.create(NewConversation::Direct(with), None).await {
            Err(ClientError::Problem(problem)) if problem.code == Code::ConversationExists.as_str() => {
                let id = problem.conversation_id.ok_or(ClientError::Problem(problem))?;
                self.refresh_conversation(id).await?;
                // A server could name another conversation here.
                let is_theirs = self.device(|device| {
                    device.trust().conversation(&id).is_some_and(|known| {
                        known.kind() == ConversationKind::Direct && known.head().members.contains_key(&with)
                    })
                });
                if is_theirs { Ok(id) } else { Err(Refused::RecipientsWrong.into()) }
            }
            other => other,
        }
    }

    /// Creates a group, whose owner this account is.
    ///
    /// # Errors
    /// [`ClientError::NoSuchAccount`] for an account that was not looked up, a problem.
    pub async fn create_group(
        &self,
        members: &[(AccountId, Role)],
        title: Option<&str>,
    ) -> Result<ConversationId, ClientError> {
        self.create(NewConversation::Group(members.to_vec()), title).await
    }

    async fn create(&self, new: NewConversation, title: Option<&str>) -> Result<ConversationId, ClientError> {
        for _ in 0..MAX_REBASES {
            match self.try_create(&new, title).await {
                // Another device of this account changed its list; the link has to name the newest.
                Err(error) if error.code() == Some(Code::DeviceListConflict) => self.refresh_own_list().await?,
                other => return other,
            }
        }
        Err(ClientError::NotAllowed("the device list keeps changing; try again".into()))
    }

    async fn try_create(&self, new: &NewConversation, title: Option<&str>) -> Result<ConversationId, ClientError> {
        let (id, creation, key, sealed) = self.device(|device| -> Result<_, ClientError> {
            let (id, creation) = device.creation_link(new)?;
            let key = Secret::random(device.rng());
            let sealed = title.map(|title| seal_title(&key, &id, title, device.rng()).into());
            Ok((id, creation, key, sealed))
        })?;
        let create = rest::CreateConversation { creation: creation.clone(), title: sealed };
        let created = self.inner.api.create_conversation(&create).await?;
        if created.conversation_id != id {
            return Err(ClientError::BadAnswer("it names another conversation".into()));
        }
        self.take_links(id, &[creation]).await?;
        if let Some(title) = title {
            self.tell_title(id, title, &key)?;
        }
        Ok(id)
    }

    fn tell_title(&self, id: ConversationId, title: &str, key: &Secret) -> Result<(), ClientError> {
        self.device(|device| device.set_title(&id, title));
        let title_key = bytes::Bytes::copy_from_slice(key.expose());
        let info = wire::ConversationInfo { title_key, title: title.to_owned() };
        self.send(id, &body(Body::ConversationInfo(info))).map(drop)
    }

    /// Gets every conversation that the server says this account is in, and checks its membership.
    ///
    /// # Errors
    /// [`ClientError::Refused`] by the first chain that doesn't hold, a problem.
    pub async fn sync_conversations(&self) -> Result<Vec<ConversationView>, ClientError> {
        let mut cursor = None;
        loop {
            let page = self.inner.api.conversations(cursor.as_deref()).await?;
            for shown in &page.items {
                self.compare(shown).await?;
            }
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(self.conversations());
            }
        }
    }

    /// Brings one conversation up to what the server shows, which must extend what is known.
    async fn compare(&self, shown: &rest::Conversation) -> Result<(), ClientError> {
        let id = shown.conversation_id;
        let known =
            self.device(|device| device.trust().conversation(&id).map(|known| (known.head().m, known.head().hash)));
        match known {
            Some((m, _)) if m > shown.membership_m => return Err(Refused::MembershipRolledBack.into()),
            Some((m, hash)) if m == shown.membership_m => {
                return if hash == shown.membership_hash { Ok(()) } else { Err(Refused::MembershipForked.into()) };
            }
            _ => {}
        }
        self.refresh_conversation(id).await
    }

    /// Gets a conversation's new membership links.
    ///
    /// # Errors
    /// [`ClientError::Refused`], a problem.
    pub async fn refresh_conversation(&self, id: ConversationId) -> Result<(), ClientError> {
        let need = self.device(|device| device.membership_need(id));
        Ok(self.fetch(need).await?)
    }

    /// All conversations that are known here, without asking the server.
    #[must_use]
    pub fn conversations(&self) -> Vec<ConversationView> {
        self.device(|device| {
            let trust = device.trust();
            trust.conversations().filter_map(|known| view(device, &known.id())).collect()
        })
    }

    /// Adds an account that was looked up before.
    ///
    /// # Errors
    /// [`ClientError::NotAllowed`], [`ClientError::NoSuchAccount`], a problem.
    pub async fn add_member(&self, id: ConversationId, account: AccountId, role: Role) -> Result<(), ClientError> {
        self.change(id, |device| device.link_add(&id, &account, role)).await?;
        let title = self.device(|device| device.trust().conversation(&id).and_then(|known| known.title.clone()));
        if let Some(title) = title {
            let info = wire::ConversationInfo { title_key: bytes::Bytes::new(), title };
            self.send(id, &body(Body::ConversationInfo(info)))?;
        }
        Ok(())
    }

    /// Removes a member.
    ///
    /// # Errors
    /// [`ClientError::NotAllowed`], a problem.
    pub async fn remove_member(&self, id: ConversationId, account: AccountId) -> Result<(), ClientError> {
        self.change(id, |device| device.link_remove(&id, &account)).await
    }

    /// Leaves a group.
    ///
    /// # Errors
    /// [`ClientError::NotAllowed`] for the last owner while others stay, a problem.
    pub async fn leave(&self, id: ConversationId) -> Result<(), ClientError> {
        let own = self.account_id();
        self.change(id, |device| device.link_remove(&id, &own)).await
    }

    /// Gives a member another role.
    ///
    /// # Errors
    /// [`ClientError::NotAllowed`], a problem.
    pub async fn set_role(&self, id: ConversationId, account: AccountId, role: Role) -> Result<(), ClientError> {
        self.change(id, |device| device.link_set_role(&id, &account, role)).await
    }

    async fn change(
        &self,
        id: ConversationId,
        make: impl Fn(&Device) -> Result<SignedMembershipLink, ClientError>,
    ) -> Result<(), ClientError> {
        for _ in 0..MAX_REBASES {
            let link = self.device(|device| make(device))?;
            let change = rest::ChangeMembership { link: link.clone() };
            match self.inner.api.change_membership(id, &change).await {
                Ok(()) => return self.take_links(id, &[link]).await,
                Err(ClientError::Problem(problem)) if problem.code == Code::MembershipConflict.as_str() => {
                    self.take_links(id, &problem.membership).await?;
                }
                Err(error) if error.code() == Some(Code::DeviceListConflict) => self.refresh_own_list().await?,
                Err(error) => return Err(error),
            }
        }
        Err(ClientError::NotAllowed("the membership keeps changing; try again".into()))
    }

    async fn take_links(&self, id: ConversationId, links: &[SignedMembershipLink]) -> Result<(), ClientError> {
        let mut met: Option<Need> = None;
        loop {
            let taken = self.device(|device| {
                let taken = device.absorb_membership(&id, links);
                device.commit().map(|()| taken)
            })?;
            match taken {
                Ok(_) => break,
                Err(Halt::Refused(refused)) => return Err(refused.into()),
                Err(Halt::Need(need)) if met == Some(need) => return Err(Refused::ChainWithheld.into()),
                Err(Halt::Need(need)) => {
                    met = Some(need);
                    self.fetch(need).await?;
                }
            }
        }
        self.emit([Event::MembershipChanged { conversation_id: id }]).await;
        Ok(())
    }
}

fn view(device: &Device, id: &ConversationId) -> Option<ConversationView> {
    let known = device.trust().conversation(id)?;
    let members = known
        .head()
        .members
        .iter()
        .map(|(account_id, member)| MemberView {
            account_id: *account_id,
            username: device.name_of(account_id),
            role: member.role,
        })
        .collect();
    Some(ConversationView {
        id: *id,
        kind: known.kind(),
        title: known.title.clone(),
        m: known.head().m,
        members,
        gone: known.gone,
    })
}
