//! A node that is restarted under all its clients: they find their sockets gone at once, and come back at once.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::{clients::Clients, result::ComebackResult};
use crate::{
    ambient,
    cli::StormArgs,
    costs::Costs,
    group::{
        log::Log,
        stage::Stage,
        writer::{Schedule, Writer},
    },
    node::{Node, proc},
    progress::{Progress, say},
};

/// Nothing moves for so long: what is missing then is lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// Open files beside the connections.
const OTHER_FILES: u64 = 200;
/// How long a client has to find that its socket is gone.
const NOTICING: Duration = Duration::from_secs(5);

/// Runs the measurement.
///
/// # Errors
/// When it could not be made; who did not come back and what was lost is part of the result.
pub fn storm(args: &StormArgs) -> Result<ComebackResult> {
    let count = usize::try_from(args.clients)?;
    let open_files = proc::raise_open_files()?;
    let needed = u64::from(args.clients) + OTHER_FILES;
    ensure!(open_files >= needed, "this needs {needed} open files; this machine allows {open_files} (ulimit -Hn)");
    ensure!(args.node.server.is_none(), "a storm restarts its node, so it starts one of its own");
    let mut node_args = args.node.clone();
    node_args.settings.insert(0, format!("conversations.max_members_large={}", count + 1));
    let mut node = Node::start(&node_args)?;
    let mut stage = Stage::set(&node, count)?;
    let contents = stage.contents(usize::try_from(args.messages)?, usize::try_from(args.content_bytes)?);
    let mut clients = Clients::new(&stage, Log::new(stage.head, contents.clone()), None);

    say(&format!("killing the node under {count} clients"));
    clients.mark();
    node.kill().context("killing the node")?;
    let since = ambient::now();
    while stage.fleet.live() > 0 {
        stage.fleet.turn(Duration::from_millis(5), &mut clients)?;
        if since.elapsed() > NOTICING {
            bail!("{} sockets outlived their node", stage.fleet.live());
        }
    }
    node.restart().context("starting the node anew")?;
    let back_from = ambient::now();
    stage.fleet.move_to(node.url())?;
    let schedule = Schedule::spread(args.messages, args.over);
    let writer = Writer::start(node.url(), &stage.writer, stage.conversation, stage.head, contents, schedule)?;
    clients.schedule(writer.schedule());
    let progress = Progress::new("back and caught up", u64::from(args.clients));
    while (clients.back() < count || !clients.is_complete()) && clients.quiet_for() < PATIENCE {
        stage.fleet.turn(Duration::from_millis(5), &mut clients)?;
        clients.act(&mut stage.fleet);
        progress.set(clients.back() as u64);
    }
    progress.done("");
    let written = writer.join()?;
    clients.explain(&stage.fleet);
    // The node's processor time since its start is not that of a time that counts.
    let costs = Costs { memory: node.pid().map(proc::memory).transpose()?, ..Costs::default() };
    let mut result = ComebackResult::new(args.clients, args.messages, &clients, &written, costs);
    result.back(&clients, back_from);
    node.stop()?;
    Ok(result)
}
