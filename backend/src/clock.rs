//! Where the node's time and randomness come from. Everything else takes them as arguments, so that a test can hold them still;
//! clippy bans the globals outside this file.
//!
//! Does not schedule: timers belong to tokio.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
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
}

impl Clock {
    /// A clock that stands at `now_ms` until [`Clock::advance`] moves it.
    #[must_use]
    pub fn manual(now_ms: u64) -> Self {
        Self::Manual(Arc::new(AtomicU64::new(now_ms)))
    }

    /// Moves a manual clock; the machine's goes its own way.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(now_ms) = self {
            now_ms.fetch_add(by.as_millis().try_into().unwrap_or(u64::MAX), Ordering::SeqCst);
        }
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
        }
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
}
