//! The only place of the load generator that asks the machine for the time and for randomness, or waits for time to pass.

use std::{
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rand::rngs::StdRng;

/// Now, on a clock that only goes forward.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the load generator's clock module")]
pub fn now() -> Instant {
    Instant::now()
}

/// Unix milliseconds.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the load generator's clock module")]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Waits for another process, or for sockets to have news that one thread then reads together. Blocks the thread, so never in a task.
#[expect(clippy::disallowed_methods, reason = "no task runs on the threads that call it")]
pub fn rest(time: Duration) {
    thread::sleep(time);
}

/// A cryptographic generator seeded by the operating system.
#[must_use]
pub fn system_rng() -> StdRng {
    rand::make_rng()
}
