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
    node_id: Arc<str>,
    inner: Arc<Mutex<Inner>>,
}

/// Parts without which a node can't serve: it still answers, and asks to be left out by load balancers.
const NEEDED: [&str; 2] = ["control stream", "store"];

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
    /// The node shuts down and takes no new sockets.
    Draining,
}

/// A look at the node's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Which node this is.
    pub node_id: String,
    /// The release that runs.
    pub version: &'static str,
    /// The state in one word.
    pub status: Status,
    /// Which parts are impaired, and why. Empty when all is well.
    pub reasons: BTreeMap<&'static str, String>,
}

impl Health {
    /// A healthy state.
    #[must_use]
    pub fn new(node_id: &str) -> Self {
        Self { node_id: node_id.into(), inner: Arc::default() }
    }

    /// Whether new clients may be sent here: the node is not going down, and has what it can't serve without.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let inner = self.inner.lock();
        !inner.draining && NEEDED.iter().all(|part| !inner.reasons.contains_key(part))
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

    /// Which node this is.
    #[must_use]
    pub fn node_id(&self) -> &str {
        &self.node_id
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
        Report {
            node_id: self.node_id.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            status: inner.status(),
            reasons: inner.reasons.clone(),
        }
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
        let health = Health::new("n1");
        let shared = health.clone();
        assert_eq!(health.status(), Status::Ok);
        shared.degrade("store", "writes take over a second");
        shared.degrade("store", "the disk is full");
        assert_eq!(health.report().reasons["store"], "the disk is full");
        assert_eq!(health.status(), Status::Degraded);
        health.restore("store");
        let report = health.report();
        assert_eq!((report.status, report.reasons.len(), report.node_id.as_str()), (Status::Ok, 0, "n1"));
    }

    #[test]
    fn a_node_without_its_store_serves_nobody_new() {
        let health = Health::new("n1");
        health.degrade("relay", "Redis is away");
        assert!(health.is_ready());
        health.degrade("store", "no answer");
        assert!(!health.is_ready());
        health.restore("store");
        assert!(health.is_ready());
        health.drain();
        assert!(!health.is_ready());
    }

    #[test]
    fn draining_outweighs_the_rest_and_stays() {
        let health = Health::new("n1");
        health.degrade("store", "slow");
        health.drain();
        assert_eq!((health.status(), health.status().http()), (Status::Draining, 503));
        health.restore("store");
        assert!(health.is_draining());
    }
}
