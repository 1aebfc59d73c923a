//! PostgreSQL and Redis for several nodes on this machine, what they cost, and what single-row inserts reach on the same PostgreSQL.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use martlet_servers::{Postgres, Redis};
use tempfile::TempDir;

use super::proc;
use crate::progress::say;

/// Durable as it comes: every commit is on disk before it is answered.
const POSTGRES: &[(&str, &str)] =
    &[("shared_buffers", "512MB"), ("max_wal_size", "4GB"), ("checkpoint_timeout", "5min"), ("wal_compression", "off")];

/// What nodes share.
pub struct Cluster {
    postgres: Postgres,
    redis: Redis,
    folder: TempDir,
    /// Servers' folders; after the servers in this order, so that they end first.
    _folders: [TempDir; 2],
}

impl Cluster {
    /// Starts both in folders of their own.
    ///
    /// # Errors
    /// When one of them is not installed or does not start.
    pub fn start(dir: Option<&PathBuf>) -> Result<Self> {
        let folder = || match dir {
            Some(dir) => TempDir::with_prefix_in("martlet-load-", dir),
            None => TempDir::with_prefix("martlet-load-"),
        };
        let (own, for_postgres, for_redis) = (folder()?, folder()?, folder()?);
        say("starting PostgreSQL and Redis");
        let postgres = Postgres::start_with(for_postgres.path(), POSTGRES)?;
        postgres.create_database("martlet")?;
        let redis = Redis::start(for_redis.path())?;
        Ok(Self { postgres, redis, folder: own, _folders: [for_postgres, for_redis] })
    }

    /// Settings of the node with this number.
    #[must_use]
    pub fn settings(&self, number: usize) -> Vec<String> {
        vec![
            format!("storage.database_url={}", self.postgres.url("martlet")),
            format!("storage.secret_file={}", self.folder.path().join("node.secret").display()),
            format!("relay.redis_url={}", self.redis.url()),
            format!("cluster.node_id=n{number}"),
        ]
    }

    /// Processor time of PostgreSQL and of Redis so far.
    ///
    /// # Errors
    /// When they can't be observed.
    pub fn cpu(&self) -> Result<(Duration, Duration)> {
        Ok((proc::cpu_with_children(pid(self.postgres.pid())?)?, proc::cpu(pid(self.redis.pid())?)?))
    }

    /// Stops Redis as a failure would.
    ///
    /// # Errors
    /// When it was not running.
    pub fn stop_redis(&mut self) -> Result<()> {
        self.redis.kill()
    }

    /// Starts it again, empty.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_redis(&mut self) -> Result<()> {
        self.redis.start_again()
    }

    /// Rows per second that eight clients reach with one row per transaction, on the same server, for so long: the rows have the size
    /// of those that a node writes, and one index.
    ///
    /// # Errors
    /// When pgbench is not installed or fails.
    pub fn single_rows(&self, sealed_bytes: usize, time: Duration) -> Result<f64> {
        self.postgres.create_database("single_rows")?;
        self.postgres.query(
            "single_rows",
            "CREATE TABLE entries (device_key BIGINT NOT NULL, seq BIGINT NOT NULL, size_bytes BIGINT NOT NULL,
                 expires_at_s BIGINT NOT NULL, own_lifetime SMALLINT NOT NULL, content_key BIGINT, entry_id BYTEA NOT NULL,
                 sealed BYTEA NOT NULL, PRIMARY KEY (device_key, seq));
             ALTER TABLE entries ALTER COLUMN sealed SET STORAGE EXTERNAL",
        )?;
        let script = self.folder.path().join("single_rows.sql");
        let sealed = "5a".repeat(sealed_bytes);
        std::fs::write(
            &script,
            format!(
                "\\set device random(1, 1200)\n\\set seq random(1, 1000000000000)\n\
                 INSERT INTO entries VALUES (:device, :seq, {sealed_bytes}, 4000000000, 0, NULL, '\\x{}', '\\x{sealed}');\n",
                "11".repeat(16)
            ),
        )?;
        let seconds = time.as_secs().max(1).to_string();
        let output = Command::new(pgbench()?)
            .args([
                "-h",
                "127.0.0.1",
                "-U",
                "martlet",
                "-n",
                "-M",
                "prepared",
                "-c",
                "8",
                "-j",
                "2",
                "-T",
                &seconds,
                "-f",
            ])
            .arg(&script)
            .args(["-p", &self.postgres.port().to_string(), "single_rows"])
            .output()
            .context("pgbench can't be started")?;
        ensure!(output.status.success(), "pgbench failed: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        let tps = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split_whitespace().next()?.parse().ok());
        tps.ok_or_else(|| anyhow!("pgbench told no rate: {text}"))
    }
}

fn pid(pid: i32) -> Result<u32> {
    u32::try_from(pid).ok().filter(|pid| *pid > 0).ok_or_else(|| anyhow!("a server is not running"))
}

/// Debian keeps it beside the server.
fn pgbench() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        versions.map(|folder| folder.path().join("bin/pgbench")).filter(|p| p.is_file()).collect();
    found.sort();
    let found = found.pop().or_else(|| Some(Path::new("/usr/bin/pgbench").to_owned()).filter(|path| path.is_file()));
    found.ok_or_else(|| anyhow!("pgbench is missing; it comes with the Debian package postgresql"))
}
