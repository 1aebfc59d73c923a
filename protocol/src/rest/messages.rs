//! Sending over REST: the same request and answers as the socket's frames.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AccountLists, DeviceBundle, GroupEpoch, ListHead, SignedMembershipLink, trust::wire_ids};
use crate::{
    id::{AccountId, Blob, ClientMessageId, ConversationId, DeviceId, InvalidText, MessageId},
    wire,
};

/// Body of `POST /v1/conversations/{conversation_id}/messages`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SendRequest {
    /// Drawn by the device; the same in every retry.
    pub client_message_id: ClientMessageId,
    /// The suite of content and headers.
    pub suite: u32,
    /// The membership link encrypted for; of a large conversation it may be left out and is not compared then.
    #[serde(default)]
    pub membership_m: u64,
    /// The list encrypted for, of every member account; of a large conversation none.
    #[serde(default)]
    pub lists: Vec<NamedList>,
    /// One ciphertext for all.
    pub content: Blob,
    /// One header per recipient device; of a large conversation none.
    #[serde(default)]
    pub forks: Vec<Fork>,
    /// 0: as long as the mailbox or log keeps it.
    #[serde(default)]
    pub lifetime_seconds: u32,
    /// Of a large conversation only. Absent: no epoch is compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_epoch: Option<GroupEpoch>,
}

/// An account's list by number.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NamedList {
    /// Whose.
    pub account_id: AccountId,
    /// Number of the list.
    pub n: u64,
}

/// What one device gets besides the content.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Fork {
    /// For which device.
    pub device_id: DeviceId,
    /// Opaque to the node.
    pub header: Blob,
}

impl SendRequest {
    /// As the socket would carry it.
    #[must_use]
    pub fn into_wire(self, conversation_id: ConversationId) -> wire::SendRequest {
        wire::SendRequest {
            client_message_id: self.client_message_id.to_wire(),
            conversation_id: conversation_id.to_wire(),
            suite: self.suite,
            membership_m: self.membership_m,
            lists: self
                .lists
                .iter()
                .map(|list| wire::NamedList { account_id: list.account_id.to_wire(), n: list.n })
                .collect(),
            content: self.content.0,
            forks: self
                .forks
                .into_iter()
                .map(|fork| wire::Fork { device_id: fork.device_id.to_wire(), header: fork.header.0 })
                .collect(),
            lifetime_seconds: self.lifetime_seconds,
            group_epoch: self.group_epoch.map(|GroupEpoch { current, advance }| wire::GroupEpoch { current, advance }),
        }
    }
}

/// The message is committed for every device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Accepted {
    /// The same in every device's entry.
    pub message_id: MessageId,
    /// Unix milliseconds.
    pub accepted_at_ms: u64,
    /// Devices whose mailbox was full: each got a durable gap marker instead.
    #[serde(default, rename = "partial")]
    pub partial_device_ids: Vec<DeviceId>,
    /// Of a large conversation: where the message stands in its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_seq: Option<u64>,
}

impl TryFrom<&wire::Accepted> for Accepted {
    type Error = InvalidText;

    fn try_from(accepted: &wire::Accepted) -> Result<Self, InvalidText> {
        Ok(Self {
            message_id: accepted.message_id.as_ref().try_into()?,
            accepted_at_ms: accepted.accepted_at_ms,
            partial_device_ids: wire_ids(&accepted.partial_device_ids)?,
            log_seq: (accepted.log_seq > 0).then_some(accepted.log_seq),
        })
    }
}

/// Nothing was stored: what the sender named is not what the node has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mismatch {
    /// Devices that need a fork, with keys to make it.
    pub missing: Vec<DeviceBundle>,
    /// Devices that must not get one.
    pub extra: Vec<DeviceId>,
    /// Accounts whose list number was not the current one, or not named.
    pub stale: Vec<ListHead>,
    /// For each stale account, the lists after the one named.
    pub lists: Vec<AccountLists>,
    /// Membership links after the one named.
    pub membership: Vec<SignedMembershipLink>,
}

impl TryFrom<&wire::Mismatch> for Mismatch {
    type Error = InvalidText;

    fn try_from(mismatch: &wire::Mismatch) -> Result<Self, InvalidText> {
        Ok(Self {
            missing: mismatch.missing.iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            extra: wire_ids(&mismatch.extra_device_ids)?,
            stale: mismatch.stale.iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            lists: mismatch.lists.iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            membership: mismatch.membership.iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}
