//! Puts the node together: opens the store, builds the services, listens, and stops in order.
//!
//! Two listeners: the public one serves devices (REST, and the sockets on the same connections' upgrade path), the internal one serves
//! the operator. Nothing is decided here about requests, and nothing imports this module but the program and tests.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use actix_http::HttpService;
use actix_server::{Server, ServerHandle};
use actix_service::map_config;
use actix_web::{App, HttpServer, dev::AppConfig};
use martlet_storage::{Db, StorageError, sends, store};
use rand::Rng as _;
use subtle::ConstantTimeEq as _;
use tokio::task::{self, JoinHandle};

use crate::{
    accounts::{self, AccountError, Accounts},
    check::{self, watch::Watch},
    clock::{self, Clock},
    config::Config,
    conversations::Conversations,
    health::Health,
    http,
    limits::Limits,
    listener,
    measures::Measures,
    messages::{self, Messages},
    relay::{self, Relay, RelayError},
    secrets::{Secrets, SecretsError},
    services::Services,
    streams::Streams,
    subscribers::{MAX_WORKERS, Subscribers, TailLimits},
    transport::{Sockets, UpgradeFactory},
    vital,
};

/// How long a client may take over the head of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests under way may take when the node stops, in whole seconds.
const REQUEST_SHUTDOWN_S: u64 = 5;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be listened on.
    #[error("can't listen on {address} (server.{key}): {source}")]
    Listen {
        /// The key in the config's `server` section.
        key: &'static str,
        /// What it said.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The store could not be opened.
    #[error("can't open the store: {}", .0.reason())]
    Store(#[from] StorageError),
    /// The node's secret could not be read or made.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// Another process has this node's id.
    #[error("another node runs as {0} on this database; set cluster.node_id to a name of its own")]
    NodeIdTaken(String),
    /// The store was made with another secret.
    #[error(
        "{0} is not the secret that the store was made with; copy the file from another node (storage.secret_file)"
    )]
    OtherSecret(PathBuf),
    /// The password hash's cost is not possible.
    #[error(transparent)]
    Accounts(#[from] AccountError),
    /// Nothing can be tried with what the config says about Redis.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// Anything else of the operating system.
    #[error("can't start: {0}")]
    Io(#[from] io::Error),
}

/// The node.
pub struct Node;

/// A node that serves.
pub struct RunningNode {
    /// Where clients connect.
    pub public: SocketAddr,
    /// Where the operator looks.
    pub internal: SocketAddr,
    services: Arc<Services>,
    sockets: Arc<Sockets>,
    db: Db,
    listeners: [Listener; 2],
    watch: JoinHandle<()>,
}

/// A listener that serves.
struct Listener {
    handle: ServerHandle,
    task: JoinHandle<io::Result<()>>,
}

impl Node {
    /// Opens the store, builds the services, listens. Needs a tokio runtime. Port 0 takes a free port.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub async fn start(config: Config, clock: Clock) -> Result<RunningNode, StartError> {
        let config = Arc::new(config);
        // Listened on first: a port that is taken is the likeliest mistake, and what is found out now needs no undoing.
        let public = listen("listen", config.server.listen)?;
        let internal = listen("internal_listen", config.server.internal_listen)?;
        let (public_address, internal_address) = (public.local_addr()?, internal.local_addr()?);

        let node_id = node_id(&config, public_address);
        let (db, secrets) = open_store(&config).await?;
        let clock = if db.is_shared() { clock.corrected() } else { clock };
        // Before anything is done by it.
        check::watch::set_clock(&clock, &db, &config).await?;
        let lock = db.claim_node_id(&node_id).await?.ok_or_else(|| StartError::NodeIdTaken(node_id.clone()))?;
        let services = build(config, clock, db.clone(), secrets, &node_id).await?;
        let sockets = Sockets::new();
        let listeners = match serve(&services, &sockets, public, internal) {
            Ok(listeners) => listeners,
            Err(error) => {
                stop_services(&services, &db).await;
                return Err(error);
            }
        };
        let watch = Watch {
            health: services.health.clone(),
            config: services.config.clone(),
            db: db.clone(),
            streams: services.streams.clone(),
            clock: services.clock.clone(),
            node: (node_id, Some(lock)),
        };
        let (public, internal, watch) = (public_address, internal_address, watch.start());
        Ok(RunningNode { public, internal, services, sockets, db, listeners, watch })
    }
}

