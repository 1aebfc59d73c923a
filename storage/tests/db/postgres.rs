//! The same tests against a real PostgreSQL, a database per test, and what only PostgreSQL can get wrong.

mod accounts;
mod claims;
mod cluster;
mod common;
mod conversations;
mod expiry;
mod failover;
mod links;
mod logs;
mod mailbox;
mod model;
mod sends;
mod sends_full;
mod sweep;
mod tokens;
mod transfer;

/// This binary's stores are databases.
const BACKEND: common::Backend = common::Backend::Postgres;
