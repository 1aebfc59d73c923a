//! A send request as the journey carries it: every field of the right length and within the limits.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use martlet_protocol::{
    id::{AccountId, ClientMessageId, ConversationId, DeviceId},
    wire,
};
use martlet_storage::sends::GroupEpoch;

use super::SendError;
use crate::config::Config;

/// A parsed [`wire::SendRequest`].
pub struct Request {
    pub client_message_id: ClientMessageId,
    pub conversation_id: ConversationId,
    pub suite: u32,
    pub membership_m: u64,
    /// The list number that the sender encrypted for, by account.
    pub lists: HashMap<AccountId, u64>,
    pub content: Bytes,
    /// Headers by device.
    pub forks: HashMap<DeviceId, Bytes>,
    /// `None`: as long as mailboxes or logs keep, or as long as an ephemeral message may live.
    pub lifetime_s: Option<u64>,
    /// Of a large conversation only.
    pub group_epoch: Option<GroupEpoch>,
}

impl Request {
    /// Checks form and sizes of a message that is to be stored. How long it may live and what it may carry depends on where it goes:
    /// [`Self::check_forked`], [`Self::check_appended`].
    ///
    /// # Errors
    /// `Malformed`, `TooLarge`.
    pub fn parse(request: wire::SendRequest, config: &Config) -> Result<Self, SendError> {
        Self::parse_within(request, config, config.messages.max_content_bytes)
    }

    /// The same for an ephemeral one.
    ///
    /// # Errors
    /// `Malformed`, `TooLarge`, `LifetimeInvalid`.
    pub fn parse_ephemeral(request: wire::SendRequest, config: &Config) -> Result<Self, SendError> {
        let messages = &config.messages;
        let request =
            Self::parse_within(request, config, messages.max_ephemeral_bytes.min(messages.max_content_bytes))?;
        request.check_lifetime(messages.ephemeral_lifetime)?;
        Ok(request)
    }

    /// Of a message that goes to mailboxes.
    ///
    /// # Errors
    /// `Malformed`, `LifetimeInvalid`.
    pub fn check_forked(&self, config: &Config) -> Result<(), SendError> {
        if self.group_epoch.is_some() {
            return Err(SendError::Malformed("only a large conversation has a group_epoch"));
        }
        self.check_lifetime(config.mailbox.retention)
    }

    /// Of a message that goes to a log.
    ///
    /// # Errors
    /// `Malformed`, `LifetimeInvalid`.
    pub fn check_appended(&self, config: &Config) -> Result<(), SendError> {
        if !self.forks.is_empty() || !self.lists.is_empty() {
            return Err(SendError::Malformed("a message to a large conversation has neither forks nor lists"));
        }
        self.check_lifetime(config.logs.retention)
    }

    fn check_lifetime(&self, most: Duration) -> Result<(), SendError> {
        let allowed_s = most.as_secs();
        match self.lifetime_s {
            Some(given_s) if given_s > allowed_s => Err(SendError::LifetimeInvalid { given_s, allowed_s }),
            _ => Ok(()),
        }
    }

    fn parse_within(request: wire::SendRequest, config: &Config, max_content_bytes: usize) -> Result<Self, SendError> {
        let limits = &config.messages;
        within("content", request.content.len(), max_content_bytes)?;
        within("forks", request.forks.len(), limits.max_forks_per_send)?;
        within("lists", request.lists.len(), limits.max_forks_per_send)?;
        if request.content.is_empty() {
            return Err(SendError::Malformed("content is empty"));
        }
        if request.suite == 0 {
            return Err(SendError::Malformed("suite is missing"));
        }
        Ok(Self {
            client_message_id: id(&request.client_message_id, "client_message_id is not 16 bytes")?,
            conversation_id: id(&request.conversation_id, "conversation_id is not 32 bytes")?,
            suite: request.suite,
            membership_m: request.membership_m,
            lists: lists(&request.lists)?,
            content: request.content,
            forks: forks(request.forks, limits.max_header_bytes)?,
            lifetime_s: (request.lifetime_seconds > 0).then_some(u64::from(request.lifetime_seconds)),
            group_epoch: request
                .group_epoch
                .map(|wire::GroupEpoch { current, advance }| GroupEpoch { current, advances: advance }),
        })
    }
}

fn lists(named: &[wire::NamedList]) -> Result<HashMap<AccountId, u64>, SendError> {
    let mut lists = HashMap::with_capacity(named.len());
    for list in named {
        let account_id = id(&list.account_id, "a list's account_id is not 16 bytes")?;
        if lists.insert(account_id, list.n).is_some() {
            return Err(SendError::Malformed("an account is named twice in lists"));
        }
    }
    Ok(lists)
}

fn forks(forks: Vec<wire::Fork>, max_header_bytes: usize) -> Result<HashMap<DeviceId, Bytes>, SendError> {
    let mut headers = HashMap::with_capacity(forks.len());
    for fork in forks {
        let device_id = id(&fork.device_id, "a fork's device_id is not 16 bytes")?;
        within("a fork's header", fork.header.len(), max_header_bytes)?;
        if fork.header.first().is_none_or(|kind| *kind == 0) {
            return Err(SendError::Malformed("a fork's header is empty or marked as an echo"));
        }
        if headers.insert(device_id, fork.header).is_some() {
            return Err(SendError::Malformed("a device has two forks"));
        }
    }
    Ok(headers)
}

fn within(what: &'static str, given: usize, allowed: usize) -> Result<(), SendError> {
    if given > allowed { Err(SendError::TooLarge { what, given, allowed }) } else { Ok(()) }
}

fn id<T: for<'a> TryFrom<&'a [u8]>>(field: &Bytes, wrong: &'static str) -> Result<T, SendError> {
    T::try_from(field.as_ref()).map_err(|_| SendError::Malformed(wrong))
}
