//! A failover of PostgreSQL to a standby that lags, under devices that stay: what was answered last may be gone from the store, but
//! everything that comes after must reach everybody, although its numbers were given out before.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use martlet_e2e::{
    clock::Stopwatch,
    node::{Node, NodeOptions},
    scene::{self, Scene, until},
    sdk::{Player, cast, meet},
};
use martlet_protocol::id::ConversationId;
use martlet_servers::{Postgres, Proxy, Shutdown};
use tokio::task::{block_in_place, spawn_blocking};

const DATABASE: &str = "martlet";
/// So many messages of each device that the standby never sees, and then so many after the failover: more, so that numbers come again.
const LOST: usize = 3;
const AFTER: usize = 5;

/// A primary and its standby, with a line between them that can be cut.
struct Pair {
    primary: Postgres,
    standby: Postgres,
    line: Proxy,
}

impl Pair {
    fn start(folder: &Path) -> Result<Self> {
        let primary = Postgres::start(&folder.join("primary"))?;
        primary.create_database(DATABASE)?;
        let line = Proxy::start((Ipv4Addr::LOCALHOST, primary.port()).into())?;
        let standby = Postgres::standby(line.port(), &folder.join("standby"))?;
        Ok(Self { primary, standby, line })
    }

    /// As an operator writes it who has both: libpq asks each server whether it takes writes.
    fn url(&self) -> String {
        let (primary, standby) = (self.primary.port(), self.standby.port());
        format!("postgres://martlet@127.0.0.1:{primary},127.0.0.1:{standby}/{DATABASE}?target_session_attrs=read-write")
    }

    /// From now on the standby lags.
    fn part(&self) -> Result<()> {
        self.standby.catch_up(&self.primary)?;
        self.line.cut();
        Ok(())
    }

    fn fail_over(&mut self) -> Result<()> {
        self.primary.stop(Shutdown::Immediate)?;
        self.standby.promote()
    }
}

fn say(players: &[Player], conversation: ConversationId, part: &str, count: usize) -> Result<Vec<String>> {
    let mut said = Vec::new();
    for (number, player) in players.iter().enumerate() {
        for message in 0..count {
            let text = format!("{part}: {message} of device {number}");
            player.client()?.send_text(conversation, &text)?;
            said.push(text);
        }
    }
    Ok(said)
}

