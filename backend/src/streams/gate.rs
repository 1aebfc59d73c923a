//! Whether this node may push: only if it knows by the control stream, no more than a second old, that no device of its was revoked.
//!
//! A process that was paused or cut off from its store finds the gate closed when it goes on, until it has looked. The gate decides
//! nothing about single devices.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::clock::Clock;

/// How old the last look at the control stream may be.
const MAX_AGE: Duration = Duration::from_secs(1);
const NEVER: u64 = u64::MAX;

/// The moment of the last look, by two clocks: the steady one stands still while a machine sleeps, the other one may step.
#[derive(Debug)]
pub(super) struct Gate {
    steady_ms: AtomicU64,
    wall_ms: AtomicU64,
}

/// A moment by both clocks, taken before a look begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    steady_ms: u64,
    wall_ms: u64,
}

impl Moment {
    pub(super) fn now(clock: &Clock) -> Self {
        let steady_ms = u64::try_from(clock.elapsed().as_millis()).unwrap_or(NEVER - 1);
        Self { steady_ms, wall_ms: clock.now_ms() }
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self { steady_ms: AtomicU64::new(NEVER), wall_ms: AtomicU64::new(NEVER) }
    }
}

impl Gate {
    /// Everything up to the control stream's head at `since` has been acted upon.
    pub(super) fn checked(&self, since: Moment) {
        self.wall_ms.store(since.wall_ms, Ordering::Release);
        self.steady_ms.store(since.steady_ms, Ordering::Release);
    }

    pub(super) fn is_open(&self, now: Moment) -> bool {
        let fresh = |last: u64, now: u64| last != NEVER && u128::from(now.abs_diff(last)) <= MAX_AGE.as_millis();
        fresh(self.steady_ms.load(Ordering::Acquire), now.steady_ms)
            && fresh(self.wall_ms.load(Ordering::Acquire), now.wall_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_with_a_look_and_closes_after_a_second() {
        let clock = Clock::manual(1_000_000);
        let gate = Gate::default();
        assert!(!gate.is_open(Moment::now(&clock)), "nothing has been looked at yet");
        gate.checked(Moment::now(&clock));
        clock.advance(MAX_AGE);
        assert!(gate.is_open(Moment::now(&clock)));
        clock.advance(Duration::from_millis(1));
        assert!(!gate.is_open(Moment::now(&clock)));
        gate.checked(Moment::now(&clock));
        assert!(gate.is_open(Moment::now(&clock)));
    }

    #[test]
    fn a_clock_that_stepped_back_closes_it_too() {
        let gate = Gate::default();
        gate.checked(Moment { steady_ms: 5_000, wall_ms: 900_000 });
        assert!(!gate.is_open(Moment { steady_ms: 5_500, wall_ms: 800_000 }));
    }
}
