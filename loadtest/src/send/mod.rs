//! What a node carries: devices that send encrypted messages, and all who get them.
//!
//! [`crowd`] makes the accounts, [`write`] encrypts the messages before the clock starts, [`drive`] sends and receives them, [`verify`]
//! opens what came, [`compare`] writes the same rows one by one, [`result`] says what it all came to.
//!
//! The loop is closed unless a rate is given: a sender has a bounded number of unanswered sends, so the rate is what the node takes, and
//! latencies are those at that rate. With `--rate` it is open, and latencies count from the moment a send was due. Devices that are away
//! are not measured.

mod compare;
pub(crate) mod crowd;
mod drive;
pub(crate) mod ends;
mod result;
mod tally;
pub(crate) mod verify;
pub(crate) mod write;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

pub use compare::Comparison;
pub use result::{Memories, SendResult};
pub use verify::Verified;

use crate::{
    cli::SendArgs,
    figures::{as_f64, grouped_f64, rate},
    node::{Cluster, Node, Parts, proc},
    progress::{Progress, say},
    socket::{Fleet, Spread},
};
use crowd::Circle;
use drive::{Drive, Pace};
use ends::AckPace;
use result::Clocked;
use verify::Sent;
use write::Writer;

/// Messages per sender that fill the node's caches.
const COLD_MESSAGES: usize = 15;
/// Messages per sender with which the rate is found out.
const TRIAL_MESSAGES: usize = 40;
/// What the trial says is needed is prepared this many times over, since a short run is slower than a long one.
const PREPARE_MARGIN: f64 = 1.6;
/// Longest time for anything that runs out by itself.
const LONG: Duration = Duration::from_secs(3600);
/// Connections being opened at once.
const AT_ONCE: usize = 128;
/// Open files beside the connections.
const OTHER_FILES: usize = 200;

/// Runs the measurement.
///
/// # Errors
/// When it could not be made; what was refused, lost or repeated is part of the result.
pub fn run(args: &SendArgs) -> Result<SendResult> {
    let senders = usize::try_from(args.senders)?;
    let devices = usize::try_from(args.devices)?;
    let open_files = proc::raise_open_files()?;
    let needed = u64::try_from(senders * (devices + 1) + OTHER_FILES)?;
    ensure!(open_files >= needed, "this needs {needed} open files; this machine allows {open_files} (ulimit -Hn)");

    let mut cluster = args.cluster.map(|_| Cluster::start(args.node.dir.as_ref())).transpose()?;
    let nodes = start_nodes(args, cluster.as_ref())?;
    let circles = crowd::make(nodes[0].url(), senders, devices)?;
    let mut load = Load::connect(args, &nodes, circles)?;
    load.prepare()?;
    let clocked = load.measure(&nodes, cluster.as_mut())?;
    let is_drained = load.drive.drain(&mut load.fleet)?;
    if !is_drained {
        say("not everything came; see below");
    }
    let result = load.conclude(&nodes[0], cluster.as_ref(), clocked)?;
    nodes.into_iter().try_for_each(Node::stop)?;
    Ok(result)
}

/// The one node that the arguments name, or all of a cluster.
fn start_nodes(args: &SendArgs, cluster: Option<&Cluster>) -> Result<Vec<Node>> {
    let Some(cluster) = cluster else { return Ok(vec![Node::start(&args.node)?]) };
    let of_cluster = |number: usize| {
        let mut own = args.node.clone();
        own.settings.extend(cluster.settings(number));
        Node::start(&own)
    };
    (1..=usize::from(args.cluster.unwrap_or(1))).map(of_cluster).collect()
}

/// Processor time so far.
struct Cpu {
    /// Of all nodes, if they are known.
    nodes: Option<Duration>,
    /// Of this program.
    own: Duration,
    /// Of PostgreSQL and Redis, in a cluster.
    shared: Option<(Duration, Duration)>,
}

impl Cpu {
    fn read(nodes: &[Node], cluster: Option<&Cluster>) -> Result<Self> {
        let of_nodes = nodes.iter().map(|node| node.pid().map(proc::cpu).transpose());
        let of_nodes: Option<Vec<Duration>> = of_nodes.collect::<Result<_>>()?;
        let nodes = of_nodes.map(|times| times.into_iter().sum());
        Ok(Self { nodes, own: proc::cpu(std::process::id())?, shared: cluster.map(Cluster::cpu).transpose()? })
    }
}

