//! The only place of this package that reads a clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Unix milliseconds, for what devices sign.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "tests over real processes live in real time; this is their clock module"
)]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A number that differs from run to run, to draw a seed from.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "as above")]
pub fn changing() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(since.subsec_nanos()) ^ since.as_secs().rotate_left(32) ^ u64::from(std::process::id()).rotate_left(48)
}

/// A stopwatch, for figures that are printed and for deadlines; no test asserts a speed.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "as above")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
