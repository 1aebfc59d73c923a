//! Making a message for the wire: one content, one fork header per recipient. Pure: who the recipients are, and with which keys, is
//! decided by [`crate::device`], or by a load generator.

use martlet_protocol::{
    crypto::{SUITE_1, VerifiedPrekey},
    id::{ClientMessageId, ConversationId, Hash},
    rest::ListHead,
    suite1::{ContentKey, ForkContext, HeaderError, VERSION, fork_header, seal_content},
    wire,
};
use rand::rngs::StdRng;

use crate::identity::DeviceKeys;

/// Everything that the signed plaintext says.
pub struct Draft<'a> {
    /// Where it belongs.
    pub conversation_id: ConversationId,
    /// The membership that it is for.
    pub membership: wire::MembershipHead,
    /// The lists of all members, the sender's own included. Their devices are the recipients.
    pub list_heads: &'a [ListHead],
    /// Drawn once, the same in every retry.
    pub client_message_id: ClientMessageId,
    /// Unix milliseconds.
    pub sent_at_ms: u64,
    /// 1, 2, 3 … per device and conversation; 0 for an ephemeral message.
    pub counter: u64,
    /// Hash of the content of this device's message before; none in the first.
    pub previous: Option<Hash>,
    /// What is said.
    pub body: &'a wire::Content,
    /// 0: as long as the mailbox keeps it.
    pub lifetime_seconds: u32,
    /// 0: a message that is stored. Otherwise the end of an ephemeral one, in Unix milliseconds.
    pub ephemeral_until_ms: u64,
}

/// A message that is ready to go.
pub struct Composed {
    /// What to send, and to send again unchanged.
    pub request: wire::SendRequest,
    /// Opens the content.
    pub content_key: ContentKey,
    /// What the next message names as its predecessor.
    pub content_hash: Hash,
}

/// Encrypts a draft once and forks it to the recipients' prekeys. About 0.1 ms per recipient.
///
/// # Errors
/// [`HeaderError::Weak`] for a prekey that [`martlet_protocol::crypto::verify_prekey`] would have refused.
pub fn compose(
    keys: &DeviceKeys,
    draft: &Draft<'_>,
    recipients: &[VerifiedPrekey],
    rng: &mut StdRng,
) -> Result<Composed, HeaderError> {
    let plaintext = plaintext(keys, draft);
    let (content_key, content) = seal_content(rng, &plaintext, &keys.signing);
    let content_hash = Hash::of(&content);
    let context = ForkContext {
        conversation_id: draft.conversation_id,
        sender_account: keys.account_id,
        sender_device: keys.device_id,
        client_message_id: draft.client_message_id,
        content_hash,
    };
    let forks = recipients
        .iter()
        .map(|recipient| {
            let header = fork_header(rng, &content_key, &context, recipient)?;
            Ok(wire::Fork { device_id: recipient.device_id.to_wire(), header })
        })
        .collect::<Result<_, HeaderError>>()?;
    let lists = draft
        .list_heads
        .iter()
        .map(|head| wire::NamedList { account_id: head.account_id.to_wire(), n: head.n })
        .collect();
    let request = wire::SendRequest {
        client_message_id: draft.client_message_id.to_wire(),
        conversation_id: draft.conversation_id.to_wire(),
        suite: SUITE_1,
        membership_m: draft.membership.m,
        lists,
        content,
        forks,
        lifetime_seconds: draft.lifetime_seconds,
        group_epoch: None,
    };
    Ok(Composed { request, content_key, content_hash })
}

fn plaintext(keys: &DeviceKeys, draft: &Draft<'_>) -> wire::Plaintext {
    wire::Plaintext {
        version: u32::from(VERSION),
        suite: SUITE_1,
        body: Some(draft.body.clone()),
        client_message_id: draft.client_message_id.to_wire(),
        sent_at_ms: draft.sent_at_ms,
        conversation_id: draft.conversation_id.to_wire(),
        membership: Some(draft.membership.clone()),
        list_heads: draft.list_heads.iter().map(Into::into).collect(),
        sender_account_id: keys.account_id.to_wire(),
        sender_device_id: keys.device_id.to_wire(),
        sender_counter: draft.counter,
        previous_message_hash: draft.previous.map(Hash::to_wire).unwrap_or_default(),
        ephemeral_until_ms: draft.ephemeral_until_ms,
    }
}
