//! What goes wrong: each kind with its begin and its heal.

use std::{sync::Arc, thread, time::Duration};

use anyhow::{Context as _, Result};
use futures_util::future::try_join_all;
use martlet_servers::Proxy;
use rand::{RngExt as _, rngs::StdRng};
use tokio::{task::spawn_blocking, time::sleep};

use super::{
    cluster::{Cluster, Services, supervise},
    world::World,
};

/// What can go wrong. The names are those of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is explained by its name in the report")]
pub enum Kind {
    KillNode,
    PauseNode,
    RestartRedis,
    KillRedisClients,
    SleepRedis,
    FillRedis,
    RestartPostgres,
    PowerCut,
    CutPostgres,
    StallPostgres,
    SlowPostgres,
    CutRedis,
    StallRedis,
    SlowRedis,
    FillDisk,
}

/// Every kind, how often it is drawn, how long it lasts in ms, and its name.
const KINDS: &[(Kind, u32, std::ops::Range<u64>, &str)] = &[
    (Kind::KillNode, 4, 0..1_500, "node killed"),
    (Kind::PauseNode, 3, 500..5_000, "node paused"),
    (Kind::RestartRedis, 2, 0..2_500, "Redis killed"),
    (Kind::KillRedisClients, 2, 0..1, "Redis clients killed"),
    (Kind::SleepRedis, 2, 300..3_000, "Redis asleep"),
    (Kind::FillRedis, 2, 500..4_000, "Redis out of memory"),
    (Kind::RestartPostgres, 2, 0..800, "PostgreSQL crashed"),
    (Kind::PowerCut, 3, 0..800, "power cut"),
    (Kind::CutPostgres, 2, 200..3_000, "PostgreSQL cut off"),
    (Kind::StallPostgres, 2, 300..4_000, "PostgreSQL stalled"),
    (Kind::SlowPostgres, 2, 1_000..5_000, "PostgreSQL slow"),
    (Kind::CutRedis, 2, 200..4_000, "Redis cut off"),
    (Kind::StallRedis, 2, 300..5_000, "Redis stalled"),
    (Kind::SlowRedis, 2, 1_000..5_000, "Redis slow"),
    (Kind::FillDisk, 2, 300..3_000, "disk full"),
];
/// Delay of a slow line per chunk and direction.
const SLOW_MS: std::ops::Range<u64> = 5..60;

/// What a fault has to itself while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// A node's process.
    Node(usize),
    /// A node's line to PostgreSQL.
    PostgresLine(usize),
    /// A node's line to Redis.
    RedisLine(usize),
    /// The server.
    Redis,
    /// The server, with its disk.
    Postgres,
}

/// One fault.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// Which node, where it is one node's.
    pub node: usize,
    /// From begin to heal.
    pub lasts: Duration,
    /// Of a slow line.
    pub delay: Duration,
}

impl Kind {
    /// As in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(kind, ..)| *kind == self).map_or("", |(.., name)| name)
    }
}

impl Fault {
    /// Draws a fault that this cluster can have.
    pub fn draw(cluster: &Cluster, rng: &mut StdRng) -> Self {
        let can = |kind: Kind| match kind {
            Kind::KillNode | Kind::PauseNode => true,
            Kind::FillDisk => cluster.has_disk(),
            _ => cluster.services.is_some(),
        };
        let possible = || KINDS.iter().filter(|(kind, ..)| can(*kind));
        let drawn = rng.random_range(0..possible().map(|(_, weight, ..)| weight).sum());
        let mut reached = 0;
        let found = possible().find(|(_, weight, ..)| {
            reached += weight;
            drawn < reached
        });
        let (kind, _, lasts, _) = found.unwrap_or(&KINDS[0]);
        Self {
            kind: *kind,
            node: rng.random_range(0..cluster.nodes.len()),
            lasts: Duration::from_millis(rng.random_range(lasts.clone())),
            delay: Duration::from_millis(rng.random_range(SLOW_MS)),
        }
    }

    /// What it has to itself.
    #[must_use]
    pub fn target(&self) -> Target {
        match self.kind {
            Kind::KillNode | Kind::PauseNode => Target::Node(self.node),
            Kind::RestartRedis | Kind::KillRedisClients | Kind::SleepRedis | Kind::FillRedis => Target::Redis,
            Kind::RestartPostgres | Kind::PowerCut | Kind::FillDisk => Target::Postgres,
            Kind::CutPostgres | Kind::StallPostgres | Kind::SlowPostgres => Target::PostgresLine(self.node),
            Kind::CutRedis | Kind::StallRedis | Kind::SlowRedis => Target::RedisLine(self.node),
        }
    }

