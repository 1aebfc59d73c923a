//! What a connection costs at rest: devices with a mailbox subscription and heartbeats that have nothing to say.
//!
//! All accounts are registered first and the node is started anew over the same data, so that memory it needed for registering is
//! neither counted nor reused. What the kernel holds for a socket (about 4 KB) is not in the figure.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use martlet_client::api::Api;
use martlet_protocol::wire::{self, node_frame};
use serde::Serialize;

use crate::{
    ambient,
    cli::IdleArgs,
    figures::{as_f64, grouped, grouped_f64, mib, slope},
    node::{Cluster, Node, proc},
    people,
    progress::{Progress, say},
    socket::{Connection, Fleet, Handler},
};

/// Registrations under way at once.
const REGISTERING: usize = 64;
/// Files that a process needs besides its connections: libraries, the database, the listeners.
const OTHER_FILES: u64 = 200;
/// How long answers to pings may take altogether.
const ECHO_TIMEOUT: Duration = Duration::from_secs(30);
/// Rest before a node's memory is called its baseline.
const BASELINE_REST: Duration = Duration::from_secs(3);

/// What was found.
#[derive(Debug, Serialize)]
pub struct IdleResult {
    /// Resident memory without connections.
    pub baseline_bytes: Option<u64>,
    /// Step by step.
    pub steps: Vec<IdleStep>,
    /// Slope of the node's resident memory, if it could be read.
    pub bytes_per_connection: Option<f64>,
    /// Connections that were refused or lost, in the node's or the system's words.
    pub failures: Vec<String>,
}

/// One step.
#[derive(Debug, Serialize)]
pub struct IdleStep {
    /// Connections that stood.
    pub connections: usize,
    /// The node's resident memory then.
    pub resident_bytes: Option<u64>,
    /// Connections that answered a ping afterwards.
    pub alive: usize,
    /// Pings of the node that were answered since the step's beginning.
    pub heartbeats: usize,
    /// Seconds from the first new connection to the last.
    pub opening_s: f64,
    /// Processor time of the node per second while it was quiet, in percent of one core.
    pub quiet_cpu_percent: Option<f64>,
}

impl IdleResult {
    /// Nothing was refused or lost.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty() && self.steps.iter().all(|step| step.alive == step.connections)
    }

    /// The table and the figures, for people and for `grep`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let unknown = || "unknown".to_owned();
        let header = ["connections", "resident MiB", "alive", "heartbeats", "opened in s", "quiet CPU %"];
        let _ = writeln!(text, "{}", header.map(|name| format!("{name:>13}")).join(""));
        for step in &self.steps {
            let row = [
                grouped(u64::try_from(step.connections).unwrap_or(0)),
                step.resident_bytes.map_or_else(unknown, mib),
                step.alive.to_string(),
                step.heartbeats.to_string(),
                format!("{:.1}", step.opening_s),
                step.quiet_cpu_percent.map_or_else(unknown, |percent| format!("{percent:.2}")),
            ];
            let _ = writeln!(text, "{}", row.map(|value| format!("{value:>13}")).join(""));
        }
        let _ = writeln!(text, "baseline: {} MiB without connections", self.baseline_bytes.map_or_else(unknown, mib));
        let per_connection = self.bytes_per_connection.map_or_else(unknown, |bytes| format!("{bytes:.0}"));
        let _ = writeln!(text, "bytes_per_connection: {per_connection}");
        for failure in &self.failures {
            let _ = writeln!(text, "failed: {failure}");
        }
        text
    }
}

/// Runs the measurement.
///
/// # Errors
/// When it could not be made; connections that were refused or lost are part of the result.
pub fn run(args: &IdleArgs) -> Result<IdleResult> {
    ensure!(
        args.connections.is_sorted() && args.connections.iter().all(|n| *n > 0),
        "--connections must ascend from 1"
    );
    let most = args.connections.last().copied().unwrap_or(0);
    let open_files = proc::raise_open_files()?;
    let needed = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(OTHER_FILES);
    ensure!(
        open_files >= needed,
        "{most} connections need {needed} open files; this machine allows {open_files} (ulimit -Hn)"
    );

    let cluster = args.cluster.then(|| Cluster::start(args.node.dir.as_ref())).transpose()?;
    let mut node_args = args.node.clone();
    node_args.settings.extend(cluster.iter().flat_map(|cluster| cluster.settings(1)));
    let mut node = Node::start(&node_args)?;
    let tokens = register_all(node.url(), most)?;
    node.restart().context("starting the node anew")?;
    if !node.is_own() {
        say("note: this node was not started anew, so memory it used for registering may be reused by connections");
    }
    let result = measure(args, &node, &tokens)?;
    node.stop()?;
    Ok(result)
}

