//! The client socket (`/v1/socket`): from an upgraded TCP connection to frames of the schema and back.
//!
//! In reading order: [`upgrade`] (the handshake, authentication; [`refusal`] if there is something wrong), [`reading`] (bytes to frames, one small task per
//! connection), [`session`] (what a socket does, as values), [`worker`] (deliveries, writes, closing; one loop per thread, with [`upkeep`]),
//! [`work`] (what takes time), [`logs`] (what many read). Beneath: [`incoming`] and [`outbox`] (RFC 6455 in and out), [`subprotocol`] (protobuf or JSON),
//! [`connection`], [`slots`], [`wheel`].
//!
//! Idle connections are what there is most of: one has a socket, a small task, a place and an entry in the timer wheel, and no buffer,
//! timer or writer of its own. It does not decide who gets what: that is [`crate::streams`] and [`crate::messages`].

mod connection;
mod incoming;
mod logs;
mod outbox;
mod reading;
mod refusal;
mod session;
mod slots;
mod subprotocol;
mod upgrade;
mod upkeep;
mod wheel;
mod work;
mod worker;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    io,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_codec::Framed;
use actix_http::{Request, h1};
use actix_service::{Service, ServiceFactory, always_ready};
use tokio::{net::TcpStream, time};

use crate::services::Services;
use worker::Worker;

/// How often the end of the last socket is looked for.
const CLOSED_POLL: Duration = Duration::from_millis(10);

/// A request for an upgrade, and the connection that it came on.
pub type Upgrade = (Request, Framed<TcpStream, h1::Codec>);

/// What all workers' sockets have in common.
#[derive(Debug, Default)]
pub struct Sockets {
    open: AtomicUsize,
    draining: AtomicBool,
}

impl Sockets {
    /// None are open.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// How many sockets are open, those of clients that are being told to go included.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Tells every client when to come back and closes its socket once its sends are answered. Returns when all are gone, at the latest
    /// after `patience`.
    pub async fn drain(&self, services: &Services, patience: Duration) {
        self.draining.store(true, Ordering::SeqCst);
        services.streams.subscribers().drain();
        let gone = async {
            while self.open() > 0 {
                time::sleep(CLOSED_POLL).await;
            }
        };
        if time::timeout(patience, gone).await.is_err() {
            tracing::warn!(sockets = self.open(), "these did not close in time and are cut off");
        }
    }

    fn draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What actix-http hands requests with an `Upgrade` header to. Made once on each worker thread, where it starts that worker's loops.
pub struct UpgradeFactory {
    services: Arc<Services>,
    sockets: Arc<Sockets>,
}

impl UpgradeFactory {
    /// For the sockets of this node.
    #[must_use]
    pub fn new(services: Arc<Services>, sockets: Arc<Sockets>) -> Self {
        Self { services, sockets }
    }
}

impl ServiceFactory<Upgrade> for UpgradeFactory {
    type Response = ();
    type Error = Infallible;
    type Config = ();
    type Service = UpgradeService;
    type InitError = io::Error;
    type Future = Ready<Result<UpgradeService, io::Error>>;

    fn new_service(&self, (): ()) -> Self::Future {
        let worker = Worker::start(self.services.clone(), self.sockets.clone());
        ready(worker.map(UpgradeService).ok_or_else(|| io::Error::other("there are too many worker threads")))
    }
}

/// One worker thread's part of it. A client that goes away meanwhile is no error.
pub struct UpgradeService(Rc<Worker>);

impl Service<Upgrade> for UpgradeService {
    type Response = ();
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<(), Infallible>>>>;

    always_ready!();

    fn call(&self, request: Upgrade) -> Self::Future {
        let upgraded = upgrade::upgrade(self.0.clone(), request);
        Box::pin(async move {
            if let Err(error) = upgraded.await {
                tracing::debug!(%error, "a connection ended before it was a socket");
            }
            Ok(())
        })
    }
}
