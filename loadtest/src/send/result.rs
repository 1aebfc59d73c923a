//! What it all came to, for people, for `grep` and as JSON.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use serde::Serialize;

use super::{Comparison, Verified, drive::Drive};
use crate::{
    cli::SendArgs,
    figures::{Percentiles, as_f64, grouped, grouped_f64, mib, rate},
    node::{PartMean, proc::Memory},
};

/// What was read while the clock ran.
pub struct Clocked {
    /// How long it ran.
    pub time: Duration,
    /// Processor time of the node, if its process is known.
    pub node_cpu: Option<Duration>,
    /// Processor time of this program.
    pub own_cpu: Duration,
    /// Processor time of PostgreSQL and Redis, in a cluster.
    pub shared_cpu: Option<(Duration, Duration)>,
    /// Where messages' time went, as the nodes say.
    pub parts: Vec<PartMean>,
    /// The first node's memory at the end.
    pub memory: Option<Memory>,
    /// A sender had nothing more to send before the time was over.
    pub ran_out: bool,
}

/// The node's memory in bytes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Memories {
    /// At the end of the measurement.
    pub resident: u64,
    /// The most since its start.
    pub peak: u64,
}

/// The result of `send`.
#[derive(Debug, Serialize)]
pub struct SendResult {
    /// Devices that sent.
    pub senders: u32,
    /// Other devices that each message reached.
    pub devices: u32,
    /// Unanswered sends per sender, in a closed loop.
    pub window: Option<u32>,
    /// Sends that were due per second, in an open loop.
    pub rate: Option<u32>,
    /// Seconds that counted.
    pub seconds: f64,
    /// The prepared messages ran out before the time was over.
    pub ran_out: bool,
    /// Sends that were accepted in that time.
    pub accepted: u64,
    /// Accepted sends per second.
    pub sends_per_second: f64,
    /// Forks per second, echoes not counted.
    pub forks_per_second: f64,
    /// Rows per second, echoes counted.
    pub rows_per_second: f64,
    /// Forks per second that reached their devices in that time.
    pub delivered_forks_per_second: f64,
    /// From the send call (in an open loop: from the moment it was due) to the receiver's socket.
    pub delivery: Percentiles,
    /// Of these, to devices on the sender's node, if there are others.
    pub delivery_on_own_node: Option<Percentiles>,
    /// Of these, to devices on another node than the sender's.
    pub delivery_to_other_nodes: Option<Percentiles>,
    /// Of those to other nodes, while Redis was stopped.
    pub delivery_without_relay: Option<Percentiles>,
    /// From the same moment to the answer.
    pub answers: Percentiles,
    /// Where that time went, as the nodes say; empty if they are not known.
    pub parts: Vec<PartMean>,
    /// Processor time of PostgreSQL per thousand forks, in milliseconds.
    pub postgres_cpu_ms_per_1000_forks: Option<f64>,
    /// Processor time of Redis per thousand forks, in milliseconds.
    pub redis_cpu_ms_per_1000_forks: Option<f64>,
    /// Processor time of the node per fork, in microseconds.
    pub node_cpu_us_per_fork: Option<f64>,
    /// Processor time of this program per fork, in microseconds.
    pub generator_cpu_us_per_fork: f64,
    /// Processors that the node kept busy.
    pub node_cores: Option<f64>,
    /// Processors that this program kept busy.
    pub generator_cores: f64,
    /// The node's memory.
    pub memory: Option<Memories>,
    /// What went wrong, and how often.
    pub troubles: BTreeMap<String, u64>,
    /// The check afterwards.
    pub verified: Verified,
    /// The comparison, after a closed loop.
    pub row_by_row: Option<Comparison>,
    /// Forks per second over the comparison's rows per second.
    pub group_commit_gain: Option<f64>,
}

fn some(times: Percentiles) -> Option<Percentiles> {
    (times.count > 0).then_some(times)
}

impl SendResult {
    pub(super) fn new(
        args: &SendArgs,
        drive: &Drive,
        clocked: &Clocked,
        verified: Verified,
        row_by_row: Option<Comparison>,
    ) -> Self {
        let tally = drive.tally();
        let forks = tally.accepted * u64::from(args.devices);
        let time = clocked.time;
        let per_fork = |cpu: Duration| if forks == 0 { 0.0 } else { cpu.as_secs_f64() * 1e6 / as_f64(forks) };
        let cores = |cpu: Duration| if time.is_zero() { 0.0 } else { cpu.as_secs_f64() / time.as_secs_f64() };
        let forks_per_second = rate(forks, time);
        let single = row_by_row.as_ref().map(|rows| rows.rows_per_second).filter(|rows| *rows > 0.0);
        Self {
            senders: args.senders,
            devices: args.devices,
            window: args.rate.is_none().then_some(args.window),
            rate: args.rate,
            seconds: time.as_secs_f64(),
            ran_out: clocked.ran_out,
            accepted: tally.accepted,
            sends_per_second: rate(tally.accepted, time),
            forks_per_second,
            rows_per_second: rate(forks + tally.accepted, time),
            delivered_forks_per_second: rate(tally.forks, time),
            delivery: tally.delivery.percentiles(),
            delivery_on_own_node: some(tally.on_own_node.percentiles())
                .filter(|_| tally.to_other_nodes.percentiles().count > 0),
            delivery_to_other_nodes: some(tally.to_other_nodes.percentiles()),
            delivery_without_relay: some(tally.without_relay.percentiles()),
            answers: tally.answers.percentiles(),
            parts: clocked.parts.clone(),
            // Microseconds per fork are milliseconds per thousand.
            postgres_cpu_ms_per_1000_forks: clocked.shared_cpu.map(|(postgres, _)| per_fork(postgres)),
            redis_cpu_ms_per_1000_forks: clocked.shared_cpu.map(|(_, redis)| per_fork(redis)),
            node_cpu_us_per_fork: clocked.node_cpu.map(per_fork),
            generator_cpu_us_per_fork: per_fork(clocked.own_cpu),
            node_cores: clocked.node_cpu.map(cores),
            generator_cores: cores(clocked.own_cpu),
            memory: clocked.memory.map(|m| Memories { resident: m.resident_bytes, peak: m.peak_bytes }),
            troubles: drive.troubles().clone(),
            verified,
            row_by_row,
            group_commit_gain: single.map(|rows| forks_per_second / rows),
        }
    }

