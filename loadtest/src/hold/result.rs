//! What holding connections came to, for people, for `grep` and as JSON.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use crate::figures::{Percentiles, as_f64, grouped, mib, slope};

/// All of it.
#[derive(Debug, Serialize)]
pub struct HoldResult {
    /// Connections that were asked for.
    pub connections: u64,
    /// Connections that stood in the end, after the messages.
    pub alive: u64,
    /// Source addresses that they came from.
    pub source_addresses: u64,
    /// Connections of the address that had most.
    pub most_per_address: u64,
    /// The node's resident memory without connections.
    pub baseline_bytes: Option<u64>,
    /// Step by step.
    pub steps: Vec<HoldStep>,
    /// Logs that were written to, one message each.
    pub logs: u64,
    /// Messages that the node accepted.
    pub accepted: u64,
    /// Connections that got their log's message, once and byte for byte.
    pub delivered: u64,
    /// From the first message to the last delivery.
    pub delivered_in_s: f64,
    /// From a log's message to its arrival at each connection.
    pub latency: Percentiles,
    /// Pings of the node that were answered.
    pub pings: u64,
    /// Processor time of the node while messages were delivered, in seconds.
    pub node_cpu_s: Option<f64>,
    /// The node's resident memory after that.
    pub resident_after_bytes: Option<u64>,
    /// Resident memory of this program per connection.
    pub own_bytes_per_connection: f64,
    /// Why connections were turned away before they stood, and how often; they were opened again.
    pub refusals: BTreeMap<String, u64>,
    /// What went wrong, and how often.
    pub troubles: BTreeMap<String, u64>,
}

/// One step: so many connections that are authenticated, resumed and subscribed.
#[derive(Debug, Serialize)]
pub struct HoldStep {
    /// How many.
    pub connections: u64,
    /// The node's resident memory then.
    pub resident_bytes: Option<u64>,
    /// Seconds from the step's first new connection to the last subscription.
    pub opening_s: f64,
    /// Processor time of the node meanwhile, in seconds.
    pub node_cpu_s: Option<f64>,
}

impl HoldResult {
    /// All stood, and all got what was written.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let all = self.connections;
        self.alive == all && self.delivered == all && self.accepted == self.logs && self.troubles.is_empty()
    }

    /// Resident memory of the node per connection at the last step, less what it had without any.
    #[must_use]
    pub fn bytes_per_connection(&self) -> Option<f64> {
        let (last, baseline) = (self.steps.last()?, self.baseline_bytes?);
        Some((as_f64(last.resident_bytes?) - as_f64(baseline)) / as_f64(last.connections.max(1)))
    }

    /// The slope over the steps; none of a single one.
    #[must_use]
    pub fn slope(&self) -> Option<f64> {
        let point = |step: &HoldStep| Some((as_f64(step.connections), as_f64(step.resident_bytes?)));
        slope(&self.steps.iter().map(point).collect::<Option<Vec<_>>>()?)
    }

    /// The figures, for people and for `grep`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let unknown = || "unknown".to_owned();
        let whole = |number: Option<f64>| number.map_or_else(unknown, |number| format!("{number:.0}"));
        let header = ["connections", "resident MiB", "opened in s", "node CPU s"];
        let _ = writeln!(text, "{}", header.map(|name| format!("{name:>15}")).join(""));
        for step in &self.steps {
            let resident = step.resident_bytes.map_or_else(unknown, mib);
            let cpu = step.node_cpu_s.map_or_else(unknown, |seconds| format!("{seconds:.1}"));
            let row = [grouped(step.connections), resident, format!("{:.1}", step.opening_s), cpu];
            let _ = writeln!(text, "{}", row.map(|value| format!("{value:>15}")).join(""));
        }
        let _ = writeln!(text, "baseline: {} MiB without connections", self.baseline_bytes.map_or_else(unknown, mib));
        let _ = writeln!(text, "alive: {} of {}", grouped(self.alive), grouped(self.connections));
        let (addresses, most) = (self.source_addresses, grouped(self.most_per_address));
        let _ = writeln!(text, "source_addresses: {addresses}, at most {most} connections each");
        let _ = writeln!(text, "bytes_per_connection: {}", whole(self.bytes_per_connection()));
        let _ = writeln!(text, "bytes_per_connection_slope: {}", whole(self.slope()));
        let _ = writeln!(text, "messages: {} of {} accepted", self.accepted, self.logs);
        let (delivered, seconds) = (grouped(self.delivered), self.delivered_in_s);
        let _ = writeln!(text, "delivered: {delivered} of {} in {seconds:.1} s", grouped(self.connections));
        let _ = writeln!(text, "latency: {}", self.latency);
        let cpu = self.node_cpu_s.map_or_else(unknown, |seconds| format!("{seconds:.1}"));
        let after = self.resident_after_bytes.map_or_else(unknown, mib);
        let _ = writeln!(text, "node: {cpu} s of processor time for the deliveries, {after} MiB afterwards");
        let _ = writeln!(text, "pings answered: {}", grouped(self.pings));
        let _ = writeln!(text, "own_bytes_per_connection: {:.0}", self.own_bytes_per_connection);
        for (why, count) in &self.refusals {
            let _ = writeln!(text, "opened again: {why} ({count}x)");
        }
        for (trouble, count) in &self.troubles {
            let _ = writeln!(text, "failed: {trouble} ({count}x)");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Times;

    fn result() -> HoldResult {
        let step =
            |connections, resident_bytes| HoldStep { connections, resident_bytes, opening_s: 1.0, node_cpu_s: None };
        HoldResult {
            connections: 2000,
            alive: 2000,
            source_addresses: 64,
            most_per_address: 32,
            baseline_bytes: Some(1_000_000),
            steps: vec![step(1000, Some(4_000_000)), step(2000, Some(6_000_000))],
            logs: 2,
            accepted: 2,
            delivered: 2000,
            delivered_in_s: 0.5,
            latency: Times::new().percentiles(),
            pings: 0,
            node_cpu_s: None,
            resident_after_bytes: None,
            own_bytes_per_connection: 500.0,
            refusals: BTreeMap::new(),
            troubles: BTreeMap::new(),
        }
    }

    #[test]
    fn memory_is_told_with_and_without_what_does_not_grow() {
        let mut result = result();
        assert_eq!((result.bytes_per_connection(), result.slope()), (Some(2500.0), Some(2000.0)));
        assert!(result.text().contains("\nbytes_per_connection: 2500\nbytes_per_connection_slope: 2000\n"));
        result.steps.remove(0);
        assert_eq!(result.slope(), None);
        result.steps[0].resident_bytes = None;
        assert_eq!(result.bytes_per_connection(), None);
    }

    #[test]
    fn one_that_is_missing_is_not_clean() {
        assert!(result().is_clean());
        assert!(!HoldResult { delivered: 1999, ..result() }.is_clean());
        assert!(!HoldResult { alive: 1999, ..result() }.is_clean());
        assert!(!HoldResult { accepted: 1, ..result() }.is_clean());
        assert!(!HoldResult { troubles: [("refused".to_owned(), 1)].into(), ..result() }.is_clean());
    }
}
