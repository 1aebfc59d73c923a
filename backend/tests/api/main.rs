//! The API, asked as a client would: a node on a free port with a store of its own, one file per subject of the route table.
//!
//! Every refusal is checked to be the documented code and to change nothing that is stored.

mod accounts;
mod bad_input;
mod conversations;
mod devices;
mod dormant;
mod edge;
mod harness;
mod large;
mod links;
mod messages;
mod prekeys;
mod rates;
mod sessions;
mod socket;

/// This binary's nodes keep their data themselves.
const MODE: harness::Mode = harness::Mode::Embedded;
