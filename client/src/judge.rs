//! Deciding whether an opened message may be believed, against the chains that are known: steps 7b to 7d of a message's way
//! (docs/PROTOCOL.md). Pure; it asks for what is missing and changes nothing.

use martlet_protocol::{
    chain::members::MembershipChain,
    id::{AccountId, Hash, InvalidText},
    rest::ListHead,
    suite1::{ForkContext, MessageKind, OpenedPlaintext},
    wire,
};

use crate::{
    identity::DeviceKeys,
    open::content_refused,
    refused::{EnvelopeField, Refused},
    trust::{Halt, Need, Trust},
};

/// A message that holds up.
pub struct Verdict {
    /// What is said.
    pub body: wire::Content,
    /// Whether it was signed as one to be stored. Who got it as the other kind must refuse it.
    pub kind: MessageKind,
    /// Unix milliseconds, by the sender's clock.
    pub sent_at_ms: u64,
    /// Per sending device and conversation.
    pub counter: u64,
    /// Hash of the content of the sender's message before.
    pub previous: Option<Hash>,
    /// The sending device has been removed by now: show it apart, act on nothing.
    pub from_removed_device: bool,
    /// Members of whom this device knows newer lists than the sender, and the number of the sender's.
    pub sender_lacks: Vec<(AccountId, u64)>,
    /// The members that it was meant for.
    pub members: Vec<AccountId>,
    /// Their lists, as the sender signed them.
    pub heads: Vec<ListHead>,
}

/// Checks signature, membership and recipients of an opened message.
///
/// # Errors
/// [`Halt::Need`] for chains that are named and not known yet; [`Halt::Refused`] by the first check that fails.
pub fn judge(
    trust: &Trust,
    keys: &DeviceKeys,
    context: &ForkContext,
    opened: &OpenedPlaintext,
) -> Result<Verdict, Halt> {
    let plaintext = &opened.plaintext;
    let heads = list_heads(plaintext)?;
    let membership = membership(trust, context, plaintext)?;
    if !membership.members.contains_key(&context.sender_account) {
        return Err(Refused::SenderNotMember.into());
    }
    check_sender(trust, context, &heads, opened)?;
    check_recipients(trust, &membership, &heads)?;
    check_own_device(trust, keys, &heads)?;

    let sender = trust.account(&context.sender_account).ok_or(Refused::SenderNotListed)?;
    let sender_lacks = heads
        .iter()
        .filter(|head| trust.account(&head.account_id).is_some_and(|known| known.chain().n() > head.n))
        .map(|head| (head.account_id, head.n))
        .collect();
    Ok(Verdict {
        body: plaintext.body.clone().ok_or(Refused::PlaintextUnreadable)?,
        kind: opened.kind().map_err(content_refused)?,
        sent_at_ms: plaintext.sent_at_ms,
        counter: plaintext.sender_counter,
        previous: previous(plaintext)?,
        from_removed_device: sender.chain().device(&context.sender_device).is_none(),
        sender_lacks,
        members: membership.members.keys().copied().collect(),
        heads,
    })
}

/// The membership that the message names, which must be one that is known.
fn membership(trust: &Trust, context: &ForkContext, plaintext: &wire::Plaintext) -> Result<MembershipChain, Halt> {
    let named = plaintext.membership.as_ref().ok_or(Refused::PlaintextUnreadable)?;
    let conversation_id = context.conversation_id;
    let known_m = trust.conversation(&conversation_id).map_or(0, |known| known.head().m);
    if named.m > known_m {
        return Err(Halt::Need(Need::Membership { conversation_id, after: known_m }));
    }
    let state = trust.membership_at(&conversation_id, named.m).ok_or(Refused::MembershipRolledBack)?;
    if state.hash.as_bytes().as_slice() == named.hash { Ok(state) } else { Err(Refused::MembershipForked.into()) }
}

/// The signature comes first: before it holds, nothing that the plaintext says is a reason to fetch other accounts' lists.
fn check_sender(
    trust: &Trust,
    context: &ForkContext,
    heads: &[ListHead],
    opened: &OpenedPlaintext,
) -> Result<(), Halt> {
    let head = heads.iter().find(|head| head.account_id == context.sender_account).ok_or(Refused::RecipientsWrong)?;
    trust.check_head(head)?;
    let list = trust.account(&head.account_id).and_then(|account| account.chain().list_of(head));
    let device = list.and_then(|list| list.device(&context.sender_device)).ok_or(Refused::SenderNotListed)?;
    opened.verify(&device.signing_key).map_err(content_refused)?;
    if !device.suites.contains(&opened.plaintext.suite) {
        return Err(Refused::EnvelopeAltered(EnvelopeField::Suite).into());
    }
    Ok(())
}

/// The lists named must be of exactly the members, each the pinned one.
fn check_recipients(trust: &Trust, membership: &MembershipChain, heads: &[ListHead]) -> Result<(), Halt> {
    let mut named: Vec<_> = heads.iter().map(|head| head.account_id).collect();
    named.sort();
    if !named.iter().eq(membership.members.keys()) {
        return Err(Refused::RecipientsWrong.into());
    }
    for head in heads {
        trust.check_head(head)?;
        let pinned = trust.account(&head.account_id).map(|account| account.chain().fingerprint());
        let meant = membership.members.get(&head.account_id).map(|member| member.fingerprint);
        if pinned != meant {
            return Err(Refused::FingerprintChanged.into());
        }
    }
    Ok(())
}

/// A message that was encrypted to this device by mistake or malice, without its account's list saying so, is not for it.
fn check_own_device(trust: &Trust, keys: &DeviceKeys, heads: &[ListHead]) -> Result<(), Halt> {
    let own = heads.iter().find(|head| head.account_id == keys.account_id).ok_or(Refused::NotARecipient)?;
    let list = trust.account(&keys.account_id).and_then(|account| account.chain().list_of(own));
    let listed = list.and_then(|list| list.device(&keys.device_id)).ok_or(Refused::NotARecipient)?;
    if keys.is_listed_as(listed) { Ok(()) } else { Err(Refused::NotARecipient.into()) }
}

fn list_heads(plaintext: &wire::Plaintext) -> Result<Vec<ListHead>, Refused> {
    let heads: Result<Vec<ListHead>, InvalidText> = plaintext.list_heads.iter().map(TryInto::try_into).collect();
    heads.map_err(|_| Refused::PlaintextUnreadable)
}

fn previous(plaintext: &wire::Plaintext) -> Result<Option<Hash>, Refused> {
    match plaintext.previous_message_hash.as_ref() {
        [] => Ok(None),
        hash => Hash::try_from(hash).map(Some).map_err(|_| Refused::PlaintextUnreadable),
    }
}
