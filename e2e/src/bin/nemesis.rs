//! `nemesis`: one run with faults, or one per planted bug. `cargo xtask nemesis` builds and starts it.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Parser;
use martlet_e2e::{
    clock::{self, Stopwatch},
    nemesis::{self, Options, disk, planted::Bug},
};

/// A run with a planted bug lasts so long; if it finds nothing there is time for a second one.
const PLANTED_SECONDS: u64 = 34;
/// Within which a planted bug must be found, in seconds.
const PLANTED_LIMIT: u64 = 120;

/// Three nodes, PostgreSQL, Redis, and everything that can go wrong.
#[derive(Parser)]
#[command(name = "nemesis")]
struct Arguments {
    /// How long faults go on.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Repeats a run's choices [default: another one each time].
    #[arg(long)]
    seed: Option<u64>,
    /// Runs nodes with a planted bug, which must be found: its name, or `all`.
    #[arg(long, value_name = "NAME")]
    planted: Option<String>,
    /// One node on its own store instead of three over PostgreSQL and Redis.
    #[arg(long)]
    embedded: bool,
    /// Only the summary.
    #[arg(long)]
    quiet: bool,
    /// Each busy device writes about once in so many milliseconds.
    #[arg(long, default_value_t = 25)]
    pause_ms: u64,
}

fn main() -> ExitCode {
    disk::in_own_namespace();
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = runtime.context("no runtime").and_then(|runtime| {
        let outcome = runtime.block_on(start(&arguments));
        // What devices left behind waits for nothing.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("nemesis: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn start(arguments: &Arguments) -> Result<bool> {
    let seed = arguments.seed.unwrap_or_else(|| clock::changing() >> 32);
    let Some(word) = &arguments.planted else {
        return one(&options(arguments, seed, arguments.seconds, None)?, true).await;
    };
    let bugs = Bug::parse(word)?;
    let mut caught = 0;
    for bug in &bugs {
        caught += usize::from(planted(arguments, seed, *bug).await?);
    }
    println!("planted bugs caught: {caught} of {}", bugs.len());
    Ok(caught == bugs.len())
}

/// Runs with the bug until it is found, or the time is over.
async fn planted(arguments: &Arguments, seed: u64, bug: Bug) -> Result<bool> {
    println!("\n== planted: {}", bug.name());
    let watch = Stopwatch::start();
    for attempt in 0.. {
        let options = options(arguments, seed + attempt, PLANTED_SECONDS, Some(bug))?;
        let is_good = one(&options, false).await?;
        let took = watch.elapsed().as_secs();
        if !is_good && took <= PLANTED_LIMIT {
            println!("{}: CAUGHT after {took} s", bug.name());
            std::fs::remove_dir_all(&options.folder)?;
            return Ok(true);
        }
        if took + PLANTED_SECONDS > PLANTED_LIMIT {
            break;
        }
    }
    println!("{}: NOT CAUGHT", bug.name());
    Ok(false)
}

/// One run, printed; true if nothing was wrong.
async fn one(options: &Options, tells_all: bool) -> Result<bool> {
    let ran = nemesis::run(options).await;
    let (report, histories) =
        ran.with_context(|| format!("seed {}; logs are kept in {}", options.seed, options.folder.display()))?;
    println!("{}", report.summary());
    if report.is_good() {
        std::fs::remove_dir_all(&options.folder)?;
        return Ok(true);
    }
    if tells_all {
        println!("{histories}\nseed {}; logs are kept in {}", options.seed, options.folder.display());
    } else {
        println!("{}", histories.lines().take(12).collect::<Vec<_>>().join("\n"));
    }
    Ok(false)
}

fn options(arguments: &Arguments, seed: u64, seconds: u64, bug: Option<Bug>) -> Result<Options> {
    let folder: PathBuf = tempfile::Builder::new().prefix("martlet-nemesis-").tempdir()?.keep();
    let Arguments { embedded, quiet, pause_ms, .. } = *arguments;
    Ok(Options { seconds, seed, embedded, quiet, pause_ms, bug, folder })
}
