//! Where a message's time goes: what the node says of the parts of its way (`martlet_message_part_seconds` of its metrics).

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// In the order of a message's way.
const PARTS: [&str; 4] = ["queue", "commit", "relay", "write"];
const TIMEOUT: Duration = Duration::from_secs(5);

/// Sums and counts so far, part by part.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Parts([(f64, f64); PARTS.len()]);

/// One part of the way, on average.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartMean {
    /// `queue`, `commit`, `relay` or `write`.
    pub part: &'static str,
    /// How long it took on average, in milliseconds.
    pub mean_ms: f64,
    /// Its share of the four together, in percent.
    pub share_percent: f64,
}

impl Parts {
    /// Asks the node whose internal listener has this port; `None` if it is of a release that does not measure them.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn ask(internal_port: u16) -> Result<Option<Self>> {
        let mut stream = TcpStream::connect(("127.0.0.1", internal_port))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("the node's metrics")?;
        Ok(answer.starts_with("HTTP/1.1 200").then(|| Self::parse(&answer)))
    }

    /// What was never measured counts as nothing.
    fn parse(text: &str) -> Self {
        let value = |kind: &str, part: &str| {
            let name = format!("martlet_message_part_seconds_{kind}{{part=\"{part}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&name)?.trim().parse().ok()).unwrap_or(0.0)
        };
        Self(PARTS.map(|part| (value("sum", part), value("count", part))))
    }

    /// With those of another node.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            *own = (own.0 + other.0, own.1 + other.1);
        }
        self
    }

    /// What came since `before`, on average; nothing if nothing did.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<PartMean> {
        let mean = |((sum, count), (sum_before, count_before)): (&(f64, f64), &(f64, f64))| {
            let count = count - count_before;
            if count > 0.0 { 1000.0 * (sum - sum_before) / count } else { 0.0 }
        };
        let means: Vec<f64> = self.0.iter().zip(&before.0).map(mean).collect();
        let whole: f64 = means.iter().sum();
        if whole <= 0.0 {
            return Vec::new();
        }
        let part =
            |(part, mean_ms): (&'static str, f64)| PartMean { part, mean_ms, share_percent: 100.0 * mean_ms / whole };
        PARTS.into_iter().zip(means).map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_shares_of_what_came_since() {
        let text = |queue: &str, commit: &str| {
            format!(
                "# TYPE martlet_message_part_seconds histogram\n\
                 martlet_message_part_seconds_bucket{{part=\"queue\",le=\"0.001\"}} 3\n\
                 martlet_message_part_seconds_sum{{part=\"queue\"}} {queue}\n\
                 martlet_message_part_seconds_count{{part=\"queue\"}} 10\n\
                 martlet_message_part_seconds_sum{{part=\"commit\"}} {commit}\n\
                 martlet_message_part_seconds_count{{part=\"commit\"}} 20\n"
            )
        };
        let (before, after) = (Parts::default(), Parts::parse(&text("0.01", "0.06")));
        let means = after.and(Parts::default()).since(&before);
        let found: Vec<_> =
            means.iter().map(|part| (part.part, part.mean_ms.round(), part.share_percent.round())).collect();
        assert_eq!(found, [("queue", 1.0, 25.0), ("commit", 3.0, 75.0), ("relay", 0.0, 0.0), ("write", 0.0, 0.0)]);
        assert_eq!(after.since(&after), []);
    }
}
