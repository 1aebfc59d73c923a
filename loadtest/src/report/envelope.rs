//! What stands around every result: what was measured, when, on which machine, by which release, and how it was asked for.

use std::{fs, num::NonZero, thread};

use anyhow::{Context as _, Result};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::Outcome;
use crate::{cli::NodeArgs, node};

/// A result and where it comes from.
#[derive(Debug, Serialize)]
pub struct Envelope<'a, T: Serialize> {
    /// The command that took it.
    pub measurement: &'static str,
    /// When it was written, in UTC (RFC 3339).
    pub taken_at: String,
    /// On what it ran, the node and this program together.
    pub machine: Machine,
    /// The release of this program, which is that of the node unless another one was named.
    pub release: &'static str,
    /// This program was built with assertions and without optimisation: its figures are no measure of anything.
    pub debug_build: bool,
    /// What was asked for: the arguments as they were given.
    pub command: Vec<String>,
    /// Settings of the node that differ from its defaults: those of every node under load, then those given. Empty for a node that ran
    /// already.
    pub settings: Vec<String>,
    /// See [`Outcome::is_corrected`].
    pub corrected_for_coordinated_omission: Option<bool>,
    /// Nothing was refused, lost or repeated.
    pub clean: bool,
    /// The figures.
    pub result: &'a T,
}

impl<'a, T: Outcome> Envelope<'a, T> {
    /// Around a result that was taken at this moment, in Unix milliseconds.
    ///
    /// # Errors
    /// For a moment that no calendar has.
    pub fn new(result: &'a T, node: &NodeArgs, now_ms: u64) -> Result<Self> {
        let now = OffsetDateTime::from_unix_timestamp(i64::try_from(now_ms / 1000)?).context("the time")?;
        Ok(Self {
            measurement: result.measurement(),
            taken_at: now.format(&Rfc3339)?,
            machine: Machine::this(),
            release: env!("CARGO_PKG_VERSION"),
            debug_build: cfg!(debug_assertions),
            command: std::env::args().skip(1).collect(),
            settings: if node.server.is_none() { node::settings(node) } else { Vec::new() },
            corrected_for_coordinated_omission: result.is_corrected(),
            clean: result.is_clean(),
            result,
        })
    }
}

/// What can be told of a machine without naming it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Processors that this program may use.
    pub cores: usize,
    /// All of its memory.
    pub memory_bytes: Option<u64>,
    /// Release of the kernel.
    pub kernel: Option<String>,
    /// The processor's name.
    pub cpu_model: Option<String>,
}

impl Machine {
    /// The one that this program runs on. What it does not tell (`/proc` is Linux's) is left out.
    #[must_use]
    pub fn this() -> Self {
        let read = |file| fs::read_to_string(file).ok();
        Self {
            cores: thread::available_parallelism().map_or(1, NonZero::get),
            memory_bytes: read("/proc/meminfo").as_deref().and_then(memory_bytes),
            kernel: read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()),
            cpu_model: read("/proc/cpuinfo").as_deref().and_then(cpu_model),
        }
    }
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(line.trim_start().strip_prefix(':')?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read_as_linux_writes_it() {
        assert_eq!(memory_bytes("MemFree: 1 kB\nMemTotal:       16384 kB\n"), Some(16_777_216));
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n").as_deref(), Some("Some CPU @ 2 GHz"));
        assert_eq!((memory_bytes(""), cpu_model("")), (None, None));
        assert!(Machine::this().cores > 0);
    }
}