/// The measurement while it runs.
struct Load<'a> {
    args: &'a SendArgs,
    circles: Vec<Circle>,
    writers: Vec<Writer>,
    fleet: Fleet,
    drive: Drive,
}

impl<'a> Load<'a> {
    fn connect(args: &'a SendArgs, nodes: &[Node], circles: Vec<Circle>) -> Result<Self> {
        let pace = Pace {
            window: usize::try_from(args.window)?,
            acks: AckPace { entries: args.ack_entries.into(), delay: args.ack_delay },
        };
        let devices_per_circle = usize::try_from(args.devices)? + 1;
        let spread = Spread { nodes: nodes.len(), group: devices_per_circle };
        let mut drive = Drive::new(pace, circles.len(), spread);
        let urls: Vec<&str> = nodes.iter().map(Node::url).collect();
        let mut fleet = Fleet::over(&urls, devices_per_circle)?;
        let count = circles.len() * devices_per_circle;
        let progress = Progress::new("connecting devices", u64::try_from(count)?);
        let tokens = circles.iter().flat_map(Circle::devices).map(|device| device.token.as_str());
        let show = progress.clone();
        fleet.open_all(tokens, AT_ONCE, &mut drive, |live| show.set(u64::try_from(live).unwrap_or(0)))?;
        progress.done("");
        ensure!(fleet.live() == count, "{} of {count} devices could connect: {:?}", fleet.live(), drive.troubles());
        let writers = circles.iter().map(|_| Writer::new()).collect();
        Ok(Self { args, circles, writers, fleet, drive })
    }

    /// Encrypts enough messages: as many as the user says, or as a trial run says.
    fn prepare(&mut self) -> Result<()> {
        if let Some(rate) = self.args.rate {
            // Caches are filled by a first message of everyone.
            self.try_out(1)?;
            let seconds = f64::from(self.args.seconds) + self.args.warm_up.as_secs_f64();
            let needed = whole(f64::from(rate) * seconds / as_f64(u64::try_from(self.circles.len())?)) + 1;
            return self.write(self.args.prepare.map_or(Ok(needed), usize::try_from)?);
        }
        if let Some(count) = self.args.prepare {
            return self.write(usize::try_from(count)?);
        }
        // Once with everything cold, which does not count, and once more.
        self.try_out(COLD_MESSAGES)?;
        let (accepted, time) = self.try_out(TRIAL_MESSAGES)?;
        let per_second = rate(accepted, time);
        let seconds = f64::from(self.args.seconds) + self.args.warm_up.as_secs_f64();
        let needed = per_second * seconds * PREPARE_MARGIN / as_f64(u64::try_from(self.circles.len())?);
        say(&format!("trial: {} sends/s; preparing for more", grouped_f64(per_second)));
        self.write(whole(needed).max(TRIAL_MESSAGES))
    }

    /// Sends this many messages per sender; tells how many were accepted until the first sender had none left, and how long that took.
    fn try_out(&mut self, count: usize) -> Result<(u64, Duration)> {
        self.write(count)?;
        let before: u64 = self.drive.accepted().sum();
        let time = self.drive.send_for(&mut self.fleet, LONG)?;
        let accepted = self.drive.accepted().sum::<u64>() - before;
        self.drive.drain(&mut self.fleet).context("the trial")?;
        Ok((accepted, time))
    }

    fn write(&mut self, count: usize) -> Result<()> {
        let text_bytes = usize::try_from(self.args.text_bytes)?;
        let (fleet, drive) = (&mut self.fleet, &mut self.drive);
        let meanwhile = || drive.turn(fleet, Duration::from_millis(100));
        let frames = write::write_all(&mut self.writers, &self.circles, count, text_bytes, meanwhile)?;
        self.drive.load(frames);
        Ok(())
    }

