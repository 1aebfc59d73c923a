//! Waiting for a condition, with a deadline. The only place here that sleeps or looks at a clock.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// How long a server may take to start or to end. Generous: it only matters when something is broken, and a busy disk is not.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Asks again and again until the answer is there.
///
/// # Errors
/// The question failed, or there was no answer in `deadline`; then `what` says what was waited for.
#[expect(clippy::disallowed_methods, reason = "other processes are waited for, and they keep real time")]
pub fn until<T>(deadline: Duration, what: &str, mut answer: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = answer()? {
            return Ok(answer);
        }
        ensure!(start.elapsed() < deadline, "{what}: not within {} s", deadline.as_secs());
        std::thread::sleep(Duration::from_millis(10));
    }
}
