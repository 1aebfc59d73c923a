//! The same tests of the API, on nodes that keep their data in a PostgreSQL which others may share.

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

/// This binary's nodes are those of a cluster.
const MODE: harness::Mode = harness::Mode::Cluster;
