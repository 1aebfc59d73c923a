//! Our node beside nchan, in turns in one run on one machine: what a subscriber's connection costs in memory, and how fast a burst of
//! messages to one channel reaches all of them.
//!
//! Both get the same subscribers: sockets of one [`Fleet`], whose every message is counted and compared with what was published
//! ([`subscribers`]), so that this side costs the same. [`contestants`] starts the servers and publishes; [`result`] says what it came to.
//! Each turn begins with a process that was just started. What differs is in our disfavour: our subscribers are authenticated devices with
//! a mailbox and heartbeats, each message is on disk before it goes out, and it is told to each with its place in the log.

mod contestants;
mod result;
mod subscribers;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use rand::Rng as _;

pub use result::{PeersResult, Side, Turn};

use crate::{
    ambient,
    cli::PeersArgs,
    figures::grouped,
    node::proc,
    progress::{Progress, say},
    socket::Fleet,
};
use contestants::{Contestant, Nchan, Ours, Published};
use subscribers::Subscribers;

/// Open files beside the connections.
const OTHER_FILES: u64 = 200;
/// Rest of a server before its memory is read.
const REST: Duration = Duration::from_secs(3);
/// Subscribers that come and go first: as many as are ever connecting at once.
const FIRST: usize = contestants::AT_ONCE;
/// Nothing moves for so long: what is missing then is lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the measurement.
///
/// # Errors
/// When it could not be made; messages that did not arrive are part of the result.
pub fn run(args: &PeersArgs) -> Result<PeersResult> {
    ensure!(args.node.server.is_none(), "peers starts its own node, each turn anew; it takes no --server");
    let open_files = proc::raise_open_files()?;
    let needed = u64::from(args.subscribers) + OTHER_FILES;
    ensure!(open_files >= needed, "this needs {needed} open files; this machine allows {open_files} (ulimit -Hn)");
    let mut nchan = Nchan::new(args);
    // First, because it is soon told that it is missing.
    nchan.start().context("nchan")?;
    nchan.stop()?;
    let mut ours = Ours::prepare(args)?;
    let (mut of_ours, mut of_nchan) = (Vec::new(), Vec::new());
    for number in 1..=args.turns {
        of_ours.push(turn(args, &mut ours, number).with_context(|| format!("our turn {number}"))?);
        of_nchan.push(turn(args, &mut nchan, number).with_context(|| format!("nchan's turn {number}"))?);
    }
    Ok(PeersResult::new(args, of_ours, of_nchan))
}

/// One server, from its start to its end.
fn turn(args: &PeersArgs, contestant: &mut impl Contestant, number: u32) -> Result<Turn> {
    let memory = Memory::begin(args, contestant)?;
    let (mut fleet, head) = contestant.connect(args.subscribers as usize)?;
    let contents = contents(args);
    let mut subscribers = Subscribers::new(contestant.wire(), args.subscribers as usize, head, contents.clone());
    rest(&mut fleet, &mut subscribers)?;
    let memory = Memory { connected: resident(contestant)?, ..memory };
    let (cpu, own) = (cpu(contestant)?, proc::cpu(std::process::id())?);

    let join = contestant.publish(head, contents)?;
    let progress = Progress::new("deliveries", subscribers.due());
    subscribers.begin();
    while !subscribers.is_complete() && subscribers.quiet_for() < PATIENCE {
        fleet.turn(Duration::from_millis(20), &mut subscribers)?;
        progress.set(subscribers.deliveries);
    }
    progress.done("");
    let published = join()?;
    let (cpu, own) = (cpu_since(contestant, cpu)?, proc::cpu(std::process::id())?.saturating_sub(own));
    drop(fleet);
    contestant.stop()?;
    let turn = Turn::new(args, memory, &subscribers, published, (cpu, own));
    say(&format!("{} {number}: {turn}", contestant.name()));
    Ok(turn)
}

fn contents(args: &PeersArgs) -> Arc<[Bytes]> {
    let mut rng = ambient::system_rng();
    let content = |_| {
        let mut content = vec![0; args.content_bytes as usize];
        rng.fill_bytes(&mut content);
        Bytes::from(content)
    };
    (0..args.messages).map(content).collect()
}

/// Lets a server come to rest, its pings being answered.
fn rest(fleet: &mut Fleet, subscribers: &mut Subscribers) -> Result<()> {
    let since = ambient::now();
    while since.elapsed() < REST {
        fleet.turn(Duration::from_millis(50), subscribers)?;
    }
    Ok(())
}

/// Resident memory of a server, in bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Memory {
    /// Just started.
    fresh: u64,
    /// After a few subscribers have come and gone: what a server loads and allocates once is there now, and no connection's.
    baseline: u64,
    /// With all subscribers.
    connected: u64,
}

impl Memory {
    fn begin(args: &PeersArgs, contestant: &mut impl Contestant) -> Result<Self> {
        contestant.start()?;
        ambient::rest(REST);
        let fresh = resident(contestant)?;
        let first = FIRST.min(args.subscribers as usize);
        let (mut fleet, head) = contestant.connect(first)?;
        rest(&mut fleet, &mut Subscribers::new(contestant.wire(), first, head, [].into()))?;
        drop(fleet);
        ambient::rest(REST);
        Ok(Self { fresh, baseline: resident(contestant)?, connected: 0 })
    }
}

/// Of all its processes, what they share counted once.
fn resident(contestant: &impl Contestant) -> Result<u64> {
    contestant.processes()?.into_iter().map(proc::share_of_memory).sum()
}

fn cpu(contestant: &impl Contestant) -> Result<Duration> {
    contestant.processes()?.into_iter().map(proc::cpu).sum()
}

fn cpu_since(contestant: &impl Contestant, before: Duration) -> Result<Duration> {
    Ok(cpu(contestant)?.saturating_sub(before))
}

/// For messages to people.
fn count(number: usize) -> String {
    grouped(number as u64)
}
