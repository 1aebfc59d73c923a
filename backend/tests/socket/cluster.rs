//! The same tests of the client socket, on nodes that keep their data in a PostgreSQL which others may share.

mod client;
mod delivery;
mod ephemeral;
mod floods;
#[path = "../api/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "written for the API's tests, of which these need a part")]
mod harness;
mod lifecycle;
mod logs;
mod outage;
mod refusals;
mod world;

/// This binary's nodes are those of a cluster.
const MODE: harness::Mode = harness::Mode::Cluster;
