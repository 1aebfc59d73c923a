//! The whole journey with real encryption: the demo as people run it, interrupted or not, and five devices of the SDK that go on while
//! their node is killed and they die themselves.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use martlet_e2e::{
    node::{Node, NodeOptions, binary},
    scene::{self, Scene, until},
    sdk::{Player, cast, judge, meet},
};
use martlet_protocol::id::{ConversationId, DeviceId};
use rand::{RngExt as _, rngs::StdRng};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::sleep,
};

/// Kills of the node under the SDK; MARTLET_E2E_SDK_KILLS sets another number.
const SDK_KILLS: usize = 12;
/// The demo's last words, which it says only if all was verified.
const VERIFIED: &str = "Every device read everything that was meant for it, once, in order.";

/// `martlet-chat demo`, and the node that it leaves behind if it is killed.
struct Demo {
    home: PathBuf,
}

impl Demo {
    fn start(&self) -> Result<Child> {
        // The demo looks for the node beside itself.
        binary::path("martlet")?;
        let mut command = Command::new(binary::path("martlet-chat")?);
        command.arg("demo").arg("--home").arg(&self.home).env_remove("MARTLET_SERVER");
        Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?)
    }

    async fn run(&self) -> Result<()> {
        let output = self.start()?.wait_with_output().await?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success() && said.contains(VERIFIED), "the demo ended with {}:\n{said}", output.status);
        Ok(())
    }

    /// Runs until it says this, then a little longer, then kills it.
    async fn interrupted(&self, line: &str, longer: Duration) -> Result<()> {
        let mut child = self.start()?;
        let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        while !lines.next_line().await?.with_context(|| format!("the demo never said {line:?}"))?.contains(line) {}
        sleep(longer).await;
        // On a fast machine it may have come to its end; then it must have been a good one.
        match child.try_wait()? {
            Some(status) => ensure!(status.success(), "the demo ended by itself with {status}"),
            None => child.kill().await?,
        }
        Ok(())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        end_left_node(&self.home);
    }
}

/// A killed demo can't stop its node; the next one would, unless the test fails before.
fn end_left_node(home: &Path) {
    let left = std::fs::read(home.join("node/node.json")).unwrap_or_default();
    let left: serde_json::Value = serde_json::from_slice(&left).unwrap_or_default();
    let Some(pid) = left["process_id"].as_i64().and_then(|id| i32::try_from(id).ok()) else { return };
    let command_line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if command_line.contains(&*home.to_string_lossy())
        && let Some(pid) = Pid::from_raw(pid)
    {
        kill_process(pid, Signal::KILL).ok();
    }
}

#[test]
fn the_demo_ends_well() {
    scene::run("demo", |scene: Scene| async move { Demo { home: scene.folder().join("home") }.run().await });
}

#[test]
fn an_interrupted_demo_loses_nothing() {
    scene::run("demo-interrupted", |scene: Scene| async move {
        let demo = Demo { home: scene.folder().join("home") };
        let mut rng = scene.rng(0);
        // While devices are linked, while they speak, and after one was revoked.
        for line in ["Two accounts, five devices", "Messages both ways", "A device is revoked"] {
            let longer = Duration::from_millis(rng.random_range(0..300));
            println!("killed {longer:?} after {line:?}");
            demo.interrupted(line, longer).await?;
        }
        demo.run().await
    });
}

#[test]
fn five_devices_go_on_through_crashes() {
    scene::run("sdk-crash", sdk_crash);
}

