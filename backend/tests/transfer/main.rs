//! `martlet export` and `martlet import`: a deployment with something in every table moves from a file to a real PostgreSQL, and its
//! clients only reconnect.

#[path = "../socket/client.rs"]
#[expect(dead_code, reason = "written for the socket's tests, of which these need a part")]
mod client;
#[path = "../api/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "written for the API's tests, of which these need a part")]
mod harness;
mod moving;
mod program;
mod refusals;
mod rows;
mod scene;
#[path = "../socket/world.rs"]
mod world;

/// The harness's own nodes keep their data themselves.
const MODE: harness::Mode = harness::Mode::Embedded;
