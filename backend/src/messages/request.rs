//! A send request as the journey carries it: every field of the right length and within the limits.

use std::collections::HashMap;

use bytes::Bytes;
use martlet_protocol::{
    id::{AccountId, ClientMessageId, ConversationId, DeviceId},
    wire,
};

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
    /// `None`: as long as mailboxes keep, or as long as an ephemeral message may live.
    pub lifetime_s: Option<u64>,
}

/// What a request may be at most, by its kind.
struct Most {
    content_bytes: usize,
    lifetime_s: u64,
}

impl Request {
    /// Checks form and limits of a message that is to be stored.
    ///
    /// # Errors
    /// `Malformed`, `TooLarge`, `LifetimeInvalid`.
    pub fn parse(request: wire::SendRequest, config: &Config) -> Result<Self, SendError> {
        let most =
            Most { content_bytes: config.messages.max_content_bytes, lifetime_s: config.mailbox.retention.as_secs() };
        Self::parse_within(request, config, &most)
    }

    /// The same for an ephemeral one.
    ///
    /// # Errors
    /// `Malformed`, `TooLarge`, `LifetimeInvalid`.
    pub fn parse_ephemeral(request: wire::SendRequest, config: &Config) -> Result<Self, SendError> {
        let messages = &config.messages;
        let most = Most {
            content_bytes: messages.max_ephemeral_bytes.min(messages.max_content_bytes),
            lifetime_s: messages.ephemeral_lifetime.as_secs(),
        };
        Self::parse_within(request, config, &most)
    }

    fn parse_within(request: wire::SendRequest, config: &Config, most: &Most) -> Result<Self, SendError> {
        let limits = &config.messages;
        within("content", request.content.len(), most.content_bytes)?;
        within("forks", request.forks.len(), limits.max_forks_per_send)?;
        within("lists", request.lists.len(), limits.max_forks_per_send)?;
        if request.content.is_empty() {
            return Err(SendError::Malformed("content is empty"));
        }
        if request.suite == 0 {
            return Err(SendError::Malformed("suite is missing"));
        }
        let lifetime_s = (request.lifetime_seconds > 0).then_some(u64::from(request.lifetime_seconds));
        if let Some(given_s) = lifetime_s.filter(|given_s| *given_s > most.lifetime_s) {
            return Err(SendError::LifetimeInvalid { given_s, allowed_s: most.lifetime_s });
        }
        Ok(Self {
            client_message_id: id(&request.client_message_id, "client_message_id is not 16 bytes")?,
            conversation_id: id(&request.conversation_id, "conversation_id is not 32 bytes")?,
            suite: request.suite,
            membership_m: request.membership_m,
            lists: lists(&request.lists)?,
            content: request.content,
            forks: forks(request.forks, limits.max_header_bytes)?,
            lifetime_s,
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
