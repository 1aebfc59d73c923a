//! What going and coming back came to, for people, for `grep` and as JSON.

use std::{fmt::Write as _, time::Instant};

use serde::Serialize;

use super::clients::Clients;
use crate::{
    costs::{Costs, Troubles},
    figures::{Percentiles, as_f64, grouped},
    group::writer::Written,
};

/// All of it.
#[derive(Debug, Serialize)]
pub struct ComebackResult {
    /// Clients, each a device with a socket of its own.
    pub clients: u32,
    /// Messages written, which each of them must get.
    pub messages: u32,
    /// Messages accepted.
    pub accepted: u64,
    /// Entries that came.
    pub entries: u64,
    /// Entries that never came.
    pub lost: u64,
    /// The same in percent of what was to come.
    pub delivered_percent: f64,
    /// Sockets opened again.
    pub returns: u64,
    /// From the moment a message was due to its arrival.
    pub latency: Percentiles,
    /// Entries that were due while their client was away.
    pub replayed: u64,
    /// The same of those.
    pub replay_latency: Percentiles,
    /// From a socket's return until its client had caught up.
    pub catching_up: Percentiles,
    /// After a restart: seconds from the node's return until so many clients were back and caught up.
    pub back: Option<Back>,
    /// Processor time and memory.
    #[serde(flatten)]
    pub costs: Costs,
    /// What went wrong, and how often.
    pub troubles: Troubles,
}

/// See [`ComebackResult::back`].
#[derive(Debug, Serialize)]
pub struct Back {
    /// How many came back at all.
    pub clients: usize,
    /// Half of all clients.
    pub half_s: Option<f64>,
    /// 99 of 100.
    pub p99_s: Option<f64>,
    /// All.
    pub all_s: Option<f64>,
    /// For plots: after so many seconds so many clients were back and caught up.
    pub points: Vec<(f64, usize)>,
}

impl ComebackResult {
    pub(super) fn new(count: u32, messages: u32, clients: &Clients, written: &Written, costs: Costs) -> Self {
        let due = u64::from(count) * u64::from(messages);
        Self {
            clients: count,
            messages,
            accepted: written.accepted,
            entries: clients.entries,
            lost: clients.missing(),
            delivered_percent: 100.0 * as_f64(clients.entries) / as_f64(due.max(1)),
            returns: clients.returns,
            latency: clients.latency.percentiles(),
            replayed: clients.replayed,
            replay_latency: clients.replay_latency.percentiles(),
            catching_up: clients.catching_up.percentiles(),
            back: None,
            costs,
            troubles: clients.troubles.with(&written.troubles),
        }
    }

    pub(super) fn back(&mut self, clients: &Clients, from: Instant) {
        let mut times: Vec<f64> =
            clients.back_at.iter().flatten().map(|at| at.saturating_duration_since(from).as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        let all = clients.back_at.len();
        let nth = |count: usize| times.get(count.saturating_sub(1)).copied();
        self.back = Some(Back {
            clients: times.len(),
            half_s: nth(all.div_ceil(2)),
            p99_s: nth((all * 99).div_ceil(100)),
            all_s: nth(all),
            points: curve(&times),
        });
    }

    /// Nothing was lost, repeated or refused, and everybody came back.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let all_back = self.back.as_ref().is_none_or(|back| back.all_s.is_some());
        self.lost == 0 && self.troubles.is_empty() && all_back && self.accepted == u64::from(self.messages)
    }

    /// The figures, for people and for `grep`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "clients: {}   messages: {}", grouped(self.clients.into()), self.messages);
        let _ = writeln!(text, "delivered: {:.4} %   lost: {}", self.delivered_percent, grouped(self.lost));
        let _ = writeln!(text, "returns: {}   replayed entries: {}", grouped(self.returns), grouped(self.replayed));
        let _ = writeln!(text, "delivery: {}", self.latency);
        if self.replayed > 0 {
            let _ = writeln!(text, "delivery of what was missed: {}", self.replay_latency);
        }
        let _ = writeln!(text, "return to caught up: {}", self.catching_up);
        if let Some(back) = &self.back {
            let s = |time: Option<f64>| time.map_or_else(|| "never".to_owned(), |time| format!("{time:.2} s"));
            let _ = writeln!(
                text,
                "back and caught up after the node's return: 50 % {}   99 % {}   100 % {}",
                s(back.half_s),
                s(back.p99_s),
                s(back.all_s)
            );
        }
        self.costs.write(&mut text);
        self.troubles.write(&mut text);
        text
    }
}

/// Points of the curve of who is back.
const POINTS: usize = 100;

/// Of ascending times, no more points than a plot shows, the first and the last among them.
fn curve(times: &[f64]) -> Vec<(f64, usize)> {
    let last = times.len().saturating_sub(1);
    let step = last.div_ceil(POINTS).max(1);
    let shown = |place: &usize| place.is_multiple_of(step) || *place == last;
    times.iter().enumerate().filter(|(place, _)| shown(place)).map(|(place, s)| (*s, place + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_short_and_whole() {
        let times: Vec<f64> = (0..15_000_u32).map(|n| f64::from(n) / 1000.0).collect();
        let points = curve(&times);
        assert!(points.len() <= POINTS + 2, "{}", points.len());
        assert_eq!((points.first(), points.last()), (Some(&(0.0, 1)), Some(&(14.999, 15_000))));
        assert_eq!(curve(&[1.5]), [(1.5, 1)]);
        assert_eq!(curve(&[]), []);
    }
}
