//! A Redis Cluster of three masters and no replicas: the least that has slots on different servers.

use std::path::Path;

use anyhow::Result;

use crate::{Redis, free_port, wait};

/// The slots of a Redis Cluster, by its specification.
const SLOTS: usize = 16_384;
const MASTERS: usize = 3;

/// Three masters, each with a third of the slots. They end with the value, and with this process.
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts the servers in folders of their own below `folder`, makes them a cluster, and waits until all of them agree.
    ///
    /// # Errors
    /// Redis is missing, or one does not start.
    pub fn start(folder: &Path) -> Result<Self> {
        let mut nodes = Vec::new();
        let mut buses = Vec::new();
        for number in 0..MASTERS {
            let bus = free_port();
            let arguments =
                ["--cluster-enabled", "yes", "--cluster-node-timeout", "5000", "--cluster-port", &bus.to_string()];
            nodes.push(Redis::start_with(&folder.join(format!("redis-{number}")), &arguments)?);
            buses.push(bus);
        }
        for (number, node) in nodes.iter().enumerate() {
            let (first, end) = (SLOTS * number / MASTERS, SLOTS * (number + 1) / MASTERS);
            node.command(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &(end - 1).to_string()])?;
            // Of their own from the start, or the servers would have to settle it between them.
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()])?;
        }
        for (node, bus) in nodes.iter().zip(&buses).skip(1) {
            let meet = ["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string(), &bus.to_string()];
            nodes[0].command(&meet)?;
        }
        let cluster = Self { nodes };
        wait::until(wait::PATIENCE, "waiting until the Redis Cluster agrees", || Ok(cluster.agrees()?.then_some(())))?;
        Ok(cluster)
    }

    /// Every server sees all others and all slots.
    fn agrees(&self) -> Result<bool> {
        for node in &self.nodes {
            let info = node.command(&["CLUSTER", "INFO"])?;
            let has = |wanted: &str| info.lines().any(|line| line.trim() == wanted);
            if !(has("cluster_state:ok") && has(&format!("cluster_slots_ok:{SLOTS}")) && has("cluster_size:3")) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Where clients find them; any one is enough to find the others.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }

    /// The masters, the one with the lowest slots first.
    #[must_use]
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// The masters, to stop and start them.
    pub fn nodes_mut(&mut self) -> &mut [Redis] {
        &mut self.nodes
    }
}
