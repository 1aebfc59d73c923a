//! How the store is opened.

use std::{path::PathBuf, time::Duration};

/// What the store needs to know.
#[derive(Debug, Clone)]
pub struct DbConfig {
    /// The SQLite file; its folder must exist.
    pub path: PathBuf,
    /// What a loss of power may take.
    pub durability: Durability,
    /// Readers beside the one writer, at least 1.
    pub read_connections: usize,
    /// How long a call waits for its connection, and a connection for another process, before it answers `Busy`.
    pub wait: Duration,
}

impl DbConfig {
    /// The defaults, for a file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), durability: Durability::Full, read_connections: 4, wait: Duration::from_secs(5) }
    }
}

/// What a loss of power may take. A crash of the process alone takes nothing in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Nothing that was committed (SQLite: `synchronous=FULL`).
    #[default]
    Full,
    /// What was committed since the last checkpoint, answered messages included (SQLite: `synchronous=NORMAL`).
    Normal,
}

/// How a store's schema stands to the migrations that this release knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaState {
    /// Migrations that the next [`super::Db::open`] will run.
    pub pending: usize,
    /// Migrations that a newer release has run.
    pub newer: usize,
}
