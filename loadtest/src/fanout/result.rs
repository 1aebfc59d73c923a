//! What a fan-out came to, for people, for `grep` and as JSON.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use anyhow::Result;
use serde::Serialize;

use super::readers::Readers;
use crate::{
    ambient,
    cli::FanoutArgs,
    figures::{Percentiles, as_f64, grouped, grouped_f64, mib, rate},
    group::writer::{Schedule, Written},
    node::{Node, proc},
};

/// All of it.
#[derive(Debug, Serialize)]
pub struct FanoutResult {
    /// Readers, each a member on a socket of its own.
    pub members: u32,
    /// Bytes of a message's content.
    pub content_bytes: u32,
    /// How many of the readers stopped reading …
    pub stopped: u32,
    /// … and for how long, in seconds.
    pub stopped_for_s: f64,
    /// Resident memory of the node per connected and subscribed reader.
    pub bytes_per_reader: Option<f64>,
    /// Rate by rate.
    pub steps: Vec<Step>,
}

/// One rate.
#[derive(Debug, Serialize)]
pub struct Step {
    /// Messages a second.
    pub rate: u32,
    /// Messages that count.
    pub messages: u64,
    /// Messages accepted, those of the warm-up included.
    pub accepted: u64,
    /// Entries that came to readers, those of the warm-up included.
    pub entries: u64,
    /// Entries that never came.
    pub lost: u64,
    /// Entries that came a second in the time that counts.
    pub entries_per_second: f64,
    /// From the moment a message was due to its arrival at a reader.
    pub latency: Percentiles,
    /// The same for those who stopped reading.
    pub latency_of_stopped: Option<Percentiles>,
    /// From the moment a message was due to the answer that it is durable.
    pub answers: Percentiles,
    /// Processor time of the node in the time that counts, in percent of one core.
    pub node_cpu_percent: Option<f64>,
    /// The same per entry that came, in microseconds.
    pub node_cpu_us_per_entry: Option<f64>,
    /// This program's, in percent of one core.
    pub own_cpu_percent: f64,
    /// The node's resident memory afterwards, and the most it ever was.
    pub memory: Option<proc::Memory>,
    /// What went wrong, and how often.
    pub troubles: BTreeMap<String, u64>,
}

/// Processor times at the beginning and at the end of what counts.
#[derive(Debug, Default)]
pub struct Clock {
    start: Option<Cpu>,
    end: Option<Cpu>,
}

#[derive(Debug, Clone, Copy)]
struct Cpu {
    node: Option<Duration>,
    own: Duration,
    at: std::time::Instant,
}

impl Clock {
    /// Reads them when it is time.
    pub fn look(&mut self, node: &Node, schedule: Schedule) -> Result<()> {
        let (now, (start, end)) = (ambient::now(), schedule.span());
        let place = if self.start.is_none() && now >= start {
            &mut self.start
        } else if self.end.is_none() && now >= end {
            &mut self.end
        } else {
            return Ok(());
        };
        let node = node.pid().map(proc::cpu).transpose()?;
        *place = Some(Cpu { node, own: proc::cpu(std::process::id())?, at: now });
        Ok(())
    }
}

impl FanoutResult {
    pub(super) fn new(args: &FanoutArgs, bytes_per_reader: Option<f64>) -> Self {
        Self {
            members: args.members,
            content_bytes: args.content_bytes,
            stopped: args.stop,
            stopped_for_s: if args.stop > 0 { args.stop_for.as_secs_f64() } else { 0.0 },
            bytes_per_reader,
            steps: Vec::new(),
        }
    }

    /// Nothing was lost, repeated or refused.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.steps.iter().all(|step| step.lost == 0 && step.troubles.is_empty())
    }

    /// The figures, for people and for `grep`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let unknown = || "unknown".to_owned();
        let per_reader = self.bytes_per_reader.map_or_else(unknown, |bytes| format!("{bytes:.0}"));
        let _ = writeln!(text, "readers: {}, content: {} bytes", grouped(self.members.into()), self.content_bytes);
        let _ = writeln!(text, "bytes_per_reader: {per_reader}");
        for step in &self.steps {
            step.write(&mut text);
        }
        text
    }
}

impl Step {
    pub(super) fn new(
        args: &FanoutArgs,
        rate_per_second: u32,
        readers: &Readers,
        written: &Written,
        clock: &Clock,
        memory: Option<proc::Memory>,
    ) -> Self {
        let (start, end) = (clock.start, clock.end);
        let time = start.zip(end).map_or(Duration::ZERO, |(start, end)| end.at.duration_since(start.at));
        let percent = |used: Duration| 100.0 * used.as_secs_f64() / time.as_secs_f64().max(0.001);
        let node_cpu = start.zip(end).and_then(|(start, end)| Some(end.node?.saturating_sub(start.node?)));
        let own_cpu = start.zip(end).map_or(Duration::ZERO, |(start, end)| end.own.saturating_sub(start.own));
        let mut troubles = readers.troubles.clone();
        for trouble in &written.troubles {
            *troubles.entry(trouble.clone()).or_default() += 1;
        }
        let per_entry = |used: Duration| used.as_secs_f64() * 1e6 / as_f64(readers.in_time.max(1));
        Self {
            rate: rate_per_second,
            messages: u64::from(args.seconds) * u64::from(rate_per_second),
            accepted: written.accepted,
            entries: readers.entries,
            lost: readers.missing(),
            entries_per_second: rate(readers.in_time, time),
            latency: readers.latency.percentiles(),
            latency_of_stopped: (args.stop > 0).then(|| readers.latency_of_stopped.percentiles()),
            answers: written.answers.percentiles(),
            node_cpu_percent: node_cpu.map(percent),
            node_cpu_us_per_entry: node_cpu.map(per_entry),
            own_cpu_percent: percent(own_cpu),
            memory,
            troubles,
        }
    }

    fn write(&self, text: &mut String) {
        let _ = writeln!(text, "\nrate: {} messages/s, {} messages", self.rate, grouped(self.messages));
        let _ = writeln!(text, "entries_per_second: {}", grouped_f64(self.entries_per_second));
        let _ = writeln!(text, "delivery: {}", self.latency);
        if let Some(stopped) = self.latency_of_stopped {
            let _ = writeln!(text, "delivery to those who stopped: {stopped}");
        }
        let _ = writeln!(text, "durable: {}", self.answers);
        let _ = writeln!(text, "entries: {}   lost: {}", grouped(self.entries), grouped(self.lost));
        if let (Some(percent), Some(us)) = (self.node_cpu_percent, self.node_cpu_us_per_entry) {
            let _ = writeln!(text, "node: {percent:.0} % of a core, {us:.2} us per entry");
        }
        let _ = writeln!(text, "load generator: {:.0} % of a core", self.own_cpu_percent);
        if let Some(memory) = self.memory {
            let _ = writeln!(
                text,
                "node's memory: {} MiB (at most {})",
                mib(memory.resident_bytes),
                mib(memory.peak_bytes)
            );
        }
        for (what, count) in &self.troubles {
            let _ = writeln!(text, "failed: {what} ({count})");
        }
    }
}
