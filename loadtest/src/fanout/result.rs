//! What a fan-out came to, for people, for `grep` and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::readers::Readers;
use crate::{
    cli::FanoutArgs,
    costs::{Clock, Costs, Troubles},
    figures::{Percentiles, grouped, grouped_f64, rate},
    group::writer::Written,
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
    /// Bytes of content written while they did not read, for all of them.
    pub bytes_for_stopped: Option<u64>,
    /// What of it, and of what is around it, stood in the system's buffers when they went on: the rest the node had not sent.
    pub bytes_in_buffers: Option<u64>,
    /// From the moment a message was due to the answer that it is durable.
    pub answers: Percentiles,
    /// Processor time and memory.
    #[serde(flatten)]
    pub costs: Costs,
    /// What went wrong, and how often.
    pub troubles: Troubles,
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
        costs: Costs,
    ) -> Self {
        Self {
            rate: rate_per_second,
            messages: u64::from(args.seconds) * u64::from(rate_per_second),
            accepted: written.accepted,
            entries: readers.entries,
            lost: readers.missing(),
            entries_per_second: rate(readers.in_time, clock.time()),
            latency: readers.latency.percentiles(),
            latency_of_stopped: (args.stop > 0).then(|| readers.latency_of_stopped.percentiles()),
            bytes_for_stopped: (args.stop > 0).then(|| bytes_for_stopped(args, rate_per_second)),
            bytes_in_buffers: readers.held_by_the_system,
            answers: written.answers.percentiles(),
            costs,
            troubles: readers.troubles.with(&written.troubles),
        }
    }

    fn write(&self, text: &mut String) {
        let _ = writeln!(text, "\nrate: {} messages/s, {} messages", self.rate, grouped(self.messages));
        let _ = writeln!(text, "entries_per_second: {}", grouped_f64(self.entries_per_second));
        let _ = writeln!(text, "delivery: {}", self.latency);
        if let Some(stopped) = &self.latency_of_stopped {
            let _ = writeln!(text, "delivery to those who stopped: {stopped}");
        }
        if let (Some(written), Some(buffered)) = (self.bytes_for_stopped, self.bytes_in_buffers) {
            let (written, buffered) = (grouped(written), grouped(buffered));
            let _ = writeln!(text, "written for them meanwhile: {written} bytes, in the system's buffers: {buffered}");
        }
        let _ = writeln!(text, "durable: {}", self.answers);
        let _ = writeln!(text, "entries: {}   lost: {}", grouped(self.entries), grouped(self.lost));
        self.costs.write(text);
        self.troubles.write(text);
    }
}

fn bytes_for_stopped(args: &FanoutArgs, rate_per_second: u32) -> u64 {
    let a_second = u64::from(args.stop) * u64::from(rate_per_second) * u64::from(args.content_bytes);
    a_second * args.stop_for.as_secs()
}
