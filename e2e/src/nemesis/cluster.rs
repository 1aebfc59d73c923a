//! The system under test: nodes as an operator runs them, PostgreSQL on a small disk, Redis, and a proxy on each line between a node
//! and a service.
//!
//! What is done to it is in [`super::faults`]; here are the parts, and how each is brought back.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use martlet_servers::{Postgres, Proxy, Redis, Shutdown};
use parking_lot::Mutex;
use tokio::{sync::Mutex as AsyncMutex, task::spawn_blocking, time::sleep};

use super::{disk::Disk, planted::Bug};
use crate::{
    clock::Stopwatch,
    node::{Node, NodeOptions},
    scene::Scene,
};

/// The name of its database.
const DATABASE: &str = "martlet";
/// A service or node that does not come back within this has failed for good.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Over how long clients of a node that stops are told to come back.
pub const DRAIN_WINDOW: Duration = Duration::from_secs(1);

/// What every node of a run is set to, beside what all tests set.
const SETTINGS: &[&str] = &[
    "storage.wait=3s",
    // DRAIN_WINDOW.
    "server.drain_window=1s",
    // More than one, so that batches of one node meet too.
    "messages.commit_writers=2",
    // Small bounds are met often: contents that the relay does not carry, and readers that are behind for a while and acknowledge then.
    "messages.max_content_bytes=12288",
    "relay.inline_content_bytes=8192",
    "socket.outbound_budget_bytes=20480",
    "mailbox.ack_flush_interval=100ms",
    "socket.head_check_interval=5s",
];
/// PostgreSQL keeps little of its log, so that its disk can be small. And since that disk is memory, which is synced in no time, each
/// commit waits as long as an ordinary disk would take (in µs): what goes wrong in the middle of a commit must find it there.
const POSTGRES: &[(&str, &str)] = &[
    ("max_wal_size", "96MB"),
    ("min_wal_size", "32MB"),
    ("autovacuum_naptime", "5s"),
    ("checkpoint_timeout", "60s"),
    ("commit_delay", "8000"),
    ("commit_siblings", "0"),
];

/// See the module.
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<Place>,
    /// None: one node on its own store.
    pub services: Option<Arc<Services>>,
}

/// A node and its lines.
pub struct Place {
    /// Locked while something is done to it.
    pub node: AsyncMutex<Node>,
    /// Its line to PostgreSQL.
    pub postgres: Option<Arc<Proxy>>,
    /// Its line to Redis.
    pub redis: Option<Arc<Proxy>>,
    url: String,
}

/// What the nodes share.
pub struct Services {
    /// The store.
    pub postgres: Mutex<Postgres>,
    /// The relay.
    pub redis: Mutex<Redis>,
    /// The store's disk, if one of its own could be mounted.
    pub disk: Option<Disk>,
}

