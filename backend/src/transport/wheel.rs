//! One timer wheel per worker: a ping for each of many thousand sockets costs one push and one pop, and no timer of its own.

use std::time::Duration;

/// The wheel turns about so often in its longest delay.
const TURNS: u32 = 120;
const FASTEST: Duration = Duration::from_millis(10);
const SLOWEST: Duration = Duration::from_millis(250);

/// Things that fall due, to the precision of one tick.
pub(super) struct Wheel<T> {
    buckets: Vec<Vec<T>>,
    /// The bucket that falls due with the next tick.
    next: usize,
    tick: Duration,
}

impl<T> Wheel<T> {
    /// A wheel for delays of up to `longest`.
    pub(super) fn new(longest: Duration) -> Self {
        let tick = (longest / TURNS).clamp(FASTEST, SLOWEST);
        let count = longest.as_millis().div_ceil(tick.as_millis()) + 1;
        let buckets = (0..count).map(|_| Vec::new()).collect();
        Self { buckets, next: 0, tick }
    }

    /// How often [`Self::turn`] is to be called.
    pub(super) fn tick(&self) -> Duration {
        self.tick
    }

    /// Puts something in to fall due after `delay`, rounded up to a tick. A delay over the longest one is cut to it.
    pub(super) fn schedule(&mut self, delay: Duration, thing: T) {
        let ticks = delay.as_millis().div_ceil(self.tick.as_millis());
        let ahead = usize::try_from(ticks).unwrap_or(usize::MAX).min(self.buckets.len() - 1);
        let index = (self.next + ahead) % self.buckets.len();
        self.buckets[index].push(thing);
    }

    /// One tick has passed: what falls due.
    pub(super) fn turn(&mut self) -> Vec<T> {
        let due = std::mem::take(&mut self.buckets[self.next]);
        self.next = (self.next + 1) % self.buckets.len();
        due
    }
}

/// Spreads things evenly over `span`, however many there are: the n-th fraction of the golden ratio's sequence. Where many clients would
/// otherwise act together, this does what a random number does, without the clumps.
pub(super) fn spread(n: u32, span: Duration) -> Duration {
    const GOLDEN: u32 = 0x9E37_79B9;
    let fraction = f64::from(n.wrapping_mul(GOLDEN)) / f64::from(u32::MAX);
    span.mul_f64(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_fall_due_in_time() {
        let mut wheel = Wheel::new(Duration::from_secs(30));
        assert_eq!(wheel.tick(), Duration::from_millis(250));
        wheel.schedule(Duration::from_millis(600), 'a');
        wheel.schedule(Duration::ZERO, 'b');
        wheel.schedule(Duration::from_secs(30), 'c');
        wheel.schedule(Duration::from_secs(300), 'd');
        assert_eq!(wheel.turn(), ['b']);
        assert!(wheel.turn().is_empty() && wheel.turn().is_empty());
        assert_eq!(wheel.turn(), ['a']);
        let rest: Vec<Vec<char>> = (4..=120).map(|_| wheel.turn()).collect();
        assert_eq!(rest.concat(), ['c', 'd']);
        assert_eq!(rest.last().map(Vec::len), Some(2), "the last bucket is the longest delay's");
    }

    #[test]
    fn many_are_spread_evenly() {
        let span = Duration::from_secs(10);
        let mut per_second = [0; 10];
        for n in 0..1000 {
            let at = spread(n, span).as_secs().min(9) as usize;
            per_second[at] += 1;
        }
        assert!(per_second.iter().all(|count| (95..=105).contains(count)), "{per_second:?}");
    }
}
