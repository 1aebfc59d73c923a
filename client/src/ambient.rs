//! The only place of the client that asks the machine for the time and for randomness; everything else is given both.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rand::rngs::StdRng;

/// One day in milliseconds, the measure of prekey lives.
pub const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Where a device gets the time from.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// A clock that tests turn by hand, in Unix milliseconds.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// A clock that stands at `now_ms` until it is turned.
    #[must_use]
    pub fn manual(now_ms: u64) -> Self {
        Self::Manual(Arc::new(AtomicU64::new(now_ms)))
    }

    /// Unix milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        match self {
            Self::System => unix_ms(),
            Self::Manual(now) => now.load(Ordering::SeqCst),
        }
    }

    /// Turns a manual clock; the machine's clock stays as it is.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(now) = self {
            now.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the client's clock module")]
fn unix_ms() -> u64 {
    // A machine whose clock stands before 1970 gets 0, which the node then refuses in words.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A cryptographic generator seeded by the operating system.
#[must_use]
pub fn system_rng() -> StdRng {
    rand::make_rng()
}
