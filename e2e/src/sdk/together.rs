//! Two accounts with three and two devices of the SDK: how they come to be, meet, and are judged in the end.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use martlet_protocol::id::{ConversationId, DeviceId};
use rand::rngs::StdRng;

use super::Player;
use crate::{scene::Scene, wire::username};

/// One account with three devices and one with two.
///
/// # Errors
/// The server refused.
pub async fn cast(scene: &Scene, server: &str, rng: &mut StdRng) -> Result<Vec<Player>> {
    let mut players = Vec::new();
    for devices in [3, 2] {
        let name = username("player", rng);
        let first = Player::register(scene, server, &name, rng).await?;
        let mut others = Vec::new();
        for number in 1..devices {
            others.push(first.link(scene, &format!("device {number}"), rng).await?);
        }
        players.push(first);
        players.extend(others);
    }
    Ok(players)
}

/// The first devices look each other up; all get their conversation.
///
/// # Errors
/// The server refused, or their safety numbers differ.
pub async fn meet(players: &[Player]) -> Result<ConversationId> {
    let (one, other) = (players[0].client()?, players[3].client()?);
    let contact = one.look_up(&other.device(|device| device.username().to_owned())).await?;
    other.look_up(&one.device(|device| device.username().to_owned())).await?;
    let conversation = one.create_direct(contact.account_id).await?;
    for player in players {
        player.client()?.sync_conversations().await?;
    }
    let numbers = (one.safety_number(&other.account_id())?, other.safety_number(&one.account_id())?);
    ensure!(numbers.0 == numbers.1, "the safety numbers differ");
    Ok(conversation)
}

/// Everything once, each sender's in order, the same message ids everywhere, and nothing that would worry a user.
///
/// # Errors
/// What is not so.
pub fn judge(
    player: &Player,
    conversation: ConversationId,
    handed_over: &BTreeMap<DeviceId, Vec<String>>,
    other: &Player,
) -> Result<()> {
    let texts = player.texts(conversation)?;
    for (sender, expected) in handed_over {
        let given: Vec<_> = texts.iter().filter(|(message, _)| message.sender_device == *sender).collect();
        let same = given.iter().map(|(_, text)| text).eq(expected);
        ensure!(same, "of {} texts of a device another has {}, or in another order", expected.len(), given.len());
    }
    let total: usize = handed_over.values().map(Vec::len).sum();
    ensure!(texts.len() == total, "{} texts that nobody sent", texts.len() - total);
    let ids = |player: &Player| -> Result<BTreeMap<String, _>> {
        Ok(player.texts(conversation)?.into_iter().map(|(message, text)| (text, message.message_id)).collect())
    };
    ensure!(ids(player)? == ids(other)?, "devices know a text under different message ids");
    let told = player.told();
    ensure!(told.worries.is_empty(), "a device was worried: {:#?}", told.worries);
    ensure!(told.ended.is_none(), "a device was ended: {:?}", told.ended);
    Ok(())
}
