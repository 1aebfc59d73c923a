//! What a comparison came to, for people, for `grep` and as JSON.

use std::{collections::BTreeMap, fmt, fmt::Write as _, time::Duration};

use serde::Serialize;

use super::{Memory, Published, Subscribers};
use crate::{
    cli::PeersArgs,
    figures::{as_f64, grouped, grouped_f64, rate},
};

/// Most that a connection may cost, of what nchan's costs.
pub const MEMORY_TARGET: f64 = 0.35;
/// Least deliveries a second, in those of nchan.
pub const DELIVERIES_TARGET: f64 = 10.0;

/// All of it.
#[derive(Debug, Serialize)]
pub struct PeersResult {
    /// Subscribers of the one channel, each on a socket of its own.
    pub subscribers: u32,
    /// Messages of a burst.
    pub messages: u32,
    /// Bytes of a message's content.
    pub content_bytes: u32,
    /// Processes that nginx serves with.
    pub nchan_workers: u16,
    /// Our turns.
    pub ours: Vec<Turn>,
    /// nchan's.
    pub nchan: Vec<Turn>,
    /// Our memory per connection over nchan's, medians of all turns.
    pub memory_ratio: f64,
    /// Our deliveries per second over nchan's, medians of all turns.
    pub deliveries_ratio: f64,
}

/// One burst to a server that was just started.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Turn {
    /// Resident memory of the server's processes just after their start.
    pub fresh_bytes: u64,
    /// The same once a few subscribers have come and gone.
    pub baseline_bytes: u64,
    /// What all subscribers added to that, each.
    pub bytes_per_connection: f64,
    /// What they added to the memory just after the start, each: with everything that is loaded and allocated once.
    pub bytes_per_connection_since_start: f64,
    /// From the first message's sending to the read of the last by the last subscriber.
    pub seconds: f64,
    /// Messages that came, all subscribers together, over that.
    pub deliveries_per_second: f64,
    /// Messages that came.
    pub deliveries: u64,
    /// Messages that didn't. Unless it is 0 the turn is not valid, and neither is its rate.
    pub missing: u64,
    /// WebSocket frames that they came in.
    pub frames: u64,
    /// The server's processor time in that time, per message that came, in microseconds.
    pub server_cpu_us_per_delivery: f64,
    /// This program's.
    pub own_cpu_us_per_delivery: f64,
    /// What went wrong, and how often.
    pub troubles: BTreeMap<String, u64>,
}

/// Medians over the turns of one server.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Side {
    /// Of resident memory.
    pub bytes_per_connection: f64,
    /// In the burst.
    pub deliveries_per_second: f64,
}

impl Turn {
    pub(super) fn new(
        args: &PeersArgs,
        memory: Memory,
        subscribers: &Subscribers,
        published: Published,
        (server_cpu, own_cpu): (Duration, Duration),
    ) -> Self {
        let took = subscribers.last_at().saturating_duration_since(published.began);
        let per_delivery = |used: Duration| used.as_secs_f64() * 1e6 / as_f64(subscribers.deliveries.max(1));
        let per_connection = |before: u64| (as_f64(memory.connected) - as_f64(before)) / f64::from(args.subscribers);
        let mut troubles = subscribers.troubles.clone();
        for trouble in published.troubles {
            *troubles.entry(trouble).or_default() += 1;
        }
        if published.accepted < u64::from(args.messages) {
            troubles.insert("messages that were not accepted".into(), u64::from(args.messages) - published.accepted);
        }
        Self {
            fresh_bytes: memory.fresh,
            baseline_bytes: memory.baseline,
            bytes_per_connection: per_connection(memory.baseline),
            bytes_per_connection_since_start: per_connection(memory.fresh),
            seconds: took.as_secs_f64(),
            deliveries_per_second: rate(subscribers.deliveries, took),
            deliveries: subscribers.deliveries,
            missing: subscribers.missing(),
            frames: subscribers.frames,
            server_cpu_us_per_delivery: per_delivery(server_cpu),
            own_cpu_us_per_delivery: per_delivery(own_cpu),
            troubles,
        }
    }

