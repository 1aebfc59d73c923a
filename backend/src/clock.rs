//! Where the node's time and randomness come from. Everything else takes them as arguments, so that a test can hold them still;
//! clippy bans the globals outside this file.
//!
//! Does not schedule: timers belong to tokio.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use governor::nanos::Nanos;

/// The node's time.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The machine's.
    System,
    /// Unix milliseconds that a test moves.
    Manual(Arc<AtomicU64>),
    /// Another one that is set by a third: see [`Clock::corrected`].
    Corrected(Arc<Corrected>),
}

/// A clock and what is added to it.
#[derive(Debug)]
pub struct Corrected {
    clock: Clock,
    by_ms: AtomicI64,
}

impl Clock {
    /// A clock that stands at `now_ms` until [`Clock::advance`] moves it.
    #[must_use]
    pub fn manual(now_ms: u64) -> Self {
        Self::Manual(Arc::new(AtomicU64::new(now_ms)))
    }

    /// Moves a manual clock; the machine's goes its own way.
    pub fn advance(&self, by: Duration) {
        match self {
            Self::System => {}
            Self::Manual(now_ms) => {
                now_ms.fetch_add(by.as_millis().try_into().unwrap_or(u64::MAX), Ordering::SeqCst);
            }
            Self::Corrected(corrected) => corrected.clock.advance(by),
        }
    }

    /// This clock, to be corrected by [`Clock::compare`].
    #[must_use]
    pub fn corrected(self) -> Self {
        Self::Corrected(Arc::new(Corrected { clock: self, by_ms: AtomicI64::new(0) }))
    }

    /// Compares this clock, without its correction, with one that is right: returns by how many milliseconds they are apart. If that is
    /// more than allowed, the other one's time counts from now on; if not, its own does.
    ///
    /// Nodes that share a database need one time between them. By one whose clock is ahead, messages would have expired before anybody
    /// has read them.
    pub fn compare(&self, right_ms: u64, allowed: Duration) -> u64 {
        let own_ms = match self {
            Self::Corrected(corrected) => corrected.clock.now_ms(),
            other => other.now_ms(),
        };
        let apart_ms = own_ms.abs_diff(right_ms);
        if let Self::Corrected(corrected) = self {
            // Once corrected, it must come well within the limit, or time would go to and fro at its edge.
            let is_corrected = corrected.by_ms.load(Ordering::SeqCst) != 0;
            let allowed_ms = if is_corrected { allowed.as_millis() / 2 } else { allowed.as_millis() };
            let is_allowed = u128::from(apart_ms) <= allowed_ms;
            let by_ms = if is_allowed { 0 } else { right_ms.cast_signed().wrapping_sub(own_ms.cast_signed()) };
            corrected.by_ms.store(by_ms, Ordering::SeqCst);
        }
        apart_ms
    }

    /// Unix milliseconds. May step back when the machine's time is corrected.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's time")]
    pub fn now_ms(&self) -> u64 {
        match self {
            // A machine whose time is before 1970 reads as 1970: its owner will notice, the node need not stop.
            Self::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_millis().try_into().unwrap_or(0)),
            Self::Manual(now_ms) => now_ms.load(Ordering::SeqCst),
            Self::Corrected(corrected) => {
                corrected.clock.now_ms().saturating_add_signed(corrected.by_ms.load(Ordering::SeqCst))
            }
        }
    }

    /// For what can't be undone, such as deleting what has expired: the earlier of this clock's time with and without its correction, since
    /// either may be the wrong one.
    #[must_use]
    pub fn earliest_ms(&self) -> u64 {
        match self {
            Self::Corrected(corrected) => corrected.clock.now_ms().min(self.now_ms()),
            other => other.now_ms(),
        }
    }

    /// The same in Unix seconds.
    #[must_use]
    pub fn earliest_s(&self) -> u64 {
        self.earliest_ms() / 1000
    }

    /// Unix seconds.
    #[must_use]
    pub fn now_s(&self) -> u64 {
        self.now_ms() / 1000
    }

    /// Time since some fixed moment; never steps back. For rates and durations.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's time")]
    pub fn elapsed(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        match self {
            Self::System => START.get_or_init(Instant::now).elapsed(),
            Self::Manual(now_ms) => Duration::from_millis(now_ms.load(Ordering::SeqCst)),
            Self::Corrected(corrected) => corrected.clock.elapsed(),
        }
    }
}

impl governor::clock::Clock for Clock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.elapsed())
    }
}

/// The thread's cryptographic generator, seeded by the operating system.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that opens the global generator")]
pub fn rng() -> rand::rngs::ThreadRng {
    rand::rng()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(5_000);
        assert_eq!((clock.now_ms(), clock.now_s()), (5_000, 5));
        let other = clock.clone();
        other.advance(Duration::from_secs(2));
        assert_eq!(clock.now_ms(), 7_000);
        assert_eq!(clock.elapsed(), Duration::from_secs(7));
    }

    #[test]
    fn a_clock_that_is_far_off_follows_the_right_one() {
        let machine = Clock::manual(100_000);
        let clock = machine.clone().corrected();
        let allowed = Duration::from_secs(5);
        assert_eq!((clock.compare(96_000, allowed), clock.now_ms()), (4_000, 100_000), "near enough");
        assert_eq!((clock.compare(40_000, allowed), clock.now_ms()), (60_000, 40_000), "ahead");
        assert_eq!(clock.earliest_ms(), 40_000);
        machine.advance(Duration::from_secs(1));
        assert_eq!(clock.now_ms(), 41_000, "and goes on from there");
        assert_eq!((clock.compare(500_000, allowed), clock.now_ms()), (399_000, 500_000), "behind");
        assert_eq!(clock.earliest_ms(), 101_000, "if it is the other one that is wrong, nothing has expired yet");
        assert_eq!((clock.compare(105_000, allowed), clock.now_ms()), (4_000, 105_000), "not to and fro");
        assert_eq!((clock.compare(101_000, allowed), clock.now_ms()), (0, 101_000), "set right, it counts again");
        assert_eq!(clock.elapsed(), Duration::from_secs(101), "what measures durations is left alone");
        assert_eq!((machine.compare(1, allowed), machine.now_ms()), (100_999, 101_000), "not every clock is corrected");
    }
}
