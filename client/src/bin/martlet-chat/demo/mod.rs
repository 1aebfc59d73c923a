//! The demo: two accounts with three and two devices, on a node that it starts itself, with every step shown and checked.
//!
//! It does nothing that the SDK's public calls can't. Every step first looks whether it is done, so that with `--home` an interrupted
//! demo goes on where it was: what was handed over is in the outboxes, what was read is in the histories.

mod cast;
mod node;
mod verify;

use std::{path::Path, time::Duration};

use anyhow::{Context as _, bail};
use martlet_client::Client;
use martlet_protocol::{
    id::ConversationId,
    wire::{self, content::Body},
};
use prost::Message as _;

use crate::args::{DemoOptions, Place};
use cast::{Cast, Player};
use node::Node;

/// Who plays: account, device, and the device that lets it in.
const CAST: [(&str, &str); 5] =
    [("alice", "laptop"), ("alice", "phone"), ("alice", "tablet"), ("bob", "phone"), ("bob", "desktop")];
const KILLED: (&str, &str) = ("alice", "phone");
const REVOKED: (&str, &str) = ("alice", "tablet");
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// Runs the demo to its end; only a verified end is a good one.
pub async fn run(options: DemoOptions, place: &Place) -> anyhow::Result<()> {
    let temporary = tempfile::tempdir()?;
    let home = place.home.clone().unwrap_or_else(|| temporary.path().to_owned());
    heading("A node, and nothing else");
    let node = match &place.server {
        Some(server) => Node::existing(server),
        None => Node::start(&home.join("node"), options.verbose).await?,
    };
    println!("  serves at {}, data in {}", node.address, home.display());
    let outcome = play(&options, &home, &node).await;
    node.stop();
    outcome?;
    heading("Verified");
    println!("  Every device read everything that was meant for it, once, in order. The server read nothing.");
    Ok(())
}

async fn play(options: &DemoOptions, home: &Path, node: &Node) -> anyhow::Result<()> {
    let mut cast = Cast::gather(home, &node.address).await?;
    let conversation = meet(&cast).await?;
    cast.start_all();

    heading("Messages both ways, from every device");
    say(&cast, conversation, 1, options.messages)?;
    cast.wait_until_read(conversation, expected(1..=1, options.messages)).await?;
    verify::show_nodes(&cast);
    verify::show_part(&cast, conversation, 1)?;

    heading("A device dies in the middle, and comes back");
    let is_new = !cast.has_read_all(KILLED, conversation, &expected(1..=2, options.messages))?;
    if is_new {
        say_and_kill(&mut cast, conversation, options.messages).await?;
    }
    cast.revive(KILLED, home, &node.address).await?;
    cast.wait_until_read(conversation, expected(1..=2, options.messages)).await?;
    verify::show_part(&cast, conversation, 2)?;

    heading("A device is revoked");
    revoke(&cast).await?;
    say(&cast, conversation, 3, options.messages)?;
    cast.wait_until_read(conversation, expected(1..=3, options.messages)).await?;
    verify::show_part(&cast, conversation, 3)?;
    verify::check(&cast, conversation, options.messages)?;
    cast.stop_all().await;
    Ok(())
}

/// Alice and Bob look each other up and get a conversation.
async fn meet(cast: &Cast) -> anyhow::Result<ConversationId> {
    heading("They meet");
    let alice = cast.client(CAST[0])?;
    let bob = cast.client(CAST[3])?;
    let contact = alice.look_up(&bob.device(|device| device.username().to_owned())).await?;
    bob.look_up(&alice.device(|device| device.username().to_owned())).await?;
    let conversation = alice.create_direct(contact.account_id).await?;
    for player in cast.players() {
        let client = player.client()?;
        if client.device(|device| device.trust().conversation(&conversation).is_none()) {
            client.sync_conversations().await?;
        }
    }
    let numbers = (alice.safety_number(&bob.account_id())?, bob.safety_number(&alice.account_id())?);
    if numbers.0 != numbers.1 {
        bail!("the safety numbers differ");
    }
    println!("  conversation {}…", crate::show::short(&conversation.to_text()));
    println!("  both see the safety number {} …", crate::show::grouped(&numbers.0[..20]));
    Ok(conversation)
}

