//! Whether the node can do its work, and if not, why: what both listeners' `/health` and a load balancer read.
//!
//! Whoever finds out that a part is impaired says so when it begins and when it ends (mostly [`crate::check::watch`]). This module
//! measures nothing itself and decides nothing: what follows from a degraded part is that part's business.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

/// The node's state, shared by everything that can impair it and everything that reports it. Clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Health {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    draining: bool,
    /// Impaired parts by name. Reasons are written by us and hold no user data.
    reasons: BTreeMap<&'static str, String>,
}

/// The state in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Everything works.
    Ok,
    /// The node serves, and some part of it is impaired.
    Degraded,
    /// The node shuts down and takes no new connections.
    Draining,
}

/// A look at the node's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The state in one word.
    pub status: Status,
    /// Which parts are impaired, and why. Empty when all is well.
    pub reasons: BTreeMap<&'static str, String>,
}

impl Health {
    /// A healthy state.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that `part` is impaired, in words for an operator (no user data). A later call replaces the reason.
    pub fn degrade(&self, part: &'static str, reason: impl Into<String>) {
        let reason = reason.into();
        let before = self.inner.lock().reasons.insert(part, reason.clone());
        if before.is_none() {
            tracing::warn!(part, reason, "degraded");
        }
    }

    /// Says that `part` works again.
    pub fn restore(&self, part: &'static str) {
        if self.inner.lock().reasons.remove(part).is_some() {
            tracing::info!(part, "works again");
        }
    }

    /// Says that the node shuts down. There is no way back.
    pub fn drain(&self) {
        self.inner.lock().draining = true;
    }

    /// Whether the node shuts down.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.inner.lock().draining
    }

    /// The state in one word. Draining outweighs degraded, since it is what a load balancer must act on.
    #[must_use]
    pub fn status(&self) -> Status {
        self.inner.lock().status()
    }

    /// The state with reasons, for the internal listener.
    #[must_use]
    pub fn report(&self) -> Report {
        let inner = self.inner.lock();
        Report { status: inner.status(), reasons: inner.reasons.clone() }
    }
}

impl Inner {
    fn status(&self) -> Status {
        if self.draining {
            Status::Draining
        } else if self.reasons.is_empty() {
            Status::Ok
        } else {
            Status::Degraded
        }
    }
}

impl Status {
    /// The HTTP status of a health answer: a degraded node still serves, so only a draining one answers 503.
    #[must_use]
    pub fn http(self) -> u16 {
        match self {
            Self::Ok | Self::Degraded => 200,
            Self::Draining => 503,
        }
    }

    /// The word of the answer's `status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Draining => "draining",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_come_and_go() {
        let health = Health::new();
        let shared = health.clone();
        assert_eq!(health.status(), Status::Ok);
        shared.degrade("store", "writes take over a second");
        shared.degrade("store", "the disk is full");
        assert_eq!(health.report().reasons["store"], "the disk is full");
        assert_eq!(health.status(), Status::Degraded);
        health.restore("store");
        assert_eq!(health.report(), Report { status: Status::Ok, reasons: BTreeMap::new() });
    }

    #[test]
    fn draining_outweighs_the_rest_and_stays() {
        let health = Health::new();
        health.degrade("store", "slow");
        health.drain();
        assert_eq!((health.status(), health.status().http()), (Status::Draining, 503));
        health.restore("store");
        assert!(health.is_draining());
    }
}
