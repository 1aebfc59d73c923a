//! The store against real SQLite files, one in a temporary folder per test.

mod accounts;
mod claims;
mod common;
mod conversations;
mod expiry;
mod links;
mod logs;
mod mailbox;
mod migrations;
mod model;
mod open;
mod sends;
mod sends_full;
mod sweep;
mod tokens;
mod transfer;

/// This binary's stores are files.
const BACKEND: common::Backend = common::Backend::Sqlite;
