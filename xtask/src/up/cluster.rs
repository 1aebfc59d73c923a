//! `cargo xtask up --cluster`: PostgreSQL, Redis, three nodes and nginx on this machine, until Ctrl-C. For trying it out: all of it on
//! one disk is no redundancy.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use martlet_servers::{Nginx, Postgres, Redis, Shutdown};
use tokio::signal::unix::{SignalKind, signal};

use super::parts::{self, Node};

const NAMES: [&str; 3] = ["node-1", "node-2", "node-3"];
const POLL: Duration = Duration::from_millis(500);
/// How long nodes are waited for when they stop: their `server.drain_window`, and what is under way.
const PATIENCE_S: u32 = 30;

/// All that runs.
struct Cluster {
    nginx: Nginx,
    address: SocketAddr,
    nodes: Vec<Node>,
    redis: Redis,
    postgres: Postgres,
}

/// Starts everything, prints where it is, and stops it in order at Ctrl-C or SIGTERM.
///
/// # Errors
/// A part did not start, or not stop.
pub fn run(program: &Path, folder: &Path, profile: &str, serve: &[String]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let starting = Cluster::start(program, folder, serve);
        let mut cluster = tokio::select! {
            started = starting => started?,
            // What runs by then ends with its value.
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("interrupted"),
        };
        cluster.show(folder, profile);
        tokio::select! {
            failed = cluster.watch() => failed?,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        println!("\nStopping; nodes give their devices a moment to leave. Once more Ctrl-C ends them at once.");
        tokio::select! {
            stopped = cluster.stop() => stopped,
            _ = interrupt.recv() => Ok(()),
        }
    })
}

impl Cluster {
    async fn start(program: &Path, folder: &Path, serve: &[String]) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
        let folder = folder.canonicalize()?;
        println!("Starting PostgreSQL, Redis, three nodes and nginx in {}.", folder.display());
        let postgres = parts::postgres(&folder)?;
        let redis = Redis::start(&folder.join("redis"))?;
        let start = |name| Node::start(name, program, &folder, (&postgres, &redis), serve);
        let mut nodes = NAMES.into_iter().map(start).collect::<Result<Vec<_>>>()?;
        for node in &mut nodes {
            node.wait_until_ready().await?;
        }
        let (nginx, address) = parts::nginx(&folder, &nodes)?;
        if !parts::is_ready(address) {
            let end = martlet_servers::last_lines(&folder.join("nginx/martlet-access.log"), 5);
            bail!("nginx on {address} does not reach the nodes; the end of its log:\n{end}");
        }
        Ok(Self { nginx, address, nodes, redis, postgres })
    }

    fn show(&self, folder: &Path, profile: &str) {
        let address = self.address;
        println!("\n  nginx       http://{address}   what clients use; process {}", self.nginx.pid());
        for node in &self.nodes {
            let (pid, public, internal) = (node.program.pid(), node.public, node.internal);
            println!("  {:<10}  http://{public}  inside: http://{internal}/health  process {pid}", node.name);
        }
        println!("  PostgreSQL  {}  process {}", self.postgres.url("martlet"), self.postgres.pid());
        println!("  Redis       {}  process {}", self.redis.url(), self.redis.pid());
        println!(
            "\nLogs and data are in {}; remove that folder to start from nothing. To try it, in another terminal:\n  \
             cargo run --profile {profile} -p martlet-client -- --server http://{address} demo\n  \
             kill -9 {}      # a node goes, and its devices come back on the others\n\
             Ctrl-C stops everything.",
            folder.display(),
            self.nodes[0].program.pid(),
        );
    }

    /// Says of each part that ends by itself how it ended. Goes on: that one may be missing is what a cluster is for.
    async fn watch(&mut self) -> Result<()> {
        let mut gone = [false; NAMES.len()];
        loop {
            tokio::time::sleep(POLL).await;
            for (node, gone) in self.nodes.iter_mut().zip(&mut gone) {
                if let Some(status) = node.program.status()?.filter(|_| !*gone) {
                    *gone = true;
                    println!(
                        "\n{} ended ({status}). The others go on. The end of its log:\n{}",
                        node.name,
                        node.log_end()
                    );
                }
            }
        }
    }

    /// Clients' way in first, then the nodes, then what they need.
    async fn stop(mut self) -> Result<()> {
        self.nginx.stop()?;
        for node in &mut self.nodes {
            node.program.ask_to_stop()?;
        }
        for node in &mut self.nodes {
            let mut polls = 0;
            while node.program.status()?.is_none() {
                if polls > PATIENCE_S * 1000 / POLL.as_millis() as u32 {
                    bail!("{} does not stop; the end of its log:\n{}", node.name, node.log_end());
                }
                polls += 1;
                tokio::time::sleep(POLL).await;
            }
        }
        self.redis.stop()?;
        self.postgres.stop(Shutdown::Fast)
    }
}