async fn sdk_crash(scene: Scene) -> Result<()> {
    let kills = match std::env::var("MARTLET_E2E_SDK_KILLS") {
        Ok(text) => text.parse().context("MARTLET_E2E_SDK_KILLS is not a number")?,
        Err(_) => SDK_KILLS,
    };
    let mut node = Node::start(&scene, NodeOptions::default()).await?;
    let mut rng = scene.rng(0);
    let mut players = cast(&scene, &node.url(), &mut rng).await?;
    let conversation = meet(&players).await?;
    for player in &mut players {
        player.start()?;
    }

    let mut handed_over: BTreeMap<DeviceId, Vec<String>> = BTreeMap::new();
    for kill in 0..kills {
        for _ in 0..rng.random_range(8..20) {
            speak(&mut players, conversation, &mut handed_over, &mut rng).await?;
            sleep(Duration::from_millis(rng.random_range(0..60))).await;
        }
        node.kill().await.with_context(|| format!("kill {kill}"))?;
        // Who is away writes on.
        speak(&mut players, conversation, &mut handed_over, &mut rng).await?;
        node.restart().await?;
    }
    for player in &mut players {
        if player.client().is_err() {
            player.revive().await?;
        }
    }
    let total: usize = handed_over.values().map(Vec::len).sum();
    until("every device has every text", || async {
        let read = players.iter().map(|player| player.texts(conversation).map(|texts| texts.len()));
        Ok(read.collect::<Result<Vec<_>>>()?.iter().all(|read| *read >= total))
    })
    .await?;
    // Whatever would come twice has time to come.
    sleep(Duration::from_secs(1)).await;

    println!("texts: {total}, kills of the node: {kills}, devices: {}", players.len());
    for player in &players {
        judge(player, conversation, &handed_over, &players[0])?;
    }
    Ok(())
}

/// One device dies or comes back, now and then; another speaks.
async fn speak(
    players: &mut [Player],
    conversation: ConversationId,
    handed_over: &mut BTreeMap<DeviceId, Vec<String>>,
    rng: &mut StdRng,
) -> Result<()> {
    let number = rng.random_range(0..players.len());
    let player = &mut players[number];
    if player.client().is_err() {
        return player.revive().await;
    }
    if rng.random_ratio(1, 8) {
        player.die();
        return Ok(());
    }
    let own = handed_over.entry(player.device_id()).or_default();
    // Now and then one that lies outside the seal.
    let filling = if rng.random_ratio(1, 8) { 5_000 } else { 20 };
    let text = format!("{} of device {number} {}", own.len(), "·".repeat(filling));
    player.client()?.send_text(conversation, &text)?;
    own.push(text);
    Ok(())
}

#[test]
fn a_revoked_device_of_the_sdk_knows_that_it_was() {
    scene::run("sdk-revoke", |scene: Scene| async move {
        let node = Node::start(&scene, NodeOptions::default()).await?;
        let mut rng = scene.rng(0);
        let mut players = cast(&scene, &node.url(), &mut rng).await?;
        let conversation = meet(&players).await?;
        for player in &mut players {
            player.start()?;
        }
        players[3].client()?.send_text(conversation, "before")?;
        let read = |text: &'static str, player: &Player| -> Result<bool> {
            Ok(player.texts(conversation)?.iter().any(|(_, given)| given == text))
        };
        until("all have read the first text", || async {
            Ok(players
                .iter()
                .map(|player| read("before", player))
                .collect::<Result<Vec<_>>>()?
                .iter()
                .all(|read| *read))
        })
        .await?;

        let revoked = players.remove(2);
        players[0].client()?.revoke_devices(&[revoked.device_id()]).await?;
        until("the revoked device was told", || async { Ok(revoked.told().ended.is_some()) }).await?;
        // The sender has not heard of it; it finds out, encrypts anew and goes on.
        players[2].client()?.send_text(conversation, "after")?;
        until("the others have read the second text", || async {
            Ok(players.iter().map(|player| read("after", player)).collect::<Result<Vec<_>>>()?.iter().all(|read| *read))
        })
        .await?;
        ensure!(!read("after", &revoked)?, "the revoked device got a message");
        for player in &players {
            ensure!(player.told().worries.is_empty(), "a device was worried: {:#?}", player.told().worries);
        }
        Ok(())
    });
}
