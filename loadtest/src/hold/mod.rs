//! Very many connections to one node: each authenticated, resumed and subscribed to a large conversation's log, and each gets one message
//! through it. The accounts are those of [`crate::population`], so nobody is registered here and no token is stored.
//!
//! In reading order: [`over`] (a node over an imported store), [`holder`] (what each connection has come to), [`result`].

mod args;
mod holder;
mod over;
mod result;

use std::{collections::HashMap, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use martlet_client::api::Api;
use martlet_protocol::{id::ConversationId, rest::ConversationKind, wire::client_frame};
use rand::Rng as _;

use crate::{
    ambient,
    figures::{as_f64, grouped, mib},
    group::writer,
    node::{Node, proc},
    population::people::People,
    progress::{Progress, say},
    socket::{Fleet, put},
};
pub use args::HoldArgs;
use holder::{Holder, Written};
pub use result::{HoldResult, HoldStep};

/// Open files beside the connections.
const OTHER_FILES: u64 = 200;
/// Tokens that are derived at once; a step's last ones wait for those before, so it is much more than are under way.
const BATCH: u32 = 16_384;
/// How often a connection that was turned away is opened again, and after which time.
const TRIES: usize = 5;
/// See [`TRIES`].
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Rest before a node's memory is called its baseline.
const BASELINE_REST: Duration = Duration::from_secs(3);

/// How often it is told how many messages have come.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Runs the measurement.
///
/// # Errors
/// When it could not be made; what was lost or refused is part of the result.
pub fn run(args: &HoldArgs) -> Result<HoldResult> {
    let people = args.people.people()?;
    let steps = if args.connections.is_empty() { vec![people.accounts] } else { args.connections.clone() };
    let most = steps.last().copied().unwrap_or(0);
    let ascends = steps.is_sorted() && steps.iter().all(|n| *n > 0);
    ensure!(ascends && most <= people.accounts, "--connections must ascend from 1 to at most --accounts");
    let open_files = proc::raise_open_files()?;
    let needed = u64::from(most) + OTHER_FILES;
    ensure!(open_files >= needed, "this needs {needed} open files; this machine allows {open_files} (ulimit -Hn)");

    let node = over::node(args)?;
    let logs = logs(args, &node, people, most)?;
    let mut hold =
        Hold { args, node: &node, people, fleet: Fleet::new(node.url())?, holder: Holder::new(people, logs) };
    hold.rest(BASELINE_REST)?;
    let (baseline_bytes, own_before) = (hold.resident()?, own_resident()?);
    let opened = steps.iter().map(|connections| hold.open(*connections)).collect::<Result<Vec<_>>>()?;
    let own = own_resident()?.saturating_sub(own_before);
    let (delivered_in_s, node_cpu_s) = hold.write()?;
    // A message that came twice would come now.
    hold.rest(BASELINE_REST)?;
    let (source_addresses, most_per_address) = hold.addresses(most)?;
    let resident_after_bytes = hold.resident()?;
    let Hold { fleet, holder, .. } = hold;
    let result = HoldResult {
        connections: most.into(),
        alive: fleet.live() as u64,
        source_addresses,
        most_per_address,
        baseline_bytes,
        steps: opened,
        accepted: holder.accepted() as u64,
        logs: u64::from(people.log_of(most - 1)) + 1,
        delivered: holder.delivered as u64,
        delivered_in_s,
        latency: holder.latency.percentiles(),
        pings: holder.pings,
        node_cpu_s,
        resident_after_bytes,
        own_bytes_per_connection: as_f64(own) / f64::from(most),
        refusals: holder.refusals,
        troubles: holder.troubles,
    };
    drop(fleet);
    node.stop()?;
    Ok(result)
}

/// The logs that are read, which their writers know, each with a message to be written.
fn logs(args: &HoldArgs, node: &Node, people: People, connections: u32) -> Result<Vec<Written>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let api = Api::new(node.url())?;
    let mut rng = ambient::system_rng();
    let log = |log| {
        let own = api.with_token(&people.token(people.writer(log)));
        let page = runtime.block_on(own.conversations(None)).context("a log's writer was refused")?;
        let mut large = page.items.iter().filter(|found| found.kind == ConversationKind::Large);
        let found = large
            .next()
            .with_context(|| format!("the writer of log {log} has none; is it this population's store?"))?;
        let mut content = vec![0; args.content_bytes as usize];
        rng.fill_bytes(&mut content);
        Ok(written(found.conversation_id, content))
    };
    (0..=people.log_of(connections - 1)).map(log).collect()
}

fn written(conversation: ConversationId, content: Vec<u8>) -> Written {
    Written { conversation, content: content.into(), head: None, sent_at: None, is_accepted: false }
}

fn own_resident() -> Result<u64> {
    Ok(proc::memory(std::process::id())?.resident_bytes)
}

/// A measurement under way.
struct Hold<'a> {
    args: &'a HoldArgs,
    node: &'a Node,
    people: People,
    fleet: Fleet,
    holder: Holder,
}