    /// Warms up, then counts.
    fn measure(&mut self, nodes: &[Node], mut cluster: Option<&mut Cluster>) -> Result<Clocked> {
        let seconds = Duration::from_secs(self.args.seconds.into());
        say(&format!("warming up for {:.0?}, then measuring for {seconds:.0?}", self.args.warm_up));
        self.send(self.args.warm_up)?;
        let before = Cpu::read(nodes, cluster.as_deref())?;
        let parts_before = parts(nodes)?;
        self.drive.start_clock();
        let time = match (self.args.stop_redis, &mut cluster) {
            (Some(away), Some(cluster)) => self.send_without_relay(seconds, away, cluster)?,
            _ => self.send(seconds)?,
        };
        self.drive.stop_clock();
        let after = Cpu::read(nodes, cluster.as_deref())?;
        let parts = parts(nodes)?.zip(parts_before).map(|(after, before)| after.since(&before)).unwrap_or_default();
        let node_cpu = after.nodes.zip(before.nodes).map(|(after, before)| after.saturating_sub(before));
        let own_cpu = after.own.saturating_sub(before.own);
        // A Redis that was started anew has used nothing before.
        let shared_cpu = after.shared.zip(before.shared).map(|(after, before)| {
            let redis = if self.args.stop_redis.is_some() { after.1 } else { after.1.saturating_sub(before.1) };
            (after.0.saturating_sub(before.0), redis)
        });
        let memory = nodes[0].pid().map(proc::memory).transpose()?;
        Ok(Clocked { time, node_cpu, own_cpu, shared_cpu, memory, parts, ran_out: time < seconds })
    }

    /// Sends for so long, as asked for.
    fn send(&mut self, time: Duration) -> Result<Duration> {
        match self.args.rate {
            Some(rate) => self.drive.send_at(&mut self.fleet, rate, time),
            None => self.drive.send_for(&mut self.fleet, time),
        }
    }

    /// Sends for so long, with Redis stopped in the middle of it.
    fn send_without_relay(&mut self, whole: Duration, away: Duration, cluster: &mut Cluster) -> Result<Duration> {
        ensure!(away < whole, "--stop-redis must be shorter than --seconds");
        let part = (whole - away) / 2;
        let mut time = self.drive.send_for(&mut self.fleet, part)?;
        say(&format!("stopping Redis for {away:.0?}"));
        cluster.stop_redis()?;
        self.drive.relay_lost(true);
        time += self.drive.send_for(&mut self.fleet, away)?;
        self.drive.relay_lost(false);
        cluster.start_redis()?;
        say("Redis runs again");
        time += self.drive.send_for(&mut self.fleet, part)?;
        Ok(time)
    }

    /// Checks what came, and compares.
    fn conclude(self, node: &Node, cluster: Option<&Cluster>, clocked: Clocked) -> Result<SendResult> {
        let Self { args, circles, writers, fleet, drive } = self;
        let text_bytes = usize::try_from(args.text_bytes)?;
        let parts = circles.iter().zip(&writers).zip(drive.accepted());
        let sent: Vec<Sent<'_>> =
            parts.map(|((circle, writer), accepted)| Sent { circle, ids: &writer.ids, accepted, text_bytes }).collect();
        drop(fleet);
        let mut verified = verify::open_all(&sent, drive.boxes(), args.sample.into())?;
        verified.undrained = verify::undrained(node.url(), &sent)?;
        let devices = usize::try_from(args.devices)?;
        let forks = drive.tally().accepted * u64::from(args.devices);
        let comparison = match (args.rate, cluster) {
            // At a given rate there is nothing to compare.
            (Some(_), _) => None,
            (None, None) => Some(compare::run(node.folder(), drive.boxes(), devices + 1, forks, args.compare)?),
            (None, Some(cluster)) => Some(compare::single_rows(cluster, drive.boxes(), forks, args.compare)?),
        };
        Ok(SendResult::new(args, &drive, &clocked, verified, comparison))
    }
}

/// Of all nodes, if this program started them.
fn parts(nodes: &[Node]) -> Result<Option<Parts>> {
    let of_nodes: Option<Vec<Parts>> = nodes.iter().map(Node::parts).collect::<Result<_>>()?;
    Ok(of_nodes.and_then(|parts| parts.into_iter().reduce(Parts::and)))
}

/// The next whole number, as a count.
fn whole(number: f64) -> usize {
    format!("{:.0}", number.max(0.0).ceil()).parse().unwrap_or(usize::MAX)
}