/// Brings the store's schema up to this release; returns how many migrations ran.
///
/// # Errors
/// [`StartError::Store`].
pub fn migrate(config: &Config) -> Result<usize, StartError> {
    if !config.storage.is_shared() && !config.storage.database().exists() {
        // A store that is made without its secret would seem to have lost it.
        return Ok(0);
    }
    Ok(Db::migrate(&config.db_config())?)
}

impl RunningNode {
    /// What the node is made of, for tests that look inside.
    #[must_use]
    pub fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// How many sockets are open.
    #[must_use]
    pub fn open_sockets(&self) -> usize {
        self.sockets.open()
    }

    /// How long [`Self::stop`] may take when all is well but slow; after that something hangs. Sockets leave over the drain window, requests
    /// have their time, and the last commits wait for a store that is away, once and once more.
    #[must_use]
    pub fn longest_stop(&self) -> Duration {
        let config = &self.services.config;
        config.server.drain_window + 3 * config.storage.timeout + 2 * Duration::from_secs(REQUEST_SHUTDOWN_S)
    }

    /// Stops in order: no new sockets, clients told when to come back, their sends answered, no new connections, requests finished,
    /// commits done, acks written, store closed.
    ///
    /// While sockets drain, requests are still answered, new sockets with a refusal that says when to come back: a listener that is
    /// only paused leaves whoever connects (a proxy, for one) waiting for nothing.
    pub async fn stop(self) {
        self.services.health.drain();
        self.watch.abort();
        let [public, internal] = self.listeners;
        self.sockets.drain(&self.services, self.services.config.server.drain_window).await;
        public.stop().await;
        stop_services(&self.services, &self.db).await;
        internal.stop().await;
    }
}

impl Listener {
    fn run(server: Server) -> Self {
        Self { handle: server.handle(), task: tokio::spawn(server) }
    }

    async fn stop(self) {
        self.handle.stop(true).await;
        match self.task.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "a listener did not end well"),
            Err(error) => tracing::error!(%error, "a listener failed"),
        }
    }
}

fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    listener::listen(address).map_err(|source| StartError::Listen { key, address, source })
}

/// The name that tells this node from others.
fn node_id(config: &Config, public: SocketAddr) -> String {
    if !config.cluster.node_id.is_empty() {
        return config.cluster.node_id.clone();
    }
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{machine}-{}", public.port())
}

/// Opens the store, and the secret that belongs to it.
async fn open_store(config: &Config) -> Result<(Db, Secrets), StartError> {
    let (path, is_shared) = (config.storage.secret(), config.storage.is_shared());
    // Embedded, the secret is made before the store, so a store without one has lost it.
    let early = match is_shared {
        true => None,
        false if config.storage.database().exists() => Some(Secrets::load(&path)?),
        false => Some(Secrets::load_or_create(&path, &mut clock::rng())?),
    };
    let open = config.db_config();
    // Migrations may take their time.
    let db = task::spawn_blocking(move || Db::open(&open)).await.map_err(io::Error::other)??;
    sends::planted::at_start(&db).await?;
    let facts = db.read(store::facts).await?;
    let secrets = match early {
        Some(secrets) => secrets,
        None if facts.secret_check.is_some() => Secrets::load(&path)?,
        None => Secrets::load_or_create(&path, &mut clock::rng())?,
    };
    let own = secrets.check(&facts.store_id);
    // Of several nodes that start at once one binds the store; so it is read again.
    let bound = match facts.secret_check {
        Some(bound) => bound,
        None => {
            db.write(move |conn| store::bind_secret(conn, &own)).await?;
            db.read(store::facts).await?.secret_check.unwrap_or_default()
        }
    };
    if bool::from(own.as_slice().ct_eq(&bound)) { Ok((db, secrets)) } else { Err(StartError::OtherSecret(path)) }
}

