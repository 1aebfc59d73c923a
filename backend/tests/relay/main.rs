//! The relay between nodes against real Redis: one server, a cluster of three masters, and what Sentinels watch. What must come does, in
//! order; what is forged doesn't; whatever happens to Redis or the line to it, every node finds out, comes back, and compares heads.

mod claims;
#[path = "../socket/client.rs"]
#[expect(dead_code, reason = "written for the socket's tests, of which these need a part")]
mod client;
mod delivery;
mod faults;
mod forgery;
#[path = "../api/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "written for the API's tests, of which these need a part")]
mod harness;
mod kinds;
mod logs;
mod nodes;
mod refusals;
mod world;

/// The harness's own nodes keep their data themselves.
const MODE: harness::Mode = harness::Mode::Embedded;
