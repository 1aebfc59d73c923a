//! One PostgreSQL and one Redis for all tests of a process, and a database for each test.
//!
//! Starting a server takes seconds, making a database takes a fraction of one. The servers' folders go when the process ends: a value
//! that lives as long as the process is never dropped, so their watches do it.

use std::sync::{
    LazyLock,
    atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, anyhow};

use crate::{Postgres, Redis};

/// For speed: what these hold needs to outlive nothing. A node refuses such a server unless its own config says so.
const SETTINGS: &[(&str, &str)] = &[
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("max_connections", "500"),
    ("max_wal_size", "2GB"),
    ("autovacuum_naptime", "1h"),
];

/// Ports of servers that run already, such as those `cargo run -p martlet-servers` starts.
const POSTGRES_PORT: &str = "MARTLET_TEST_POSTGRES";
const REDIS_PORT: &str = "MARTLET_TEST_REDIS";

static POSTGRES: LazyLock<Result<Postgres>> = LazyLock::new(|| match running(POSTGRES_PORT)? {
    Some(port) => Postgres::running_on(port),
    None => Postgres::launch(&folder("postgresql")?, SETTINGS, true),
});

static REDIS: LazyLock<Result<Redis>> = LazyLock::new(|| match running(REDIS_PORT)? {
    Some(port) => Redis::running_on(port),
    None => Redis::launch(&folder("redis")?, &[], true),
});

static DATABASES: AtomicU32 = AtomicU32::new(0);

/// The PostgreSQL of this process's tests: not durable, and not to be stopped.
///
/// # Errors
/// As [`Postgres::start`], the same to everyone who asks.
pub fn shared_postgres() -> Result<&'static Postgres> {
    POSTGRES.as_ref().map_err(|error| anyhow!("{error:#}"))
}

/// The Redis of this process's tests, not to be stopped. Who uses it keeps to channels and keys of its own.
///
/// # Errors
/// As [`Redis::start`], the same to everyone who asks.
pub fn shared_redis() -> Result<&'static Redis> {
    REDIS.as_ref().map_err(|error| anyhow!("{error:#}"))
}

/// An empty database on [`shared_postgres`], dropped with the value.
#[derive(Debug)]
pub struct Database {
    name: String,
}

impl Database {
    /// Makes one.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn create() -> Result<Self> {
        let name = format!("test_{}_{}", std::process::id(), DATABASES.fetch_add(1, Ordering::Relaxed));
        let postgres = shared_postgres()?;
        // A server that outlives test processes may have one of a process that was killed.
        postgres.drop_database(&name)?;
        postgres.create_database(&name)?;
        Ok(Self { name })
    }

    /// Its name on the server.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where clients find it.
    ///
    /// # Errors
    /// None that [`Self::create`] would not have had.
    pub fn url(&self) -> Result<String> {
        Ok(shared_postgres()?.url(&self.name))
    }

    /// Runs SQL in it, as [`Postgres::query`].
    ///
    /// # Errors
    /// As there.
    pub fn query(&self, sql: &str) -> Result<String> {
        shared_postgres()?.query(&self.name, sql)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // What stays goes with the server.
        let _ = shared_postgres().and_then(|postgres| postgres.drop_database(&self.name));
    }
}

fn running(variable: &str) -> Result<Option<u16>> {
    let Some(port) = std::env::var_os(variable) else { return Ok(None) };
    let port = port.to_str().and_then(|port| port.parse().ok());
    port.map(Some).with_context(|| format!("{variable} is to be the port of a running server"))
}

fn folder(name: &str) -> Result<std::path::PathBuf> {
    Ok(tempfile::Builder::new().prefix(&format!("martlet-{name}-")).tempdir()?.keep())
}
