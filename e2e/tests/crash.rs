//! The node is ended with SIGKILL at random moments under concurrent senders: what was answered arrives exactly once, in order.
//!
//! MARTLET_E2E_KILLS sets the number of kills (default 50), MARTLET_E2E_SEED repeats a run's choices.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use martlet_e2e::{
    checker,
    crash::{KillPlan, Participant, Phase, Shared, kill_many},
    node::{Node, NodeOptions},
    scene::{self, Scene},
    wire::{Account, Circle, Rest, SubProtocol, username},
};
use rand::rngs::StdRng;
use tokio::{sync::watch, task::JoinSet};

const KILLS: usize = 50;
/// Devices of each account.
const DEVICES: [usize; 3] = [3, 2, 2];

#[test]
fn answered_sends_survive_sigkill() {
    scene::run("crash", crash);
}

async fn crash(scene: Scene) -> Result<()> {
    let plan = KillPlan::from_env("MARTLET_E2E_KILLS", KILLS)?;
    let mut node = Node::start(&scene, NodeOptions::default()).await?;
    let rest = Rest::new(node.url())?;
    let mut rng = scene.rng(0);
    let accounts = accounts(&rest, &mut rng).await?;
    let circles = circles(&rest, &mut rng, &accounts).await?;

    let shared = Arc::new(Shared { history: Default::default(), rest });
    let (phase, watched) = watch::channel(Phase::Busy);
    let mut lives = JoinSet::new();
    for (number, device) in accounts.iter().flat_map(|account| &account.devices).enumerate() {
        let own = circles.iter().filter(|circle| circle.has(&device.device_id)).cloned().collect();
        let sub_protocol = if number % 2 == 0 { SubProtocol::Proto } else { SubProtocol::Json };
        let rng = scene.rng(1 + number as u64);
        let mut life = Participant::new(device.clone(), own, sub_protocol, shared.clone(), watched.clone(), rng);
        lives.spawn(async move { life.settle().await.map(|()| life) });
    }

    let killing = kill_many(&mut node, plan, &shared, &mut rng);
    tokio::select! {
        killed = killing => killed?,
        ended = lives.join_next() => {
            ended.context("nobody")???;
            anyhow::bail!("a participant ended too early");
        }
    }
    phase.send(Phase::Settling)?;
    let mut settled = Vec::new();
    while let Some(life) = lives.join_next().await {
        settled.push(life??);
    }
    phase.send(Phase::Reading)?;
    for life in &mut settled {
        life.read_to_end().await?;
    }
    judge(plan.kills, &shared)
}

fn judge(kills: usize, shared: &Shared) -> Result<()> {
    let history = shared.history.lock();
    let verdict = checker::check(&history);
    println!(
        "operations: {} (ok {}, unknown {}, refused {})\nkills: {kills}\ndelivered: {} on the wire, {} to applications\nlost: {}\nrepeated: {}",
        verdict.operations,
        verdict.ok,
        verdict.unknown,
        verdict.failed,
        verdict.on_the_wire,
        verdict.applied,
        verdict.lost(),
        verdict.repeated(),
    );
    let shown = &verdict.violations[..verdict.violations.len().min(20)];
    ensure!(shown.is_empty(), "{} violations, the first of them: {shown:#?}", verdict.violations.len());
    // A run in which little happened would prove little.
    ensure!(verdict.ok >= 10 * kills, "only {} sends were accepted", verdict.ok);
    ensure!(verdict.on_the_wire > verdict.applied, "nothing was repeated on the wire, so nothing was tried");
    Ok(())
}

async fn accounts(rest: &Rest, rng: &mut StdRng) -> Result<Vec<Account>> {
    let mut accounts = Vec::new();
    for devices in DEVICES {
        let name = username("crash", rng);
        accounts.push(Account::register(rest, rng, &name, devices).await?);
    }
    Ok(accounts)
}

/// A direct conversation of each two accounts, and two groups of all.
async fn circles(rest: &Rest, rng: &mut StdRng, accounts: &[Account]) -> Result<Vec<Circle>> {
    let [one, two, three] = accounts else { anyhow::bail!("three accounts") };
    let mut circles = Vec::new();
    for (a, b) in [(one, two), (two, three), (three, one)] {
        circles.push(Circle::direct(rest, rng, a, b).await?);
    }
    for _ in 0..2 {
        circles.push(Circle::group(rest, rng, &[one, two, three]).await?);
    }
    Ok(circles)
}
