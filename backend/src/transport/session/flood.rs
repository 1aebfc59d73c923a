//! How often frames may come on one socket: the generic cell rate algorithm (ITU-T I.371, annex A), eight bytes per connection.

use std::time::Duration;

/// What the config allows; without a limit nothing is counted.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct FrameRate {
    /// Between two frames, over time, and how far ahead of that a burst may run; in nanoseconds.
    cell: Option<(u64, u64)>,
}

impl FrameRate {
    /// So many a second, and so many at once after a rest. A rate of 0 means no limit.
    pub(in super::super) const fn new(per_second: u32, burst: u32) -> Self {
        if per_second == 0 {
            return Self { cell: None };
        }
        let each = 1_000_000_000 / per_second as u64;
        Self { cell: Some((each, each * if burst == 0 { 1 } else { burst as u64 })) }
    }
}

/// The frames of one socket.
#[derive(Debug, Clone, Copy, Default)]
pub(in super::super) struct Frames {
    /// When the next one would be due if they came evenly, on the node's steady clock.
    due_ns: u64,
}

impl Frames {
    /// Counts one. False if it comes too early.
    pub(in super::super) fn count(&mut self, rate: FrameRate, now: Duration) -> bool {
        let Some((each, burst)) = rate.cell else { return true };
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let next = self.due_ns.max(now_ns).saturating_add(each);
        if next - now_ns > burst {
            return false;
        }
        self.due_ns = next;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(frames: &mut Frames, rate: FrameRate, now: Duration) -> usize {
        (0..10_000).take_while(|_| frames.count(rate, now)).count()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (mut frames, rate) = (Frames::default(), FrameRate::new(10, 25));
        let start = Duration::from_secs(100);
        assert_eq!(passed(&mut frames, rate, start), 25);
        assert_eq!(passed(&mut frames, rate, start + Duration::from_millis(99)), 0);
        assert_eq!(passed(&mut frames, rate, start + Duration::from_millis(500)), 5);
        assert_eq!(passed(&mut frames, rate, start + Duration::from_secs(60)), 25, "no more than a burst after a rest");
    }

    #[test]
    fn zero_means_no_limit() {
        assert_eq!(passed(&mut Frames::default(), FrameRate::new(0, 0), Duration::ZERO), 10_000);
    }
}
