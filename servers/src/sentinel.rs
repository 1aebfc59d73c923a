//! A Redis master, its replica, and one sentinel that watches them: for addresses that name a sentinel and not a server.

use std::{fs, path::Path};

use anyhow::Result;

use crate::{Redis, free_port, wait};

/// What the sentinel calls the master it watches.
const MASTER_NAME: &str = "martlet";

/// Master, replica and sentinel. They end with the value, and with this process.
pub struct Sentinel {
    sentinel: Redis,
    master: Redis,
    replica: Redis,
}

impl Sentinel {
    /// Starts the three in folders of their own below `folder`, and waits until the replica follows and the sentinel knows both.
    ///
    /// # Errors
    /// Redis is missing, or one does not start.
    pub fn start(folder: &Path) -> Result<Self> {
        let master = Redis::start(&folder.join("master"))?;
        let follows = ["--replicaof", "127.0.0.1", &master.port().to_string()];
        let replica = Redis::start_with(&folder.join("replica"), &follows)?;
        let own = folder.join("sentinel");
        fs::create_dir_all(&own)?;
        let config = own.join("sentinel.conf");
        // One sentinel is its own quorum; a second without an answer is down, so that a test sees a failover soon.
        let text = format!(
            "sentinel monitor {MASTER_NAME} 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds {MASTER_NAME} 1000\n\
             sentinel failover-timeout {MASTER_NAME} 10000\n",
            master.port()
        );
        fs::write(&config, text)?;
        let sentinel = Redis::of(&own, free_port(), vec![config.into(), "--sentinel".into()], false)?;
        let all = Self { sentinel, master, replica };
        wait::until(wait::PATIENCE, "waiting until the sentinel knows master and replica", || {
            let replication = all.replica.command(&["INFO", "replication"])?;
            let follows = replication.lines().any(|line| line.trim() == "master_link_status:up");
            let known = all.sentinel.command(&["SENTINEL", "REPLICAS", MASTER_NAME])?;
            let known = known.lines().any(|line| line.trim() == all.replica.port().to_string());
            Ok((follows && known).then_some(()))
        })?;
        Ok(all)
    }

    /// Where the sentinel listens on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.sentinel.port()
    }

    /// What the sentinel calls the master.
    #[must_use]
    pub fn master_name(&self) -> &'static str {
        MASTER_NAME
    }

    /// Where the sentinel says that the master is now.
    ///
    /// # Errors
    /// It doesn't answer.
    pub fn master_port(&self) -> Result<u16> {
        let answer = self.sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME])?;
        Ok(answer.lines().nth(1).unwrap_or_default().trim().parse()?)
    }

    /// The server that began as the master.
    pub fn master(&mut self) -> &mut Redis {
        &mut self.master
    }

    /// The server that began as the replica.
    pub fn replica(&mut self) -> &mut Redis {
        &mut self.replica
    }

    /// The sentinel itself, which takes commands like any Redis.
    pub fn sentinel(&mut self) -> &mut Redis {
        &mut self.sentinel
    }
}