/// Until every device has each of these, once.
async fn read(players: &[Player], conversation: ConversationId, wanted: &[String]) -> Result<()> {
    until("every device has every text", || async {
        for player in players {
            let mut times: BTreeMap<String, usize> = BTreeMap::new();
            for (_, text) in player.texts(conversation)? {
                *times.entry(text).or_default() += 1;
            }
            if let Some((text, times)) = times.iter().find(|(_, times)| **times > 1) {
                bail!("{text:?} was read {times} times");
            }
            if wanted.iter().any(|text| !times.contains_key(text)) {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await
}

/// Two accounts' devices on one node, who have talked.
struct Table {
    pair: Pair,
    players: Vec<Player>,
    conversation: ConversationId,
    /// Everything that everybody must have read.
    all: Vec<String>,
    _node: Node,
}

impl Table {
    async fn set(scene: &Scene, options: impl FnOnce(&Pair) -> NodeOptions) -> Result<Self> {
        let folder = scene.folder().to_owned();
        let pair = spawn_blocking(move || Pair::start(&folder)).await??;
        let node = Node::start(scene, options(&pair)).await?;
        let mut players = cast(scene, &node.url(), &mut scene.rng(0)).await?;
        let conversation = meet(&players).await?;
        for player in &mut players {
            player.start()?;
        }
        let mut table = Self { pair, players, conversation, all: Vec::new(), _node: node };
        table.talk("before", 2).await?;
        Ok(table)
    }

    /// Every device that is there says so many texts, and reads what all have said.
    async fn talk(&mut self, part: &str, count: usize) -> Result<()> {
        self.all.extend(say(&self.players, self.conversation, part, count)?);
        read(&self.players, self.conversation, &self.all).await
    }

    /// Does something to the servers that takes a while; the devices go on meanwhile.
    fn with_pair(&mut self, act: impl FnOnce(&mut Pair) -> Result<()>) -> Result<()> {
        block_in_place(|| act(&mut self.pair))
    }
}

#[test]
fn what_comes_after_a_failover_with_losses_reaches_everybody() {
    scene::run("failover", |scene| async move {
        let mut table = Table::set(&scene, |pair| {
            let options = NodeOptions::default().set(&format!("storage.database_url={}", pair.url()));
            options.set("storage.timeout=3s")
        })
        .await?;
        table.with_pair(|pair| pair.part())?;
        table.talk("lost", LOST).await?;
        // Acks of what the standby never saw are on their way to the store, which is another one when they come.
        table.with_pair(Pair::fail_over)?;
        table.talk("after", AFTER).await?;
        // Whatever comes twice has come before these.
        table.talk("last", 1).await?;

        let players = &table.players;
        let restarted =
            players.iter().filter(|player| player.told().worries.iter().any(|worry| worry.contains("StreamRestarted")));
        ensure!(restarted.count() == players.len(), "every device was told that its mailbox is numbered anew");
        for player in players {
            let told = player.told();
            let others: Vec<_> = told.worries.iter().filter(|worry| !worry.contains("StreamRestarted")).collect();
            ensure!(others.is_empty() && told.ended.is_none(), "a device was worried: {others:#?} {:?}", told.ended);
        }
        // New one-time prekeys are there: of the old ones nobody knows whether they were claimed.
        until("every device has uploaded one-time prekeys", || async {
            let sql = "SELECT count(DISTINCT device_key) FROM prekeys WHERE kind = 2 AND store_epoch > 1";
            Ok(table.pair.standby.query(DATABASE, sql)? == players.len().to_string())
        })
        .await
    });
}

/// A replica that is behind says less than there is; whoever believed it would go on without the rest.
#[test]
fn a_replica_that_lags_keeps_nothing_from_anybody() {
    scene::run("replica", |scene| async move {
        let mut table = Table::set(&scene, |pair| {
            let options = NodeOptions::default().set(&format!("storage.database_url={}", pair.primary.url(DATABASE)));
            options.set(&format!("storage.replica_urls={}", pair.standby.url(DATABASE)))
        })
        .await?;
        // It reads from the replica when it comes back.
        let mut away = table.players.pop().context("a device")?;
        away.die();
        table.talk("away", 2).await?;
        table.with_pair(|pair| pair.part())?;
        table.talk("unseen", 3).await?;
        away.revive().await?;
        table.players.push(away);
        read(&table.players, table.conversation, &table.all).await?;
        for player in &table.players {
            ensure!(player.told().worries.is_empty(), "a device was worried: {:#?}", player.told().worries);
        }
        Ok(())
    });
}

/// A supervisor that stops a node must not wait for a database that says nothing.
#[test]
fn a_node_ends_although_its_database_is_silent() {
    scene::run("silent", |scene| async move {
        let folder = scene.folder().to_owned();
        let mut server = spawn_blocking(move || Postgres::start(&folder.join("database"))).await??;
        server.create_database(DATABASE)?;
        let line = Proxy::start((Ipv4Addr::LOCALHOST, server.port()).into())?;
        let url = format!("postgres://martlet@127.0.0.1:{}/{DATABASE}", line.port());
        let options = NodeOptions::default().set(&format!("storage.database_url={url}")).set("storage.timeout=1s");
        let mut node = Node::start(&scene, options).await?;
        let mut players = cast(&scene, &node.url(), &mut scene.rng(0)).await?;
        let conversation = meet(&players).await?;
        for player in &mut players {
            player.start()?;
        }
        say(&players, conversation, "before", 1)?;
        line.stall()?;
        say(&players, conversation, "waits for the commit", 3)?;
        let watch = Stopwatch::start();
        node.terminate().await?;
        println!("ended {:?} after SIGTERM", watch.elapsed());
        block_in_place(|| server.stop(Shutdown::Immediate))
    });
}
