//! What the demo shows and checks at its end: the server's side of each message beside the devices', and every history.

use std::collections::BTreeMap;

use anyhow::{bail, ensure};
use martlet_client::StoredMessage;
use martlet_protocol::{id::ConversationId, suite1::FORK_HEADER_LEN};

use super::{
    CAST, REVOKED,
    cast::{Cast, Player},
    expected,
};
use crate::show::short;

/// Prints which node each device is connected to, when all are.
pub fn show_nodes(cast: &Cast) {
    let mut nodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for player in cast.players() {
        nodes.entry(player.node_id().unwrap_or_default()).or_default().push(player.title());
    }
    for (node, devices) in nodes {
        println!("  node {node} serves {}", devices.join(", "));
    }
}

/// Prints a part's messages: left what the server could see of each, right what the devices read.
pub fn show_part(cast: &Cast, conversation: ConversationId, part: usize) -> anyhow::Result<()> {
    let prefix = format!("part {part},");
    let mut readers: BTreeMap<String, usize> = BTreeMap::new();
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for player in cast.players() {
        let own = player.device_id()?;
        for message in cast.texts(player.device, conversation)? {
            let text = message.text().unwrap_or_default();
            *readers.entry(text.clone()).or_default() += 1;
            if message.sender_device == own {
                seen.insert(text, server_side(&message));
            }
        }
    }
    println!("  {:61} | what devices read", "what the server sees");
    for message in cast.texts(CAST[0], conversation)? {
        let text = message.text().unwrap_or_default();
        if text.starts_with(&prefix) {
            let (seen, readers) = (seen.get(&text).cloned().unwrap_or_default(), readers.get(&text).unwrap_or(&0));
            println!("  {seen:61} | {text} ({readers} devices)");
        }
    }
    println!("  (At rest it sees less: rows sealed to each device under random ids, the sender's own among them.)");
    Ok(())
}

/// What the sender's request showed.
fn server_side(message: &StoredMessage) -> String {
    format!(
        "{}… from {}…: content {} B, {} headers of {FORK_HEADER_LEN} B",
        short(&message.message_id.to_text()),
        short(&message.sender_device.to_text()),
        message.content_bytes,
        message.forks,
    )
}

/// Checks that every device has read exactly what was meant for it, once, each sender's in order, and all in one order.
pub fn check(cast: &Cast, conversation: ConversationId, messages: usize) -> anyhow::Result<()> {
    let mut orders: Vec<(String, Vec<String>)> = Vec::new();
    for player in cast.players() {
        let parts = if player.device == REVOKED { 1..=2 } else { 1..=3 };
        let order = check_device(cast, player, conversation, &expected(parts, messages))?;
        orders.push((player.title(), order));
    }
    let Some((first, longest)) = orders.iter().max_by_key(|(_, order)| order.len()) else { bail!("nobody played") };
    for (title, order) in &orders {
        ensure!(longest.starts_with(order), "{title} read in another order than {first}");
    }
    Ok(())
}

fn check_device(
    cast: &Cast,
    player: &Player,
    conversation: ConversationId,
    wanted: &[String],
) -> anyhow::Result<Vec<String>> {
    let title = player.title();
    let refused = player.refused();
    ensure!(refused.is_empty(), "{title} refused something: {refused:?}");
    let read = cast.texts(player.device, conversation)?;
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    let mut last: BTreeMap<_, u64> = BTreeMap::new();
    for message in &read {
        *times.entry(message.text().unwrap_or_default()).or_default() += 1;
        let before = last.insert(message.sender_device, message.counter).unwrap_or(0);
        ensure!(message.counter > before, "{title} read a device's messages out of order");
    }
    for text in wanted {
        let count = times.remove(text).unwrap_or(0);
        ensure!(count == 1, "{title} read {text:?} {count} times");
    }
    ensure!(times.is_empty(), "{title} read what was not meant for it: {:?}", times.keys());
    println!("  {title:13} {} messages, each once, in order", read.len());
    Ok(read.iter().filter_map(|message| message.text()).collect())
}