    /// Begins and heals it. Notes which nodes it disturbs.
    ///
    /// # Errors
    /// The system could not be brought back.
    pub async fn happen(self, cluster: Arc<Cluster>, world: Arc<World>) -> Result<()> {
        let disturbed = match self.target() {
            Target::Node(node) | Target::PostgresLine(node) => Some(Some(node)),
            Target::Postgres => Some(None),
            Target::Redis | Target::RedisLine(_) => None,
        };
        if let Some(node) = disturbed {
            world.calm.disturb(node);
        }
        let happened = self.begin_and_heal(&cluster, &world).await;
        if let Some(node) = disturbed {
            world.calm.settle(node, world.now_ms());
        }
        happened.with_context(|| format!("{} (node {})", self.kind.name(), self.node + 1))
    }

    async fn begin_and_heal(&self, cluster: &Cluster, world: &World) -> Result<()> {
        match self.target() {
            Target::Node(_) => self.of_node(cluster, world).await,
            Target::PostgresLine(at) => self.of_line(cluster.nodes[at].postgres.as_deref()).await,
            Target::RedisLine(at) => self.of_line(cluster.nodes[at].redis.as_deref()).await,
            Target::Redis => self.of_redis(cluster.services.clone().context("no Redis")?).await,
            Target::Postgres if self.kind == Kind::PowerCut => self.of_all(cluster, world).await,
            Target::Postgres => self.of_postgres(cluster.services.clone().context("no PostgreSQL")?).await,
        }
    }

    async fn of_node(&self, cluster: &Cluster, world: &World) -> Result<()> {
        let mut node = cluster.nodes[self.node].node.lock().await;
        if self.kind == Kind::PauseNode {
            node.pause()?;
            sleep(self.lasts).await;
            return node.unpause();
        }
        if node.kill().await.is_err() {
            world.history.lock().nodes_ended.push((self.node, world.now_ms()));
        }
        sleep(self.lasts).await;
        supervise(&mut node).await
    }

    /// As when the room loses its power: what a node would have tried again is gone with it. All nodes, for at most moments hardly more
    /// than one is between its answers and the end of its commit. A node that something else happens to is spared.
    async fn of_all(&self, cluster: &Cluster, world: &World) -> Result<()> {
        let services = cluster.services.clone().context("no PostgreSQL")?;
        let mut nodes: Vec<_> = cluster.nodes.iter().map(|place| place.node.try_lock().ok()).collect();
        let (gone, told) = tokio::sync::oneshot::channel();
        let lasts = self.lasts;
        let postgres = spawn_blocking(move || {
            services.crash_postgres(|| {
                // Nobody waits for it if a node could not be killed.
                let _ = gone.send(());
                pause_thread(lasts);
            })
        });
        told.await.context("PostgreSQL does not stop")?;
        for (at, node) in nodes.iter_mut().enumerate() {
            if let Some(node) = node
                && node.kill().await.is_err()
            {
                world.history.lock().nodes_ended.push((at, world.now_ms()));
            }
        }
        postgres.await??;
        try_join_all(nodes.iter_mut().flatten().map(|node| supervise(node))).await.map(drop)
    }

    async fn of_line(&self, line: Option<&Proxy>) -> Result<()> {
        let line = line.context("no line")?;
        match self.kind {
            Kind::CutPostgres | Kind::CutRedis => tokio::task::block_in_place(|| line.cut()),
            Kind::StallPostgres | Kind::StallRedis => line.stall()?,
            _ => line.slow(self.delay)?,
        }
        sleep(self.lasts).await;
        line.heal()
    }

    async fn of_redis(&self, services: Arc<Services>) -> Result<()> {
        let (kind, lasts) = (self.kind, self.lasts);
        spawn_blocking(move || {
            let mut redis = services.redis.lock();
            match kind {
                Kind::KillRedisClients => {
                    for sort in ["normal", "pubsub"] {
                        redis.command(&["CLIENT", "KILL", "TYPE", sort])?;
                    }
                }
                Kind::SleepRedis => {
                    redis.command(&["DEBUG", "SLEEP", &lasts.as_secs_f64().to_string()])?;
                }
                Kind::FillRedis => {
                    redis.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1"])?;
                    pause_thread(lasts);
                    redis.command(&["CONFIG", "SET", "maxmemory", "0"])?;
                }
                _ => {
                    redis.kill()?;
                    pause_thread(lasts);
                    redis.start_again()?;
                }
            }
            Ok(())
        })
        .await?
    }

    async fn of_postgres(&self, services: Arc<Services>) -> Result<()> {
        let lasts = self.lasts;
        if self.kind == Kind::RestartPostgres {
            return spawn_blocking(move || services.crash_postgres(|| pause_thread(lasts))).await?;
        }
        let disk = services.clone();
        spawn_blocking(move || disk.disk.as_ref().context("no disk")?.fill()).await??;
        sleep(lasts).await;
        services.disk.as_ref().context("no disk")?.free()?;
        // A PostgreSQL that can't write its log ends, and its recovery may have failed as well.
        services.postgres_is_back().await
    }
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own, which holds the service's lock while it is away")]
fn pause_thread(time: Duration) {
    thread::sleep(time);
}
