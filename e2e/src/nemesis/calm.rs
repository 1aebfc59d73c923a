//! Since when nothing has disturbed a node's work for revocation: neither the node nor its way to the database.
//!
//! Faults of Redis don't count: promise 5 of the design holds with Redis down.

use parking_lot::Mutex;

/// One place per node.
pub struct Calm(Mutex<Vec<Place>>);

#[derive(Clone, Copy)]
struct Place {
    disturbances: u32,
    since_ms: u64,
}

impl Calm {
    /// All calm from the beginning.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        Self(Mutex::new(vec![Place { disturbances: 0, since_ms: 0 }; nodes]))
    }

    /// A fault begins; none: it is one of all nodes.
    pub fn disturb(&self, node: Option<usize>) {
        self.each(node, |place| place.disturbances += 1);
    }

    /// A fault is healed.
    pub fn settle(&self, node: Option<usize>, now_ms: u64) {
        self.each(node, |place| {
            place.disturbances = place.disturbances.saturating_sub(1);
            place.since_ms = now_ms;
        });
    }

    /// For how long the node has been left alone, in ms; 0 while it is not.
    #[must_use]
    pub fn lasted_ms(&self, node: usize, now_ms: u64) -> u64 {
        let place = self.0.lock()[node];
        if place.disturbances == 0 { now_ms.saturating_sub(place.since_ms) } else { 0 }
    }

    fn each(&self, node: Option<usize>, change: impl Fn(&mut Place)) {
        let mut places = self.0.lock();
        places
            .iter_mut()
            .enumerate()
            .filter(|(at, _)| node.is_none_or(|node| node == *at))
            .for_each(|(_, place)| change(place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calm_begins_with_the_last_heal() {
        let calm = Calm::new(2);
        calm.disturb(Some(0));
        calm.disturb(None);
        calm.settle(Some(0), 100);
        assert_eq!((calm.lasted_ms(0, 150), calm.lasted_ms(1, 150)), (0, 0));
        calm.settle(None, 200);
        assert_eq!((calm.lasted_ms(0, 250), calm.lasted_ms(1, 290)), (50, 90));
    }
}