impl Cluster {
    /// Starts everything, the store on a disk of its own; it serves when this returns.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn start(scene: &Scene, nodes: usize, bug: Option<Bug>) -> Result<Self> {
        let disk = match Disk::mount(&scene.folder().join("postgres")) {
            Ok(disk) => Some(disk),
            Err(error) => {
                println!("!! NO FAULT OF A FULL DISK IN THIS RUN: {error:#}");
                None
            }
        };
        Self::on(disk, scene, nodes, bug).await
    }

    /// As [`Self::start`], on the disk that there is: for who does it no harm.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn unharmed(scene: &Scene, nodes: usize) -> Result<Self> {
        std::fs::create_dir_all(scene.folder().join("postgres"))?;
        Self::on(None, scene, nodes, None).await
    }

    async fn on(disk: Option<Disk>, scene: &Scene, nodes: usize, bug: Option<Bug>) -> Result<Self> {
        let folder = scene.folder().to_owned();
        let settings = [POSTGRES, bug.map_or(&[], Bug::postgres_settings)].concat();
        let services = spawn_blocking(move || Services::start(disk, &folder, &settings)).await??;
        let target = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (postgres_port, redis_port) = (services.postgres.lock().port(), services.redis.lock().port());
        let secret: PathBuf = scene.folder().join("node.secret");
        let mut places = Vec::new();
        for number in 1..=nodes {
            let (postgres, redis) = (Proxy::start(target(postgres_port))?, Proxy::start(target(redis_port))?);
            let options = options(bug)
                .set(&format!("cluster.node_id=n{number}"))
                .set(&format!("storage.database_url=postgres://martlet@127.0.0.1:{}/{DATABASE}", postgres.port()))
                .set(&format!("storage.secret_file={}", secret.display()))
                .set(&format!("relay.redis_url=redis://127.0.0.1:{}", redis.port()));
            let node = Node::start(scene, options).await.with_context(|| format!("node {number}"))?;
            places.push(Place::new(node, Some(postgres), Some(redis)));
        }
        Ok(Self { nodes: places, services: Some(Arc::new(services)) })
    }

    /// Starts one node on its own store.
    ///
    /// # Errors
    /// It does not start.
    pub async fn embedded(scene: &Scene, bug: Option<Bug>) -> Result<Self> {
        let node = Node::start(scene, options(bug)).await?;
        Ok(Self { nodes: vec![Place::new(node, None, None)], services: None })
    }

    /// Where clients reach the nodes.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|place| place.url.clone()).collect()
    }

    /// Whether the store's disk can be filled.
    #[must_use]
    pub fn has_disk(&self) -> bool {
        self.services.as_ref().is_some_and(|services| services.disk.is_some())
    }

    /// Copies the services' logs to where the nodes' logs are; what can't be copied is not there to be read.
    pub fn keep_logs(&self, scene: &Scene) {
        let Some(services) = &self.services else { return };
        for (log, name) in
            [(services.postgres.lock().log(), "postgresql.log"), (services.redis.lock().log(), "redis.log")]
        {
            let copied = log.map(|log| std::fs::copy(log, scene.folder().join(name)));
            if let Some(Err(error)) = copied {
                println!("{name} could not be kept: {error}");
            }
        }
    }
}

fn options(bug: Option<Bug>) -> NodeOptions {
    let mut options = SETTINGS.iter().fold(NodeOptions::default(), |options, setting| options.set(setting));
    if let Some(bug) = bug {
        options = bug.node_settings().iter().fold(options, |options, setting| options.set(setting));
        options = options.program("martlet-planted").environment("MARTLET_PLANTED", bug.name());
    }
    options
}

impl Place {
    fn new(node: Node, postgres: Option<Proxy>, redis: Option<Proxy>) -> Self {
        let url = node.url();
        Self { node: AsyncMutex::new(node), postgres: postgres.map(Arc::new), redis: redis.map(Arc::new), url }
    }
}

/// Starts a node as a supervisor does: one that ends at its start, because a service is away, is started again.
///
/// # Errors
/// That goes on for too long.
pub async fn supervise(node: &mut Node) -> Result<()> {
    let watch = Stopwatch::start();
    loop {
        node.spawn()?;
        match node.answering().await {
            Ok(()) => return Ok(()),
            Err(error) if watch.elapsed() > PATIENCE => return Err(error.context("a node does not start again")),
            Err(_) => sleep(LOOK).await,
        }
    }
}

impl Services {
    fn start(disk: Option<Disk>, folder: &std::path::Path, settings: &[(&str, &str)]) -> Result<Self> {
        let postgres = Postgres::start_with(&folder.join("postgres/server"), settings)?;
        postgres.create_database(DATABASE)?;
        let redis = Redis::start(&folder.join("redis"))?;
        Ok(Self { postgres: Mutex::new(postgres), redis: Mutex::new(redis), disk })
    }

    /// Stops PostgreSQL as in a crash, and starts it again after a while. Blocks.
    ///
    /// # Errors
    /// It does not stop or start.
    pub fn crash_postgres(&self, away: impl FnOnce()) -> Result<()> {
        let mut postgres = self.postgres.lock();
        postgres.stop(Shutdown::Immediate)?;
        away();
        postgres.start_again()
    }

    /// Waits until PostgreSQL takes writes, and starts it again if it has ended. Blocks the calling task only.
    ///
    /// # Errors
    /// It doesn't.
    pub async fn postgres_is_back(self: Arc<Self>) -> Result<()> {
        let watch = Stopwatch::start();
        loop {
            let services = self.clone();
            let back = spawn_blocking(move || {
                let mut postgres = services.postgres.lock();
                postgres.start_again()?;
                postgres.query("postgres", "SELECT 1")
            });
            match back.await? {
                Ok(_) => return Ok(()),
                Err(error) if watch.elapsed() > PATIENCE => bail!("PostgreSQL does not come back: {error:#}"),
                Err(_) => sleep(LOOK).await,
            }
        }
    }
}
