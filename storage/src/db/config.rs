//! How the store is opened.

use std::{fmt, path::PathBuf, time::Duration};

/// What the store needs to know.
#[derive(Debug, Clone)]
pub struct DbConfig {
    /// Where it is.
    pub place: Place,
    /// What a loss of power may take.
    pub durability: Durability,
    /// How a failover is to be taken. SQLite has none.
    pub standbys: Standbys,
    /// Connections that read, at least 1.
    pub read_connections: usize,
    /// Connections that write, at least 1. SQLite has one whatever this says.
    pub write_connections: usize,
    /// Connections that only commit sends, at least 1. SQLite has none of its own: commits and other writes take turns.
    pub commit_connections: usize,
    /// How long a call waits for its connection, and a connection for another process, before it answers `Busy`.
    pub wait: Duration,
    /// How long a call over the network may take before it answers `Unavailable`. SQLite has none.
    pub timeout: Duration,
}

/// Where a store is.
#[derive(Debug, Clone)]
pub enum Place {
    /// A SQLite file; its folder must exist.
    File(PathBuf),
    /// A PostgreSQL database, and replicas of it that may be read.
    Postgres {
        /// `postgres://user:password@host/database`.
        url: DatabaseUrl,
        /// Of the same kind; may lag, and may be none.
        replicas: Vec<DatabaseUrl>,
    },
}

/// Address of a database. Holds a password, so its `Debug` shows host and database only.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// `None` if it is no `postgres://` or `postgresql://` address.
    #[must_use]
    pub fn new(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"))?;
        let sound = !rest.is_empty() && !url.contains(|c: char| c.is_whitespace() || c.is_control());
        sound.then(|| Self(url.to_owned()))
    }

    /// The whole address, password included.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatabaseUrl {
    /// Without user, password and parameters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        write!(f, "postgres://{place}")
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl DbConfig {
    /// The defaults, for a file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::at(Place::File(path.into()))
    }

    /// The defaults, for a database.
    #[must_use]
    pub fn postgres(url: DatabaseUrl) -> Self {
        Self::at(Place::Postgres { url, replicas: Vec::new() })
    }

    fn at(place: Place) -> Self {
        Self {
            place,
            durability: Durability::Full,
            standbys: Standbys::MayLag,
            read_connections: 4,
            write_connections: 4,
            commit_connections: 1,
            wait: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
        }
    }
}

/// What a loss of power may take. A crash of the process alone takes nothing in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Nothing that was committed (SQLite: `synchronous=FULL`; PostgreSQL: `fsync`, `full_page_writes` and `synchronous_commit` on).
    #[default]
    Full,
    /// What was committed since the last checkpoint, answered messages included (SQLite: `synchronous=NORMAL`; PostgreSQL: whatever its
    /// own settings allow).
    Normal,
}

/// What a standby of PostgreSQL may lack when it is promoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standbys {
    /// What was answered last. After a failover devices read their mailboxes anew.
    #[default]
    MayLag,
    /// Nothing: every commit waits until the standby that will be promoted has it (`synchronous_standby_names`).
    Synchronous,
}

/// How a store's schema stands to the migrations that this release knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaState {
    /// Migrations that the next [`super::Db::open`] will run.
    pub pending: usize,
    /// Migrations that a newer release has run.
    pub newer: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_shows_neither_user_nor_password() {
        let url = DatabaseUrl::new("postgres://martlet:se@cret@db.example:5432/chat?sslmode=require").expect("sound");
        assert_eq!(format!("{url} {url:?}"), "postgres://db.example:5432/chat postgres://db.example:5432/chat");
        assert_eq!(DatabaseUrl::new("postgresql:///chat").expect("sound").to_string(), "postgres:///chat");
        assert!(DatabaseUrl::new("mysql://db/chat").is_none());
        assert!(DatabaseUrl::new("postgres://a b").is_none());
    }
}