/// Every part, bottom up, and who hears of what the control stream says; then the streams begin to flow.
async fn build(
    config: Arc<Config>,
    clock: Clock,
    db: Db,
    secrets: Secrets,
    node_id: &str,
) -> Result<Arc<Services>, StartError> {
    let limits = Limits::new(&config.limits, clock.clone());
    let health = Health::new(node_id);
    let measures = Measures::new();
    vital::spawn("the upkeep of measures", measures.clone().keep());
    let tails = TailLimits { per_log_bytes: config.logs.tail_bytes, all_bytes: config.logs.all_tails_bytes };
    let subscribers = Arc::new(Subscribers::with_tails(tails));
    let relay = Relay::open(relay::Parts {
        config: config.clone(),
        clock: clock.clone(),
        health: health.clone(),
        db: db.clone(),
        subscribers: subscribers.clone(),
        key: (*secrets.relay_key()).into(),
        seed: seed(),
    })?;
    let streams = Streams::with_relay(db.clone(), config.clone(), clock.clone(), subscribers, relay);
    let accounts = Accounts::new(accounts::Parts {
        config: config.clone(),
        clock: clock.clone(),
        secrets: &secrets,
        limits: limits.clone(),
        db: db.clone(),
        streams: streams.clone(),
    })?;
    let messages = Messages::start(messages::Parts {
        config: config.clone(),
        clock: clock.clone(),
        secrets: Arc::new(secrets),
        limits: limits.clone(),
        db: db.clone(),
        accounts: accounts.clone(),
        streams: streams.clone(),
        measures: measures.clone(),
        seed: seed(),
    })?;
    let conversations = Conversations::new(config.clone(), clock.clone(), db, streams.clone());

    let heard = (accounts.clone(), messages.clone());
    streams.on_control(Box::new(move |entry| {
        heard.0.on_control(entry);
        heard.1.on_control(entry);
    }));
    let forgetful = (accounts.clone(), messages.clone());
    streams.on_control_lost(Box::new(move || {
        forgetful.0.forget_all();
        forgetful.1.forget_all();
    }));
    if let Err(error) = streams.start().await {
        stop_messages(&messages).await;
        return Err(error.into());
    }
    Ok(Arc::new(Services { config, clock, accounts, conversations, messages, streams, limits, health, measures }))
}

fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    clock::rng().fill_bytes(&mut seed);
    seed
}

fn serve(
    services: &Arc<Services>,
    sockets: &Arc<Sockets>,
    public: TcpListener,
    internal: TcpListener,
) -> Result<[Listener; 2], StartError> {
    let public = public_server(services.clone(), sockets.clone(), public)?;
    let (health, measures) = (services.health.clone(), services.measures.clone());
    let internal = HttpServer::new(move || App::new().configure(http::operator::configure(&health, &measures)))
        .workers(1)
        .disable_signals()
        .shutdown_timeout(REQUEST_SHUTDOWN_S)
        .listen(internal)?;
    Ok([Listener::run(public), Listener::run(internal.run())])
}

/// REST on plain actix-web; requests with an `Upgrade` header leave it before it has seen them (see [`crate::transport`]).
fn public_server(services: Arc<Services>, sockets: Arc<Sockets>, listener: TcpListener) -> io::Result<Server> {
    let workers = match services.config.server.workers {
        0 => std::thread::available_parallelism().map_or(1, Into::into),
        workers => workers,
    };
    let max_connections = services.config.server.max_connections;
    let server = Server::build()
        .workers(workers.min(MAX_WORKERS))
        .max_concurrent_connections(max_connections.div_ceil(workers))
        .disable_signals()
        .shutdown_timeout(REQUEST_SHUTDOWN_S);
    // Without it, every client that keeps an idle connection would hold up the stop.
    let stopping = server.graceful_shutdown_signal();
    let server = server.listen("public", listener, move || {
        let stopping = stopping.clone();
        let stopping = move || {
            let stopping = stopping.clone();
            async move { stopping.notified().await }
        };
        let app = App::new().configure(http::configure(&services));
        HttpService::build()
            .client_request_timeout(REQUEST_TIMEOUT)
            .graceful_shutdown_signal(stopping)
            .upgrade(UpgradeFactory::new(services.clone(), sockets.clone()))
            .h1(map_config(app, |_| AppConfig::default()))
            .tcp()
    })?;
    Ok(server.run())
}

async fn stop_services(services: &Services, db: &Db) {
    stop_messages(&services.messages).await;
    services.streams.stop().await;
    if let Err(error) = db.checkpoint_on_close().await {
        tracing::warn!(%error, "the store was not checkpointed; the next start does it");
    }
}

/// Joins the commit thread, which finishes its queue first.
async fn stop_messages(messages: &Messages) {
    let messages = messages.clone();
    if let Err(error) = task::spawn_blocking(move || messages.stop()).await {
        tracing::error!(%error, "the commit thread failed");
    }
}
