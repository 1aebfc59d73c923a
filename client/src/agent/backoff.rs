//! Pauses between tries: doubling, with full jitter, so that clients that lost a node together don't come back together.

use std::time::Duration;

use rand::RngExt as _;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);

/// How long to wait before the next try.
#[derive(Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// A pause between a tenth of the bound and the bound, which doubles with every try.
    pub fn next(&mut self, rng: &mut impl rand::Rng) -> Duration {
        let bound = FIRST.saturating_mul(1 << self.tries.min(16)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        bound.mul_f64(rng.random_range(0.1..=1.0))
    }

    /// It worked: the next pause is short again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        let mut rng = StdRng::seed_from_u64(5);
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..40).map(|_| backoff.next(&mut rng)).collect();
        assert!(pauses[0] <= FIRST && pauses.iter().all(|pause| *pause <= LONGEST));
        assert!(pauses[20..].iter().any(|pause| *pause > LONGEST / 2));
        assert_ne!(pauses[30], pauses[31]);
        backoff.reset();
        assert!(backoff.next(&mut rng) <= FIRST);
    }
}