fn register_all(url: &str, count: usize) -> Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let progress = Progress::new("registering accounts", u64::try_from(count)?);
    let since = ambient::now();
    let api = Api::new(url)?;
    let run = people::run_name();
    let tokens = runtime.block_on(async {
        let register = |i: usize| {
            let (api, username, progress) = (api.clone(), format!("{run}-{i}"), progress.clone());
            let task = tokio::spawn(async move {
                let token = people::register_bare(&api, &username, &mut ambient::system_rng()).await?;
                progress.one();
                anyhow::Ok(token)
            });
            async move { task.await? }
        };
        stream::iter(0..count).map(register).buffered(REGISTERING).try_collect::<Vec<String>>().await
    })?;
    progress.done(&format!("{} in {:.1} s", grouped(u64::try_from(count)?), since.elapsed().as_secs_f64()));
    Ok(tokens)
}

fn measure(args: &IdleArgs, node: &Node, tokens: &[String]) -> Result<IdleResult> {
    let mut fleet = Fleet::new(node.url())?;
    let mut watch = Watch::default();
    quiet(&mut fleet, &mut watch, BASELINE_REST)?;
    let resident = || node.pid().map(proc::memory).transpose().map(|memory| memory.map(|memory| memory.resident_bytes));
    let baseline_bytes = resident()?;
    let mut steps = Vec::new();
    for &connections in &args.connections {
        let opening_s = open(args, &mut fleet, &mut watch, tokens, connections)?;
        watch.pings.fill(0);
        let quiet_cpu_percent = settle(args, node, &mut fleet, &mut watch)?;
        let resident_bytes = resident()?;
        let heartbeats = watch.pings.iter().sum();
        let alive = echo(&mut fleet, &mut watch)?;
        say(&format!("{connections} connections: {} MiB, {alive} alive", resident_bytes.map_or_else(String::new, mib)));
        steps.push(IdleStep { connections, resident_bytes, alive, heartbeats, opening_s, quiet_cpu_percent });
    }
    let bytes_per_connection = per_connection(baseline_bytes, &steps);
    Ok(IdleResult { baseline_bytes, steps, bytes_per_connection, failures: watch.failures })
}

/// The slope over the steps; with a single step, over it and the baseline.
fn per_connection(baseline: Option<u64>, steps: &[IdleStep]) -> Option<f64> {
    let mut points = Vec::new();
    if let ([_], Some(bytes)) = (steps, baseline) {
        points.push((0.0, as_f64(bytes)));
    }
    for step in steps {
        points.push((as_f64(u64::try_from(step.connections).ok()?), as_f64(step.resident_bytes?)));
    }
    slope(&points)
}

fn open(args: &IdleArgs, fleet: &mut Fleet, watch: &mut Watch, tokens: &[String], connections: usize) -> Result<f64> {
    let progress = Progress::new("opening connections", u64::try_from(connections)?);
    let since = ambient::now();
    let fresh = tokens[watch.pings.len()..connections].iter().map(String::as_str);
    watch.pings.resize(connections, 0);
    watch.pongs.resize(connections, 0);
    let show = progress.clone();
    fleet.open_all(fresh, args.at_once, watch, |live| show.set(u64::try_from(live).unwrap_or(0)))?;
    let opening_s = since.elapsed().as_secs_f64();
    progress.done(&format!("{} open after {opening_s:.1} s", grouped_f64(as_f64(u64::try_from(fleet.live())?))));
    Ok(opening_s)
}

