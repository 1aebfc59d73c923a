//! What a measurement cost and what went wrong in it: the part that all results of open loops share.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::Serialize;

use crate::{
    ambient,
    figures::{as_f64, mib},
    node::{Node, proc},
};

/// Processor times at the beginning and at the end of what counts.
#[derive(Debug, Default)]
pub struct Clock {
    start: Option<Reading>,
    end: Option<Reading>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    node: Option<Duration>,
    own: Duration,
    at: Instant,
}

impl Clock {
    /// Reads them when it is time: at the span's beginning, and at its end.
    ///
    /// # Errors
    /// When the processes can't be observed.
    pub fn look(&mut self, node: &Node, (start, end): (Instant, Instant)) -> Result<()> {
        let now = ambient::now();
        let place = if self.start.is_none() && now >= start {
            &mut self.start
        } else if self.end.is_none() && now >= end {
            &mut self.end
        } else {
            return Ok(());
        };
        let node = node.pid().map(proc::cpu).transpose()?;
        *place = Some(Reading { node, own: proc::cpu(std::process::id())?, at: now });
        Ok(())
    }

    /// From the first reading to the second; nothing if there are no two.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.start.zip(self.end).map_or(Duration::ZERO, |(start, end)| end.at.duration_since(start.at))
    }

    /// Processor time of the node in that time, if its process is known.
    #[must_use]
    pub fn node(&self) -> Option<Duration> {
        let (start, end) = self.start.zip(self.end)?;
        Some(end.node?.saturating_sub(start.node?))
    }

    /// This program's.
    #[must_use]
    pub fn own(&self) -> Duration {
        self.start.zip(self.end).map_or(Duration::ZERO, |(start, end)| end.own.saturating_sub(start.own))
    }

    /// So much processor time in percent of one core.
    fn percent(&self, used: Duration) -> f64 {
        100.0 * used.as_secs_f64() / self.time().as_secs_f64().max(0.001)
    }
}

/// Processor time and memory.
#[derive(Debug, Default, Serialize)]
pub struct Costs {
    /// Processor time of the node in the time that counts, in percent of one core.
    pub node_cpu_percent: Option<f64>,
    /// The same per entry that came, in microseconds.
    pub node_cpu_us_per_entry: Option<f64>,
    /// This program's, in percent of one core.
    pub own_cpu_percent: Option<f64>,
    /// The node's resident memory afterwards, and the most it ever was.
    pub memory: Option<proc::Memory>,
}

impl Costs {
    /// What the clock read, shared by so many entries that came in that time, and the node's memory now.
    ///
    /// # Errors
    /// When the node's process can't be observed.
    pub fn new(clock: &Clock, entries: u64, node: &Node) -> Result<Self> {
        let per_entry = |used: Duration| used.as_secs_f64() * 1e6 / as_f64(entries.max(1));
        Ok(Self {
            node_cpu_percent: clock.node().map(|used| clock.percent(used)),
            node_cpu_us_per_entry: clock.node().map(per_entry),
            own_cpu_percent: Some(clock.percent(clock.own())),
            memory: node.pid().map(proc::memory).transpose()?,
        })
    }

    /// The lines of a result's text.
    pub fn write(&self, text: &mut String) {
        match (self.node_cpu_percent, self.node_cpu_us_per_entry) {
            (Some(percent), Some(us)) => {
                let _ = writeln!(text, "node: {percent:.0} % of a core, {us:.2} us per entry");
            }
            (Some(percent), None) => {
                let _ = writeln!(text, "node: {percent:.0} % of a core");
            }
            (None, _) => {}
        }
        if let Some(percent) = self.own_cpu_percent {
            let _ = writeln!(text, "load generator: {percent:.0} % of a core");
        }
        if let Some(memory) = self.memory {
            let (resident, peak) = (mib(memory.resident_bytes), mib(memory.peak_bytes));
            let _ = writeln!(text, "node's memory: {resident} MiB (at most {peak})");
        }
    }
}

/// What went wrong, and how often.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Troubles(BTreeMap<String, u64>);

impl Troubles {
    /// Once more.
    pub fn add(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    /// Together with others.
    #[must_use]
    pub fn with<'a>(&self, others: impl IntoIterator<Item = &'a String>) -> Self {
        let mut all = self.clone();
        others.into_iter().for_each(|what| all.add(what));
        all
    }

    /// Nothing went wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The lines of a result's text.
    pub fn write(&self, text: &mut String) {
        for (what, count) in &self.0 {
            let _ = writeln!(text, "failed: {what} ({count})");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_read_once_says_nothing() {
        let now = ambient::now();
        let reading = |node, own, after| Reading {
            node: Some(Duration::from_millis(node)),
            own: Duration::from_millis(own),
            at: now + Duration::from_millis(after),
        };
        let mut clock = Clock { start: Some(reading(100, 10, 0)), end: None };
        assert_eq!((clock.time(), clock.node(), clock.own()), (Duration::ZERO, None, Duration::ZERO));
        clock.end = Some(reading(1100, 260, 2000));
        assert_eq!(clock.node(), Some(Duration::from_secs(1)));
        assert!((clock.percent(clock.own()) - 12.5).abs() < 1e-9);
    }

    #[test]
    fn troubles_are_counted() {
        let mut troubles = Troubles::default();
        troubles.add("a");
        let all = troubles.with(&["a".to_owned(), "b".to_owned()]);
        let mut text = String::new();
        all.write(&mut text);
        assert_eq!(text, "failed: a (2)\nfailed: b (1)\n");
        assert!(!all.is_empty() && Troubles::default().is_empty());
    }
}
