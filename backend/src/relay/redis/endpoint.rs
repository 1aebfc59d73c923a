//! Connections to Redis, however it is run: one server, Redis Cluster, or what Sentinels say is the master. The same for publishing (out
//! of a pool) and for subscriptions (one of its own, with somebody to push to). Retries nothing: whoever uses it does.

use std::{fs, path::PathBuf, time::Duration};

use deadpool::managed;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, Pipeline,
    ProtocolVersion, PushInfo, RedisError, RedisFuture, RedisResult, TlsCertificates, TlsMode, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};

use super::channel::Naming;
use crate::config::{self, RedisKind};

/// Why nothing can even be tried with what the config says.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The file with certificates can't be used.
    #[error("relay.redis_ca_file {path}: {why}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The addresses make no sense together.
    #[error("relay.redis_url: {0}")]
    Url(String),
}

/// Hears what Redis pushes. Must not block.
pub(super) type PushTo = Box<dyn Fn(PushInfo) + Send + Sync>;

/// Where Redis is, and how to connect.
#[derive(Clone)]
pub(super) struct Endpoint {
    kind: Kind,
    timeout: Duration,
}

#[derive(Clone)]
enum Kind {
    Single(Client),
    Cluster { nodes: Vec<ConnectionInfo>, certificates: Option<TlsCertificates> },
    Sentinel { sentinels: Vec<ConnectionInfo>, master: String, certificates: Option<TlsCertificates> },
}

/// A connection of either kind.
#[derive(Clone)]
pub(super) enum Connection {
    /// To one server.
    One(MultiplexedConnection),
    /// To all of a cluster.
    Cluster(ClusterConnection),
}

/// Connections for publishing.
pub(super) type Pool = managed::Pool<Endpoint>;

impl Endpoint {
    /// From the config. `None` if it names no Redis.
    pub(super) fn new(config: &config::Relay) -> Result<Option<Self>, EndpointError> {
        let Some(url) = &config.redis_url else { return Ok(None) };
        let certificates = certificates(config)?;
        let wrong = |error: RedisError| EndpointError::Url(error.to_string());
        let mut nodes = Vec::new();
        for address in url.reveal() {
            // RESP3 everywhere: subscriptions need it, and a server without it should be noticed by every command.
            let info = address.into_connection_info().map_err(wrong)?;
            let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
            nodes.push(info.set_redis_settings(settings));
        }
        if url.reveal().any(|address| address.starts_with("rediss://")) {
            // Fails if somebody else has chosen one, which is as good.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let first = nodes.first().cloned().ok_or_else(|| EndpointError::Url("it names no server".into()))?;
        let kind = match config.redis_kind {
            RedisKind::Single => Kind::Single(client(first, certificates.as_ref()).map_err(wrong)?),
            RedisKind::Cluster => Kind::Cluster { nodes, certificates },
            RedisKind::Sentinel => {
                Kind::Sentinel { sentinels: nodes, master: config.redis_master.clone(), certificates }
            }
        };
        let endpoint = Self { kind, timeout: config.redis_timeout };
        if let Kind::Cluster { nodes, certificates } = &endpoint.kind {
            endpoint.cluster(nodes, certificates.as_ref(), None).map_err(wrong)?;
        }
        Ok(Some(endpoint))
    }

    /// How channels are named there.
    pub(super) fn naming(&self) -> Naming {
        match self.kind {
            Kind::Single(_) | Kind::Sentinel { .. } => Naming::Plain,
            Kind::Cluster { .. } => Naming::Sharded,
        }
    }

    /// Connections for publishing, made when needed.
    pub(super) fn pool(&self, max_size: usize) -> Option<Pool> {
        let timeouts = managed::Timeouts {
            wait: Some(self.timeout),
            create: Some(self.timeout.saturating_mul(2)),
            recycle: Some(self.timeout),
        };
        let builder = Pool::builder(self.clone()).max_size(max_size).timeouts(timeouts);
        // Refused only without a runtime for the time-outs, and that is named here.
        builder.runtime(deadpool::Runtime::Tokio1).build().ok()
    }

    /// A connection; with `push`, one that can be subscribed with.
    pub(super) async fn connect(&self, push: Option<PushTo>) -> RedisResult<Connection> {
        // Sentinels are asked before the master is connected to, each step with a time-out of its own; this bounds all of them.
        let patience = self.timeout.saturating_mul(2);
        let connected = tokio::time::timeout(patience, self.connect_to_kind(push)).await;
        connected.unwrap_or_else(|_| Err(timed_out("connecting took too long")))
    }

    async fn connect_to_kind(&self, push: Option<PushTo>) -> RedisResult<Connection> {
        let client = match &self.kind {
            Kind::Cluster { nodes, certificates } => {
                let client = self.cluster(nodes, certificates.as_ref(), push)?;
                return client.get_async_connection().await.map(Connection::Cluster);
            }
            Kind::Single(client) => client.clone(),
            Kind::Sentinel { sentinels, master, certificates } => {
                master_of(sentinels, master, certificates.as_ref())?.async_get_client().await?
            }
        };
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout));
        if let Some(push) = push {
            config = config.set_push_sender(pusher(push));
        }
        client.get_multiplexed_async_connection_with_config(&config).await.map(Connection::One)
    }

    fn cluster(
        &self,
        nodes: &[ConnectionInfo],
        certificates: Option<&TlsCertificates>,
        push: Option<PushTo>,
    ) -> RedisResult<ClusterClient> {
        let mut builder = ClusterClientBuilder::new(nodes.iter().cloned())
            .use_protocol(ProtocolVersion::RESP3)
            .connection_timeout(self.timeout)
            .response_timeout(self.timeout);
        if let Some(certificates) = certificates {
            builder = builder.certs(certificates.clone());
        }
        if let Some(push) = push {
            builder = builder.push_sender(pusher(push));
        }
        builder.build()
    }
}