/// Waits until the node has pinged every connection (or as long as the user said), and tells its processor time meanwhile.
fn settle(args: &IdleArgs, node: &Node, fleet: &mut Fleet, watch: &mut Watch) -> Result<Option<f64>> {
    let (since, cpu_before) = (ambient::now(), node.pid().map(proc::cpu).transpose()?);
    let longest = args.settle.unwrap_or(watch.ping_interval.saturating_mul(2) + Duration::from_secs(10));
    while since.elapsed() < longest {
        fleet.turn(Duration::from_millis(50), watch)?;
        if args.settle.is_none() && watch.pings.iter().all(|pings| *pings > 0) {
            break;
        }
    }
    let missed = watch.pings.iter().filter(|pings| **pings == 0).count();
    if args.settle.is_none() && missed > 0 {
        watch.failures.push(format!("{missed} connections were not pinged within {longest:?}"));
    }
    let Some((pid, before)) = node.pid().zip(cpu_before) else { return Ok(None) };
    let used = proc::cpu(pid)?.saturating_sub(before);
    Ok(Some(100.0 * used.as_secs_f64() / since.elapsed().as_secs_f64()))
}

fn quiet(fleet: &mut Fleet, watch: &mut Watch, time: Duration) -> Result<()> {
    let since = ambient::now();
    while since.elapsed() < time {
        fleet.turn(Duration::from_millis(50), watch)?;
    }
    Ok(())
}

/// Pings on every connection and counts those that answer: being connected is not the same as being served.
fn echo(fleet: &mut Fleet, watch: &mut Watch) -> Result<usize> {
    watch.pongs.fill(0);
    fleet.ping_all(watch);
    let since = ambient::now();
    let mut alive = 0;
    while alive < fleet.live() && since.elapsed() < ECHO_TIMEOUT {
        fleet.turn(Duration::from_millis(20), watch)?;
        alive = watch.pongs.iter().filter(|pongs| **pongs > 0).count();
    }
    Ok(alive)
}

/// Counts what happens to the connections.
#[derive(Default)]
struct Watch {
    /// Of the node, per connection.
    pings: Vec<usize>,
    /// To our pings, per connection.
    pongs: Vec<usize>,
    ping_interval: Duration,
    failures: Vec<String>,
}

impl Handler for Watch {
    fn live(&mut self, _: usize, hello: &wire::Hello, _: &mut Connection) {
        self.ping_interval = Duration::from_millis(hello.ping_interval_ms.into());
    }

    fn frame(&mut self, index: usize, frame: node_frame::Frame, _: u64, _: std::time::Instant, _: &mut Connection) {
        let what = match frame {
            node_frame::Frame::Draining(_) => "the node is shutting down",
            _ => "the node sent something to a device that nobody writes to",
        };
        self.failures.push(format!("connection {index}: {what}"));
    }

    fn pinged(&mut self, index: usize) {
        self.pings[index] += 1;
    }

    fn ponged(&mut self, index: usize) {
        self.pongs[index] += 1;
    }

    fn gone(&mut self, index: usize, why: &str) {
        self.failures.push(format!("connection {index}: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(connections: usize, resident_bytes: u64) -> IdleStep {
        IdleStep {
            connections,
            resident_bytes: Some(resident_bytes),
            alive: connections,
            heartbeats: connections,
            opening_s: 1.0,
            quiet_cpu_percent: Some(0.5),
        }
    }

    #[test]
    fn several_steps_make_the_slope_without_the_baseline() {
        let steps = [step(1000, 13_000_000), step(2000, 16_000_000)];
        assert_eq!(per_connection(Some(1), &steps), Some(3000.0));
    }

    #[test]
    fn a_single_step_is_compared_with_the_baseline() {
        assert_eq!(per_connection(Some(10_000_000), &[step(1000, 12_500_000)]), Some(2500.0));
        assert_eq!(per_connection(None, &[step(1000, 12_500_000)]), None);
    }

    #[test]
    fn a_lost_connection_is_not_clean() {
        let mut result =
            IdleResult { baseline_bytes: None, steps: vec![step(10, 1)], bytes_per_connection: None, failures: vec![] };
        assert!(result.is_clean());
        result.steps[0].alive = 9;
        assert!(!result.is_clean());
        assert!(result.text().contains("bytes_per_connection: unknown"));
    }
}
