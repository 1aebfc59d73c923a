//! How things look on the terminal.

use martlet_client::{Client, Event, StoredMessage, client::ConversationView};
use martlet_protocol::{
    id::{AccountId, Hash},
    rest::{ConversationKind, Role},
    wire::{PresenceStatus, ReceiptKind, content::Body},
};

const DAY_SECONDS: u64 = 24 * 60 * 60;
/// Letters of an id that are shown where people only tell apart.
pub const SHORT: usize = 8;

/// The first letters of an id.
pub fn short(text: &str) -> &str {
    text.get(..SHORT).unwrap_or(text)
}

/// `hh:mm:ss`, in UTC.
pub fn clock(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000 % DAY_SECONDS;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Digits or letters in groups of five.
pub fn grouped(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    letters.chunks(5).map(String::from_iter).collect::<Vec<_>>().join(" ")
}

/// A fingerprint for people.
pub fn fingerprint(hash: &Hash) -> String {
    grouped(short_of(&hash.to_text()))
}

fn short_of(text: &str) -> &str {
    text.get(..20).unwrap_or(text)
}

/// A role in a word.
pub const fn role(role: Role) -> &'static str {
    match role {
        Role::Member => "member",
        Role::Admin => "admin",
        Role::Owner => "owner",
    }
}

/// A conversation in a line.
pub fn conversation(view: &ConversationView) -> String {
    let kind = match view.kind {
        ConversationKind::Direct => "direct",
        ConversationKind::Group => "group",
        ConversationKind::Large => "large",
    };
    let members: Vec<String> = view
        .members
        .iter()
        .map(|member| {
            let name = member.username.clone().unwrap_or_else(|| short(&member.account_id.to_text()).to_owned());
            if member.role == Role::Member { name } else { format!("{name} ({})", role(member.role)) }
        })
        .collect();
    let title = view.title.as_deref().map(|title| format!("{title:?} ")).unwrap_or_default();
    let gone = if view.gone { " (left)" } else { "" };
    format!("{}  {kind:6} {title}{}{gone}", view.id.to_text(), members.join(", "))
}

/// A message in a line.
pub fn message(client: &Client, message: &StoredMessage) -> String {
    let sender = name(client, &message.sender_account);
    let apart = if message.apart { " [from a REMOVED device]" } else { "" };
    format!(
        "{} {} {sender}{apart}: {}",
        clock(message.sent_at_ms),
        short(&message.conversation_id.to_text()),
        content(message)
    )
}

fn name(client: &Client, account_id: &AccountId) -> String {
    let known = client.device(|device| device.name_of(account_id));
    known.unwrap_or_else(|| short(&account_id.to_text()).to_owned())
}

fn content(message: &StoredMessage) -> String {
    match message.content().body {
        Some(Body::Text(text)) => text.text,
        Some(Body::Attachment(file)) => format!("[file {:?}, {} bytes]", file.file_name, file.size_bytes),
        Some(Body::Receipt(receipt)) => {
            let what = if receipt.kind() == ReceiptKind::Read { "read" } else { "received" };
            format!("[has {what} {} messages]", receipt.messages.len())
        }
        Some(Body::Edit(edit)) => format!("[edit: {}]", edit.text),
        Some(Body::Delete(_)) => "[deletes a message]".to_owned(),
        Some(Body::Reaction(reaction)) => format!("[reacts {}]", reaction.emoji),
        Some(Body::Timer(timer)) => format!("[messages now live {} s]", timer.lifetime_seconds),
        Some(Body::ConversationInfo(info)) => format!("[the title is {:?}]", info.title),
        Some(
            Body::ChainLinks(_)
            | Body::ResendRequest(_)
            | Body::Resent(_)
            | Body::Typing(_)
            | Body::CallSignal(_)
            | Body::Presence(_),
        )
        | None => "[nothing to read]".to_owned(),
    }
}

/// Events that people should hear of besides messages.
pub fn event(client: &Client, event: &Event) -> Option<String> {
    Some(match event {
        Event::Typing { conversation_id, account_id, started: true, .. } => {
            format!("… {} types in {}", name(client, account_id), short(&conversation_id.to_text()))
        }
        Event::Presence { account_id, status, .. } => match status {
            PresenceStatus::Online => format!("- {} is there", name(client, account_id)),
            PresenceStatus::Away => format!("- {} is away", name(client, account_id)),
            PresenceStatus::Offline => format!("- {} has left", name(client, account_id)),
            PresenceStatus::Unspecified => return None,
        },
        Event::Refused { refused, .. } => format!("! refused: {refused}"),
        Event::SendHeld { refused, .. } => format!("! not sent: {refused}"),
        Event::SendFailed { why, .. } => format!("! not sent: {why}"),
        Event::Gap(gap) => format!("! {} entries are gone ({})", gap.count, gap.reason().as_str_name()),
        Event::Dropped { count, .. } => format!("! {count} messages of a device are missing here"),
        Event::Reordered { .. } => "! a message came after a later one of the same device".to_owned(),
        Event::HistoryDiffers { .. } => "! a device's messages don't follow one another".to_owned(),
        Event::DevicesChanged { added, removed, .. } => {
            format!("- an account's devices changed: {} more, {} less", added.len(), removed.len())
        }
        Event::LeftOut { devices } => format!("- {} devices get nothing for now", devices.len()),
        Event::MembershipChanged { conversation_id } => {
            format!("- who is in {} changed", short(&conversation_id.to_text()))
        }
        Event::StreamRestarted => "- the server was restored; everything is read again".to_owned(),
        Event::Disconnected { retry_in_ms, why } => format!("- offline ({why}); again in {retry_in_ms} ms"),
        Event::Ended { why } => format!("! {why}"),
        Event::Message(_)
        | Event::Receipt { .. }
        | Event::Typing { .. }
        | Event::CallSignal { .. }
        | Event::Sent { .. }
        | Event::Connected { .. }
        | Event::CaughtUp => return None,
    })
}
