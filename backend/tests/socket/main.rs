//! The client socket over real TCP: both sub-protocols, what is refused and how, and what must hold when clients are slow, gone,
//! replaced, revoked, or the node stops.

mod client;
mod delivery;
mod ephemeral;
mod floods;
#[path = "../api/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "written for the API's tests, of which these need a part")]
mod harness;
mod lifecycle;
mod logs;
mod refusals;
mod world;

/// This binary's nodes keep their data themselves.
const MODE: harness::Mode = harness::Mode::Embedded;
