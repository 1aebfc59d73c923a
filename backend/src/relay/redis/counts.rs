//! What the relay has done, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers since the node's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Messages that Redis took.
    pub published: u64,
    /// Subscriptions that those reached, this node's own included.
    pub receivers: u64,
    /// Things that were never published: the queue was full, or Redis did not take them.
    pub left_out: u64,
    /// Messages of other nodes that were believed.
    pub received: u64,
    /// Messages that were not authentic, or not of the format.
    pub bad: u64,
    /// Messages that were authentic, and too old.
    pub old: u64,
    /// Times that contents were read from the store.
    pub contents_read: u64,
    /// Times that the subscription was lost.
    pub lost: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    published: AtomicU64,
    receivers: AtomicU64,
    received: AtomicU64,
    bad: AtomicU64,
    old: AtomicU64,
    contents_read: AtomicU64,
    lost: AtomicU64,
}

impl Counts {
    pub(super) fn published(&self, messages: usize, receivers: u64) {
        self.published.fetch_add(messages as u64, Ordering::Relaxed);
        self.receivers.fetch_add(receivers, Ordering::Relaxed);
    }

    pub(super) fn received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn bad(&self) {
        self.bad.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn old(&self) {
        self.old.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn content_read(&self) {
        self.contents_read.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self, left_out: u64) -> Statistics {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Statistics {
            published: read(&self.published),
            receivers: read(&self.receivers),
            left_out,
            received: read(&self.received),
            bad: read(&self.bad),
            old: read(&self.old),
            contents_read: read(&self.contents_read),
            lost: read(&self.lost),
        }
    }
}