impl Hold<'_> {
    fn resident(&self) -> Result<Option<u64>> {
        Ok(self.node.pid().map(proc::memory).transpose()?.map(|memory| memory.resident_bytes))
    }

    fn node_cpu(&self) -> Result<Option<Duration>> {
        self.node.pid().map(proc::cpu).transpose()
    }

    /// In seconds.
    fn node_cpu_since(&self, before: Option<Duration>) -> Result<Option<f64>> {
        Ok(self.node_cpu()?.zip(before).map(|(after, before)| after.saturating_sub(before).as_secs_f64()))
    }

    fn rest(&mut self, time: Duration) -> Result<()> {
        let since = ambient::now();
        while since.elapsed() < time {
            self.fleet.turn(Duration::from_millis(50), &mut self.holder)?;
        }
        Ok(())
    }

    /// Opens connections up to so many, and waits until all are subscribed.
    fn open(&mut self, connections: u32) -> Result<HoldStep> {
        let from = u32::try_from(self.holder.count())?;
        self.holder.expect(connections as usize);
        let progress = Progress::new("connecting", connections.into());
        let (cpu_before, since) = (self.node_cpu()?, ambient::now());
        let mut start = from;
        while start < connections {
            let end = connections.min(start.saturating_add(BATCH));
            let tokens: Vec<String> = (start..end).map(|account| self.people.token(account)).collect();
            let tokens = tokens.iter().map(String::as_str);
            let show = |live| progress.set(live as u64);
            self.fleet.open_all(tokens, self.args.at_once, &mut self.holder, show)?;
            self.open_again()?;
            say_plainly(end.into(), "connected", since.elapsed());
            start = end;
        }
        while self.holder.subscribed < self.fleet.live() && self.holder.quiet_for() < self.args.patience {
            self.fleet.turn(Duration::from_millis(20), &mut self.holder)?;
        }
        let (opening_s, node_cpu_s) = (since.elapsed().as_secs_f64(), self.node_cpu_since(cpu_before)?);
        self.rest(self.args.settle)?;
        let resident_bytes = self.resident()?;
        let subscribed = grouped(self.holder.subscribed as u64);
        let resident = resident_bytes.map_or_else(String::new, |bytes| format!(", {} MiB", mib(bytes)));
        progress.done(&format!("{subscribed} subscribed after {opening_s:.1} s{resident}"));
        Ok(HoldStep { connections: connections.into(), resident_bytes, opening_s, node_cpu_s })
    }

    /// Opens those once more that a busy node has turned away, as any client would.
    fn open_again(&mut self) -> Result<()> {
        for _ in 0..TRIES {
            let turned_away = self.holder.take_turned_away();
            if turned_away.is_empty() {
                break;
            }
            self.rest(TRY_AGAIN_AFTER)?;
            for index in turned_away {
                let token = self.people.token(u32::try_from(index)?);
                self.fleet.open_again(index, &token, &mut self.holder);
            }
            self.fleet.open_all([], self.args.at_once, &mut self.holder, |_| {})?;
        }
        Ok(())
    }

    /// Writes to every log, and waits for the deliveries. Tells seconds until the last one, and the node's processor time.
    fn write(&mut self) -> Result<(f64, Option<f64>)> {
        let (cpu_before, since) = (self.node_cpu()?, ambient::now());
        for (log, reference) in (0..).zip(1..=self.holder.logs().len() as u64) {
            let index = self.people.writer(log) as usize;
            let written = &mut self.holder.logs()[log as usize];
            let request = writer::request(written.conversation, written.content.clone());
            written.sent_at = Some(ambient::now());
            if let Some(connection) = self.fleet.connection(index) {
                put(connection, reference, client_frame::Frame::Send(request));
                self.fleet.flush(index, &mut self.holder);
            }
        }
        let all = self.fleet.live();
        let progress = Progress::new("delivering", all as u64);
        let mut took = since.elapsed();
        let mut told = Duration::ZERO;
        while self.holder.delivered < all && self.holder.quiet_for() < self.args.patience {
            let before = self.holder.delivered;
            self.fleet.turn(Duration::from_millis(20), &mut self.holder)?;
            if self.holder.delivered > before {
                took = since.elapsed();
            }
            progress.set(self.holder.delivered as u64);
            if since.elapsed() >= told + TELL_EVERY {
                told = since.elapsed();
                say_plainly(self.holder.delivered as u64, "delivered", told);
            }
        }
        progress.done(&format!("{} in {:.1} s", grouped(self.holder.delivered as u64), took.as_secs_f64()));
        Ok((took.as_secs_f64(), self.node_cpu_since(cpu_before)?))
    }

    /// From how many addresses the connections that stand come, and how many from the busiest.
    fn addresses(&mut self, connections: u32) -> Result<(u64, u64)> {
        let mut of: HashMap<IpAddr, u64> = HashMap::new();
        for index in 0..connections as usize {
            if let Some(connection) = self.fleet.connection(index) {
                *of.entry(connection.stream().local_addr()?.ip()).or_default() += 1;
            }
        }
        Ok((of.len() as u64, of.values().copied().max().unwrap_or(0)))
    }
}

/// Where no bar is seen, a line now and then shows that it goes on.
fn say_plainly(count: u64, what: &str, after: Duration) {
    use std::io::IsTerminal as _;
    if !std::io::stderr().is_terminal() {
        say(&format!("{} {what} after {:.0} s", grouped(count), after.as_secs_f64()));
    }
}
