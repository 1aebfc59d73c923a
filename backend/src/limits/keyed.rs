//! One table of rates, bounded.

use std::{
    hash::Hash,
    num::NonZeroU32,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use governor::{
    NotUntil, Quota, RateLimiter, clock::Clock as _, middleware::NoOpMiddleware, nanos::Nanos,
    state::keyed::DashMapStateStore,
};

use super::RetryAfterMs;
use crate::clock::Clock;

/// Keys that one table holds at most, about 100 bytes each.
const MAX_KEYS: usize = 200_000;
/// Idle keys are forgotten each time so many checks have passed.
const CHECKS_PER_SWEEP: u64 = 4096;
/// How long to stay away when a table is full, in milliseconds.
const FULL_RETRY_MS: u32 = 1000;
/// How long to stay away with more at once than a burst ever allows. A config that loads has no such rate.
pub(super) const OVER_BURST_RETRY_MS: u32 = 60_000;

pub(super) type Limiter<K, S> = RateLimiter<K, S, Clock, NoOpMiddleware<Nanos>>;

/// One table, or none where the rate is 0.
pub(super) struct Keyed<K: Hash + Eq + Clone> {
    limiter: Option<Limiter<K, DashMapStateStore<K>>>,
    checks: AtomicU64,
    full: AtomicBool,
    clock: Clock,
}

impl<K: Hash + Eq + Clone> Keyed<K> {
    pub(super) fn new(quota: Option<Quota>, clock: &Clock) -> Self {
        let limiter = quota.map(|quota| RateLimiter::dashmap_with_clock(quota, clock.clone()));
        Self { limiter, checks: AtomicU64::new(0), full: AtomicBool::new(false), clock: clock.clone() }
    }

    pub(super) fn check(&self, key: K) -> Result<(), RetryAfterMs> {
        self.check_all(key, 1)
    }

    pub(super) fn check_all(&self, key: K, count: usize) -> Result<(), RetryAfterMs> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        let Some(count) = NonZeroU32::new(u32::try_from(count).unwrap_or(u32::MAX)) else { return Ok(()) };
        // Between two sweeps at most CHECKS_PER_SWEEP keys can be new, so the table never outgrows both together.
        if self.checks.fetch_add(1, Ordering::Relaxed) % CHECKS_PER_SWEEP == CHECKS_PER_SWEEP - 1 {
            limiter.retain_recent();
            limiter.shrink_to_fit();
            self.full.store(limiter.len() >= MAX_KEYS, Ordering::Relaxed);
        }
        if self.full.load(Ordering::Relaxed) {
            return Err(FULL_RETRY_MS);
        }
        let Ok(decided) = limiter.check_key_n(&key, count) else { return Err(OVER_BURST_RETRY_MS) };
        decided.map_err(|early| retry_after_ms(&early, &self.clock))
    }
}

/// How long to stay away.
pub(super) fn retry_after_ms(early: &NotUntil<Nanos>, clock: &Clock) -> RetryAfterMs {
    // Rounded up, so that whoever comes back then is not early again.
    u32::try_from(early.wait_time_from(clock.now()).as_millis()).unwrap_or(u32::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_keys_does_not_grow_the_table_without_bound() {
        let keyed = Keyed::new(NonZeroU32::new(1).map(Quota::per_minute), &Clock::manual(0));
        for key in 0..MAX_KEYS + 20_000 {
            let _ = keyed.check(key);
        }
        let bound = MAX_KEYS + CHECKS_PER_SWEEP as usize;
        assert!(keyed.limiter.as_ref().is_some_and(|limiter| limiter.len() <= bound));
        assert_eq!(keyed.check(usize::MAX), Err(FULL_RETRY_MS));
    }
}
