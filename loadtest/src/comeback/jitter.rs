//! Bad networks: each socket is cut again and again, its client is away for a while, and messages go on.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{
    clients::{Clients, Cuts},
    result::ComebackResult,
};
use crate::{
    cli::JitterArgs,
    costs::{Clock, Costs},
    group::{
        log::Log,
        stage::Stage,
        writer::{Schedule, Writer},
    },
    node::{Node, proc},
    progress::{Progress, say},
};

/// Nothing moves for so long: what is missing then is lost.
const PATIENCE: Duration = Duration::from_secs(30);
/// Open files beside the connections.
const OTHER_FILES: u64 = 200;

/// Runs the measurement.
///
/// # Errors
/// When it could not be made; what was lost or repeated is part of the result.
pub fn jitter(args: &JitterArgs) -> Result<ComebackResult> {
    let count = usize::try_from(args.clients)?;
    let open_files = proc::raise_open_files()?;
    let needed = u64::from(args.clients) + OTHER_FILES;
    ensure!(open_files >= needed, "this needs {needed} open files; this machine allows {open_files} (ulimit -Hn)");
    let mut node_args = args.node.clone();
    if node_args.server.is_none() {
        node_args.settings.insert(0, format!("conversations.max_members_large={}", count + 1));
    }
    let node = Node::start(&node_args)?;
    let mut stage = Stage::set(&node, count)?;
    let contents = stage.contents(usize::try_from(args.messages)?, usize::try_from(args.content_bytes)?);
    let cuts = Cuts { every: args.every, away: args.away };
    let mut clients = Clients::new(&stage, Log::new(stage.head, contents.clone()), Some(cuts));
    let schedule = Schedule::spread(args.messages, args.over);
    say(&format!(
        "{} messages over {:.0?}; each of {count} sockets is cut about every {:.0?} and away for about {:.1?}",
        args.messages, args.over, args.every, args.away
    ));
    let writer = Writer::start(node.url(), &stage.writer, stage.conversation, stage.head, contents, schedule)?;
    clients.schedule(writer.schedule());
    let (start, end) = writer.schedule().span();
    let (mut clock, mut in_time) = (Clock::default(), 0);
    let progress = Progress::new("seconds", args.over.as_secs());
    while crate::ambient::now() < end || (!clients.is_settled() && clients.quiet_for() < PATIENCE) {
        stage.fleet.turn(Duration::from_millis(5), &mut clients)?;
        clients.act(&mut stage.fleet);
        clock.look(&node, (start, end))?;
        let now = crate::ambient::now();
        if now > end {
            clients.make_peace();
        } else {
            in_time = clients.entries;
        }
        progress.set(now.saturating_duration_since(start).as_secs().min(args.over.as_secs()));
    }
    progress.done("");
    clock.look(&node, (start, end))?;
    let written = writer.join()?;
    clients.explain(&stage.fleet);
    let costs = Costs::new(&clock, in_time, &node)?;
    let result = ComebackResult::new(args.clients, args.messages, &clients, &written, costs);
    node.stop()?;
    Ok(result)
}
