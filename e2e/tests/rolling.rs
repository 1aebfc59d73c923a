//! A rolling restart: three nodes behind nginx are restarted one after the other, as for a new release, while five devices write. In a
//! program of its own, because it holds a promise about time: nobody waits longer than the drain window and a little.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Result, ensure};
use martlet_e2e::{
    front::Front,
    nemesis::cluster::{Cluster, DRAIN_WINDOW, supervise},
    scene::{self, until},
    sdk::{Player, cast, judge, meet},
};
use martlet_protocol::id::{ClientMessageId, ConversationId, DeviceId};
use tokio::time::sleep;

/// Between two messages of a device. The SDK has one under way at a time, so a quicker pace would measure its queue.
const PACE: Duration = Duration::from_millis(250);
/// What is promised is a second; a busy machine may stall longer than that, and what goes wrong (a time-out of the proxy, a client that backs
/// off again and again) takes longer still. The figures are printed.
const SLACK: Duration = Duration::from_secs(5);
/// Between two nodes: clients that were told to come back have done so.
const BETWEEN: Duration = DRAIN_WINDOW.saturating_mul(2);

/// What was handed over to the SDK, and when.
#[derive(Default)]
struct Written {
    texts: BTreeMap<DeviceId, Vec<String>>,
    at: BTreeMap<DeviceId, Vec<(ClientMessageId, Duration)>>,
}

impl Written {
    fn write(&mut self, players: &[Player], conversation: ConversationId) -> Result<()> {
        for player in players {
            let texts = self.texts.entry(player.device_id()).or_default();
            let text = format!("{} of {}", texts.len(), player.device_id().to_text());
            let at = player.elapsed();
            let id = player.client()?.send_text(conversation, &text)?;
            texts.push(text);
            self.at.entry(player.device_id()).or_default().push((id, at));
        }
        Ok(())
    }

    /// How long each message waited for its answer; `None` if one has none.
    fn waits(&self, players: &[Player]) -> Option<Vec<Duration>> {
        let waits = players.iter().flat_map(|player| {
            let sent = player.told().sent;
            let own = self.at.get(&player.device_id()).into_iter().flatten();
            own.map(move |(id, at)| sent.get(id).map(|answered| answered.saturating_sub(*at))).collect::<Vec<_>>()
        });
        waits.collect()
    }
}

#[test]
fn nobody_waits_long_and_nothing_is_lost() {
    scene::run("rolling", |scene| async move {
        let cluster = Cluster::unharmed(&scene, 3).await?;
        let mut addresses = Vec::new();
        for place in &cluster.nodes {
            addresses.push(place.node.lock().await.address());
        }
        let front = Front::plain(&scene, addresses)?;
        let mut rng = scene.rng(0);
        let mut players = cast(&scene, &front.url(), &mut rng).await?;
        let conversation = meet(&players).await?;
        for player in &mut players {
            player.start()?;
        }
        until("all are connected", || async { Ok(players.iter().all(|player| player.told().connected > 0)) }).await?;

        let mut written = Written::default();
        let mut seen: BTreeSet<String> = BTreeSet::new();
        for place in &cluster.nodes {
            let restarting = async {
                let mut node = place.node.lock().await;
                let status = node.terminate().await?;
                ensure!(status.success(), "a node ended with {status}");
                supervise(&mut node).await?;
                sleep(BETWEEN).await;
                anyhow::Ok(())
            };
            tokio::pin!(restarting);
            loop {
                seen.extend(players.iter().map(|player| player.told().node_id));
                tokio::select! {
                    done = &mut restarting => break done?,
                    () = sleep(PACE) => written.write(&players, conversation)?,
                }
            }
        }
        let total: usize = written.texts.values().map(Vec::len).sum();
        until("every message is answered", || async { Ok(written.waits(&players).is_some()) }).await?;
        until("every device has every text", || async {
            let read = players.iter().map(|player| player.texts(conversation).map(|texts| texts.len()));
            Ok(read.collect::<Result<Vec<_>>>()?.iter().all(|read| *read >= total))
        })
        .await?;
        for player in &players {
            judge(player, conversation, &written.texts, &players[0])?;
        }

        let waits = written.waits(&players).unwrap_or_default();
        let longest = waits.iter().max().copied().unwrap_or_default();
        let moved: usize = players.iter().map(|player| player.told().connected - 1).sum();
        let offline = players.iter().map(|player| player.told().longest_offline).max().unwrap_or_default();
        println!(
            "{total} messages, sockets opened again: {moved}, nodes used: {seen:?}, longest wait for an answer: {longest:?}, \
             longest without a socket: {offline:?}"
        );
        let journals: Vec<_> = players.iter().map(|player| player.told().journal).collect();
        ensure!(moved >= players.len(), "every device has left a node: {moved}");
        let allowed = DRAIN_WINDOW + SLACK;
        ensure!(longest <= allowed, "somebody waited {longest:?} for an answer: {journals:#?}");
        ensure!(offline <= allowed, "somebody was without a socket for {offline:?}: {journals:#?}");
        Ok(())
    });
}
