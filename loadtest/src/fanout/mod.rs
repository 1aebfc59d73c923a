//! One group, many readers: members of a large conversation that all follow its log, and one that writes to it at a given rate.
//!
//! [`crate::group`] makes the group, connects its readers and sends by the clock on a thread of its own, [`readers`] count and check what
//! comes, [`result`] says what it all came to.
//!
//! The loop is open: message n is due at a given moment whatever became of those before it, and latencies count from that moment. So a
//! node, or this program, that falls behind shows it.

mod readers;
mod result;

use std::time::Duration;

use anyhow::{Result, ensure};

pub use result::{FanoutResult, Step};

use crate::{
    cli::FanoutArgs,
    costs::{Clock, Costs},
    group::{
        log::Log,
        stage::Stage,
        writer::{Schedule, Writer},
    },
    node::{Node, proc},
    progress::{Progress, say},
};
use readers::Readers;

/// Open files beside the connections.
const OTHER_FILES: u64 = 200;
/// Nothing moves for so long: what is missing then is lost.
const PATIENCE: Duration = Duration::from_secs(30);
/// Rest between two steps.
const REST: Duration = Duration::from_secs(2);

/// Sockets with news that are few …
const FEW: usize = 64;
/// … after which more of them may gather for so long. Otherwise each message to the first reader wakes this program, on the cores that it
/// shares with the node, and so does the next one. It is part of the latencies.
const GATHER: Duration = Duration::from_micros(500);

/// Runs the measurement.
///
/// # Errors
/// When it could not be made; what was lost or repeated is part of the result.
pub fn run(args: &FanoutArgs) -> Result<FanoutResult> {
    let members = usize::try_from(args.members)?;
    ensure!(args.stop < args.members, "--stop must leave somebody who reads");
    let open_files = proc::raise_open_files()?;
    let needed = u64::from(args.members) + OTHER_FILES;
    ensure!(open_files >= needed, "this needs {needed} open files; this machine allows {open_files} (ulimit -Hn)");
    let mut node_args = args.node.clone();
    if node_args.server.is_none() {
        // The writer is a member too.
        node_args.settings.insert(0, format!("conversations.max_members_large={}", members + 1));
        if args.stop > 0 {
            // Whoever does not read does not answer pings either, and is not to be cut off for that here.
            node_args.settings.insert(0, "socket.ping_interval=10m".to_owned());
            node_args.settings.insert(0, "socket.pong_timeout=10m".to_owned());
        }
    }
    let node = Node::start(&node_args)?;
    let mut stage = Stage::set(&node, members)?;
    let mut result = FanoutResult::new(args, stage.memory_per_reader);
    for rate in &args.rate {
        result.steps.push(step(args, &node, &mut stage, *rate)?);
    }
    node.stop()?;
    Ok(result)
}

/// One rate.
fn step(args: &FanoutArgs, node: &Node, stage: &mut Stage, rate: u32) -> Result<Step> {
    let schedule = Schedule::new(rate, args.warm_up, Duration::from_secs(args.seconds.into()));
    let contents = stage.contents(schedule.count(), usize::try_from(args.content_bytes)?);
    say(&format!(
        "{rate} messages/s to {} readers: {} of warm-up, then {} s",
        args.members,
        fmt(args.warm_up),
        args.seconds
    ));
    let mut readers =
        Readers::new(stage.members(), Log::new(stage.head, contents.clone()), usize::try_from(args.stop)?);
    let writer = Writer::start(node.url(), &stage.writer, stage.conversation, stage.head, contents, schedule)?;
    let schedule = writer.schedule();
    readers.schedule(schedule);
    let progress = Progress::new("messages", schedule.count() as u64);
    let mut clock = Clock::default();
    // To the end of what counts, also where the last message has come before it.
    while (crate::ambient::now() < schedule.span().1 || !readers.is_complete()) && readers.quiet_for() < PATIENCE {
        let count = stage.fleet.turn(Duration::from_millis(20), &mut readers)?;
        clock.look(node, schedule.span())?;
        readers.stop_and_go(&mut stage.fleet, args.stop_for);
        progress.count(|| readers.least().unwrap_or(0));
        if (1..FEW).contains(&count) {
            crate::ambient::rest(GATHER);
        }
    }
    progress.done("");
    clock.look(node, schedule.span())?;
    let written = writer.join()?;
    stage.head += written.accepted;
    // A log has gone on for everybody who reads the next step.
    let costs = Costs::new(&clock, readers.in_time, node)?;
    let step = Step::new(args, rate, &readers, &written, &clock, costs);
    crate::ambient::rest(REST);
    Ok(step)
}

fn fmt(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