    /// Everybody got everything.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.missing == 0 && self.troubles.is_empty()
    }
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes per connection ({} since the start), {} deliveries/s ({} in {:.2} s, {} frames; server {:.2} us, load generator {:.2} us each)",
            grouped_f64(self.bytes_per_connection),
            grouped_f64(self.bytes_per_connection_since_start),
            grouped_f64(self.deliveries_per_second),
            grouped(self.deliveries),
            self.seconds,
            grouped(self.frames),
            self.server_cpu_us_per_delivery,
            self.own_cpu_us_per_delivery
        )?;
        if self.missing > 0 {
            write!(f, "; NOT VALID: {} messages are missing", grouped(self.missing))?;
        }
        self.troubles.iter().try_for_each(|(what, count)| write!(f, "; failed: {what} ({count})"))
    }
}

impl PeersResult {
    pub(super) fn new(args: &PeersArgs, ours: Vec<Turn>, nchan: Vec<Turn>) -> Self {
        let (our_side, their_side) = (side(&ours), side(&nchan));
        Self {
            subscribers: args.subscribers,
            messages: args.messages,
            content_bytes: args.content_bytes,
            nchan_workers: args.nchan_workers,
            ours,
            nchan,
            memory_ratio: our_side.bytes_per_connection / their_side.bytes_per_connection,
            deliveries_ratio: our_side.deliveries_per_second / their_side.deliveries_per_second,
        }
    }

    /// Every turn is valid.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.ours.iter().chain(&self.nchan).all(Turn::is_valid)
    }

    /// The figures, for people and for `grep`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{} subscribers of one channel, a burst of {} messages of {} bytes, nchan with {} worker(s)",
            grouped(self.subscribers.into()),
            self.messages,
            self.content_bytes,
            self.nchan_workers
        );
        for (name, turns) in [("ours", &self.ours), ("nchan", &self.nchan)] {
            for (at, turn) in turns.iter().enumerate() {
                let _ = writeln!(text, "{name} {}: {turn}", at + 1);
            }
            let Side { bytes_per_connection, deliveries_per_second } = side(turns);
            let (bytes, deliveries) = (grouped_f64(bytes_per_connection), grouped_f64(deliveries_per_second));
            let _ = writeln!(text, "{name}, medians: {bytes} bytes per connection, {deliveries} deliveries/s");
        }
        let _ = writeln!(text, "memory_ratio: {:.3} (target: at most {MEMORY_TARGET})", self.memory_ratio);
        let _ = writeln!(text, "deliveries_ratio: {:.1} (target: at least {DELIVERIES_TARGET})", self.deliveries_ratio);
        text
    }
}

/// Medians of valid and other turns alike: one that lost something makes the whole result unclean anyway.
fn side(turns: &[Turn]) -> Side {
    Side {
        bytes_per_connection: median(turns.iter().map(|turn| turn.bytes_per_connection)),
        deliveries_per_second: median(turns.iter().map(|turn| turn.deliveries_per_second)),
    }
}

/// NaN without values.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::NodeArgs;

    fn turn(bytes_per_connection: f64, deliveries_per_second: f64) -> Turn {
        Turn {
            fresh_bytes: 1,
            baseline_bytes: 1,
            bytes_per_connection,
            bytes_per_connection_since_start: bytes_per_connection,
            seconds: 1.0,
            deliveries_per_second,
            deliveries: 100,
            missing: 0,
            frames: 10,
            server_cpu_us_per_delivery: 1.0,
            own_cpu_us_per_delivery: 1.0,
            troubles: BTreeMap::new(),
        }
    }

    fn result() -> PeersResult {
        let args = PeersArgs {
            turns: 3,
            subscribers: 10,
            messages: 10,
            content_bytes: 200,
            nchan_workers: 1,
            node: NodeArgs::default(),
        };
        let ours = vec![turn(3000.0, 9000.0), turn(2000.0, 1000.0), turn(2500.0, 2000.0)];
        PeersResult::new(&args, ours, vec![turn(10_000.0, 100.0), turn(10_000.0, 300.0)])
    }

    #[test]
    fn ratios_are_those_of_the_medians() {
        let result = result();
        assert!((result.memory_ratio - 0.25).abs() < 1e-12);
        assert!((result.deliveries_ratio - 10.0).abs() < 1e-12);
        assert!(result.text().contains("deliveries_ratio: 10.0"), "{}", result.text());
    }

    #[test]
    fn a_missing_message_makes_the_turn_invalid_and_says_so() {
        let mut result = result();
        assert!(result.is_clean());
        result.nchan[1].missing = 1;
        assert!(!result.is_clean());
        assert!(result.text().contains("NOT VALID: 1 messages are missing"));
    }
}