    /// Nothing was refused, lost or repeated.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.troubles.is_empty() && self.verified.is_clean() && self.accepted > 0
    }

    /// The figures, for people and for `grep`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let Self { senders, devices, seconds, .. } = self;
        let pace = match (self.rate, self.window) {
            (Some(rate), _) => format!("{} sends due per second", grouped(rate.into())),
            (None, window) => format!("{} unanswered sends per sender", window.unwrap_or(0)),
        };
        let _ = writeln!(text, "{senders} senders, {devices} other devices each, {pace}, {seconds:.1} s");
        if self.ran_out {
            let _ = writeln!(text, "note: the prepared messages ran out early (see --prepare)");
        }
        for (name, value) in [
            ("accepted sends/s", grouped_f64(self.sends_per_second)),
            ("forks/s", format!("{} (echoes not counted)", grouped_f64(self.forks_per_second))),
            ("rows/s", format!("{} (echoes counted)", grouped_f64(self.rows_per_second))),
            ("delivered forks/s", grouped_f64(self.delivered_forks_per_second)),
            ("delivery", self.delivery.to_string()),
            ("answer", self.answers.to_string()),
        ] {
            let _ = writeln!(text, "{name:<20}{value}");
        }
        let of_nodes = [
            ("to the same node", &self.delivery_on_own_node),
            ("to other nodes", &self.delivery_to_other_nodes),
            ("with Redis stopped", &self.delivery_without_relay),
        ];
        for (name, times) in of_nodes {
            if let Some(times) = times {
                let _ = writeln!(text, "{name:<20}{times}   ({} forks)", grouped(times.count));
            }
        }
        for PartMean { part, mean_ms, share_percent } in &self.parts {
            let _ = writeln!(text, "{:<20}{mean_ms:.2} ms on average, {share_percent:.0} %", format!("of it, {part}"));
        }
        self.write_costs(&mut text);
        self.write_check(&mut text);
        self.write_comparison(&mut text);
        text
    }

    fn write_costs(&self, text: &mut String) {
        if let Some((cpu, cores)) = self.node_cpu_us_per_fork.zip(self.node_cores) {
            let _ = writeln!(text, "{:<20}{cpu:.1} µs of processor time per fork, {cores:.2} cores", "node");
        }
        let (cpu, cores) = (self.generator_cpu_us_per_fork, self.generator_cores);
        let _ = writeln!(text, "{:<20}{cpu:.1} µs of processor time per fork, {cores:.2} cores", "generator");
        if let Some((postgres, redis)) = self.postgres_cpu_ms_per_1000_forks.zip(self.redis_cpu_ms_per_1000_forks) {
            let _ = writeln!(text, "{:<20}{postgres:.1} ms of processor time per 1,000 forks", "PostgreSQL");
            let _ = writeln!(text, "{:<20}{redis:.1} ms of processor time per 1,000 forks", "Redis");
        }
        if let Some(memory) = &self.memory {
            let (resident, peak) = (mib(memory.resident), mib(memory.peak));
            let _ = writeln!(text, "{:<20}{resident} MiB resident, {peak} MiB at most", "node's memory");
        }
    }

    fn write_check(&self, text: &mut String) {
        let Verified { opened, decrypted, lost, faults, fault_count, undrained } = &self.verified;
        let _ = writeln!(
            text,
            "{:<20}{} entries opened, {} decrypted whole; lost {lost}, repeated or wrong {fault_count}, mailboxes not drained {undrained}",
            "verified",
            grouped(*opened),
            grouped(*decrypted),
        );
        for fault in faults {
            let _ = writeln!(text, "wrong: {fault}");
        }
        let errors: u64 = self.troubles.values().sum();
        let _ = writeln!(text, "{:<20}{errors}", "errors");
        for (what, times) in &self.troubles {
            let _ = writeln!(text, "{times} times: {what}");
        }
    }

    fn write_comparison(&self, text: &mut String) {
        let Some(comparison) = &self.row_by_row else { return };
        let Comparison { how, rows, wanted, seconds, rows_per_second } = comparison;
        let _ = writeln!(
            text,
            "{:<20}{} rows/s ({} rows in {seconds:.1} s, {how})",
            "row by row",
            grouped_f64(*rows_per_second),
            grouped(*rows)
        );
        if comparison.is_extrapolated() {
            let _ = writeln!(text, "note: stopped before all {} rows; its rate stands for the rest", grouped(*wanted));
        }
        if let Some(gain) = self.group_commit_gain {
            let _ = writeln!(text, "group_commit_gain: {gain:.1}");
        }
    }
}