/// What a device says in a part, by which the history is checked.
fn text(device: (&str, &str), part: usize, number: usize) -> String {
    format!("part {part}, message {number} from {}'s {}", device.0, device.1)
}

/// Who speaks in a part: the killed device is away in the second, the revoked one in the third.
fn speakers(part: usize) -> impl Iterator<Item = (&'static str, &'static str)> {
    let away = match part {
        2 => Some(KILLED),
        3 => Some(REVOKED),
        _ => None,
    };
    CAST.into_iter().filter(move |device| Some(*device) != away)
}

fn expected(parts: std::ops::RangeInclusive<usize>, messages: usize) -> Vec<String> {
    parts
        .flat_map(|part| speakers(part).map(move |device| (device, part)))
        .flat_map(|(device, part)| (1..=messages).map(move |number| text(device, part, number)))
        .collect()
}

/// Hands over what every speaker of a part has not handed over yet.
fn say(cast: &Cast, conversation: ConversationId, part: usize, messages: usize) -> anyhow::Result<()> {
    for number in 1..=messages {
        for device in speakers(part) {
            let client = cast.client(device)?;
            let text = text(device, part, number);
            if !has_said(client, &text)? {
                client.send_text(conversation, &text)?;
            }
        }
    }
    Ok(())
}

fn has_said(client: &Client, text: &str) -> anyhow::Result<bool> {
    let own = client.device(|device| device.device_id());
    let said =
        client.history(0, usize::MAX)?.iter().any(|m| m.sender_device == own && m.text().as_deref() == Some(text));
    let waits = client.device(|device| {
        device.outgoings().any(|outgoing| {
            let content = wire::Content::decode(outgoing.body.0.clone()).unwrap_or_default();
            matches!(content.body, Some(Body::Text(waiting)) if waiting.text == text)
        })
    });
    Ok(said || waits)
}

/// Lets the others speak, pulls the plug of one device as soon as it has read something of it, and lets them speak on.
async fn say_and_kill(cast: &mut Cast, conversation: ConversationId, messages: usize) -> anyhow::Result<()> {
    say(cast, conversation, 2, messages.div_ceil(2))?;
    let wanted = expected(2..=2, messages);
    let read = tokio::time::timeout(PATIENCE, async {
        while cast.count_read(KILLED, conversation, &wanted)? == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        anyhow::Ok(())
    });
    read.await.context("the device to be killed read nothing in time")??;
    let count = cast.kill(KILLED, conversation, &wanted)?;
    println!("  {}'s {} dies after {count} of {} messages, without a word", KILLED.0, KILLED.1, wanted.len());
    say(cast, conversation, 2, messages)?;
    Ok(())
}

async fn revoke(cast: &Cast) -> anyhow::Result<()> {
    let alice = cast.client(CAST[0])?;
    let gone = cast.player(REVOKED)?.device_id()?;
    alice.refresh_own_list().await?;
    let is_listed = alice.contact(&alice.account_id()).is_some_and(|own| own.devices.contains(&gone));
    if is_listed {
        alice.revoke_devices(&[gone]).await?;
    }
    println!("  {}'s laptop removes her {}: a new signed list, a dead token, a closed socket", REVOKED.0, REVOKED.1);
    let ended = tokio::time::timeout(PATIENCE, async {
        while !cast.player(REVOKED)?.has_ended() {
            tokio::time::sleep(POLL).await;
        }
        anyhow::Ok(())
    });
    ended.await.context("the revoked device's socket was not closed in time")??;
    println!("  and the {} hears of it: {}", REVOKED.1, cast.player(REVOKED)?.end().unwrap_or_default());
    Ok(())
}

fn heading(text: &str) {
    println!("\n== {text}");
}

impl Player {
    /// For the lists.
    fn title(&self) -> String {
        format!("{}-{}", self.device.0, self.device.1)
    }
}
