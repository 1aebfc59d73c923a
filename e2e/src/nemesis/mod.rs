//! The nemesis: a cluster under load, everything that can go wrong going wrong, and a checker that knows what may have happened.
//!
//! In reading order:
//!
//! 1. [`run`]: one run from nothing to its report;
//! 2. [`cluster`], [`disk`]: nodes, PostgreSQL, Redis, the lines between them;
//! 3. [`faults`], [`storm`]: what goes wrong, and when;
//! 4. [`world`], [`people`], [`life`], [`inbox`], [`outbox`], [`calm`]: devices that send, read, vanish, and are revoked;
//! 5. [`history`], [`checker`], [`report`]: what happened, whether it may have, and what is printed;
//! 6. [`planted`]: bugs that a run must find.
//!
//! It shows that nothing was lost in the runs that were made; it proves nothing about others.

pub mod calm;
pub mod checker;
pub mod cluster;
pub mod disk;
pub mod faults;
pub mod history;
pub mod inbox;
pub mod life;
mod outbox;
pub mod people;
pub mod planted;
pub mod report;
pub mod storm;
pub mod world;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::time::{sleep, timeout};

use crate::{scene::Scene, wire::Rest};
use cluster::Cluster;
use life::Life;
use people::Lives;
use planted::Bug;
use report::Report;
use world::{Phase, World};

/// A request that takes longer is lost, to a client amid faults.
const ANSWER_DEADLINE: Duration = Duration::from_secs(4);
/// To see every device reached after the last heal.
const BACK_PATIENCE: Duration = Duration::from_secs(15);
/// Once everybody was reached: callers go on calling in peace. Longer than heads take to be compared and than [`checker`] waits for what
/// nobody was told of.
const PEACE: Duration = Duration::from_secs(16);
/// For everything that was sent to be answered once all is healed.
const SETTLE_PATIENCE: Duration = Duration::from_secs(60);
/// Between two lines that tell how it goes.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What run to make.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long faults go on.
    pub seconds: u64,
    /// Repeats the run's choices, though not its timing.
    pub seed: u64,
    /// One node on its own store, without services.
    pub embedded: bool,
    /// Tells nothing on the way.
    pub quiet: bool,
    /// Each busy device writes about once in so many milliseconds.
    pub pause_ms: u64,
    /// A bug that the nodes are built with.
    pub bug: Option<Bug>,
    /// Where logs lie; kept if something was wrong.
    pub folder: PathBuf,
}

/// One run: its report, and the histories of what was wrong.
///
/// # Errors
/// The system could not be started or brought back, so that there is nothing to judge.
pub async fn run(options: &Options) -> Result<(Report, String)> {
    let scene = Scene::lasting(&options.folder, options.seed);
    let cluster = Arc::new(match options.embedded {
        true => Cluster::embedded(&scene, options.bug).await?,
        false => Cluster::start(&scene, 3, options.bug).await?,
    });
    let world = Arc::new(World::new(&cluster.urls(), ANSWER_DEADLINE)?);
    let lives = Lives::default();
    let mut rng = scene.rng(0);
    let rest = Rest::new(cluster.urls()[0].clone())?;
    let busy = people::set_going(&world, &lives, &rest, &mut rng, options.pause_ms).await.context("setting out")?;
    let newcomers = tokio::spawn(people::newcomers(world.clone(), lives.clone(), busy, StdRng::from_rng(&mut rng)));
    let teller = (!options.quiet).then(|| tokio::spawn(tell(world.clone())));

    let from_ms = world.now_ms();
    world.history.lock().faults_ms = (from_ms, u64::MAX);
    let faults = storm::rage(&cluster, &world, from_ms + options.seconds * 1000, &mut rng).await;
    let faults = faults.inspect_err(|_| cluster.keep_logs(&scene))?;
    world.history.lock().faults_ms.1 = world.now_ms();
    world.phase.send_replace(Phase::Healed);
    newcomers.await??;
    let reached = timeout(BACK_PATIENCE, all_reached(&world)).await.is_ok();
    if !reached && !options.quiet {
        println!("not every device was reached within {BACK_PATIENCE:?} of the last heal");
    }
    sleep(PEACE).await;
    world.phase.send_replace(Phase::Settling);
    read_to_end(settled(&lives).await).await;
    if let Some(teller) = teller {
        teller.abort();
    }

    let history = std::mem::take(&mut *world.history.lock());
    let verdict = checker::check(&history);
    let (clients, refusals) = (*world.client_faults.lock(), world.refusals.lock().clone());
    let (seconds, seed, nodes) = (options.seconds, options.seed, cluster.nodes.len());
    let report = Report { seconds, seed, nodes, verdict, faults, clients, refusals };
    if !report.is_good() {
        cluster.keep_logs(&scene);
    }
    let histories = report.histories(&history);
    Ok((report, histories))
}

/// Says every few seconds how it goes.
async fn tell(world: Arc<World>) {
    loop {
        sleep(TELL_EVERY).await;
        let (invoked, accepted) = {
            let history = world.history.lock();
            let accepted = |operation: &&history::Operation| matches!(operation.outcome, history::Outcome::Ok { .. });
            (history.operations.len(), history.operations.iter().filter(accepted).count())
        };
        println!("{:>5} s: {accepted} of {invoked} sends answered", world.now_ms() / 1000);
    }
}

async fn all_reached(world: &World) {
    loop {
        let reached = world.history.lock().delivered_again();
        if world.active_devices().iter().all(|device| reached.contains_key(device)) {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until what was sent is answered. Who takes too long is left out; the checker sees what is missing.
async fn settled(lives: &Lives) -> Vec<Life> {
    let mut lives = std::mem::take(&mut *lives.lock());
    let mut settled = Vec::new();
    let all = async {
        while let Some(life) = lives.join_next().await {
            match life {
                Ok(life) => settled.push(life),
                Err(error) => println!("a device's task failed: {error}"),
            }
        }
    };
    if timeout(SETTLE_PATIENCE, all).await.is_err() {
        println!("not all devices settled within {SETTLE_PATIENCE:?}");
    }
    settled
}

async fn read_to_end(lives: Vec<Life>) {
    let mut reading = tokio::task::JoinSet::new();
    for mut life in lives {
        reading.spawn(async move { life.read_to_end().await });
    }
    while let Some(read) = reading.join_next().await {
        if let Err(error) = read {
            println!("a device's task failed: {error}");
        }
    }
}