impl managed::Manager for Endpoint {
    type Type = Connection;
    type Error = RedisError;

    async fn create(&self) -> RedisResult<Connection> {
        self.connect(None).await
    }

    /// A connection is used again as it is: whoever finds it broken takes it out of the pool, which costs no question each time.
    async fn recycle(&self, _: &mut Connection, _: &managed::Metrics) -> managed::RecycleResult<RedisError> {
        Ok(())
    }
}

impl Connection {
    /// Subscribes; on a cluster to channels of one partition only.
    pub(super) async fn subscribe(&mut self, channels: &[String]) -> RedisResult<()> {
        match self {
            Self::One(connection) => connection.subscribe(channels).await,
            Self::Cluster(connection) => connection.ssubscribe(channels).await,
        }
    }

    /// Ends subscriptions; on a cluster to channels of one partition only.
    pub(super) async fn unsubscribe(&mut self, channels: &[String]) -> RedisResult<()> {
        match self {
            Self::One(connection) => connection.unsubscribe(channels).await,
            Self::Cluster(connection) => connection.sunsubscribe(channels).await,
        }
    }

    /// An answer of the server; of a cluster, of each of its masters.
    pub(super) async fn ping(&mut self) -> RedisResult<()> {
        redis::cmd("PING").exec_async(self).await
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

/// An error that stands for a time-out of ours.
pub(super) fn timed_out(what: &'static str) -> RedisError {
    std::io::Error::new(std::io::ErrorKind::TimedOut, what).into()
}

fn pusher(push: PushTo) -> impl Fn(PushInfo) -> Result<(), redis::aio::SendError> + Send + Sync + 'static {
    move |info| {
        push(info);
        Ok(())
    }
}

fn client(info: ConnectionInfo, certificates: Option<&TlsCertificates>) -> RedisResult<Client> {
    match certificates {
        Some(certificates) if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) => {
            Client::build_with_tls(info, certificates.clone())
        }
        _ => Client::open(info),
    }
}

/// Sentinels are asked without user and password; those of the addresses belong to the master.
fn master_of(
    sentinels: &[ConnectionInfo],
    master: &str,
    certificates: Option<&TlsCertificates>,
) -> RedisResult<SentinelClient> {
    let addresses = sentinels.iter().map(|info| info.addr().clone());
    let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?;
    let Some(first) = sentinels.first() else { return builder.build() };
    let settings = first.redis_settings();
    builder = builder.set_client_to_redis_protocol(settings.protocol()).set_client_to_redis_db(settings.db());
    if let Some(username) = settings.username() {
        builder = builder.set_client_to_redis_username(username);
    }
    if let Some(password) = settings.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    if matches!(first.addr(), ConnectionAddr::TcpTls { .. }) {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        if let Some(certificates) = certificates {
            builder = builder
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates.clone());
        }
    }
    builder.build()
}

fn certificates(config: &config::Relay) -> Result<Option<TlsCertificates>, EndpointError> {
    let Some(path) = &config.redis_ca_file else { return Ok(None) };
    let wrong = |why: String| EndpointError::CaFile { path: path.clone(), why };
    let pem = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let begins = b"-----BEGIN CERTIFICATE-----";
    if !pem.windows(begins.len()).any(|part| part == begins) {
        return Err(wrong("it holds no certificate in PEM".into()));
    }
    Ok(Some(TlsCertificates { client_tls: None, root_cert: Some(pem) }))
}
