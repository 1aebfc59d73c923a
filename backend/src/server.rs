//! Puts the node together: opens the store, builds the services, listens, and stops in order.

use std::{io, net::SocketAddr};

use crate::{clock::Clock, config::Config};

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
    #[error("can't open the store: {0}")]
    Store(#[from] martlet_storage::StorageError),
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
}

impl Node {
    /// Opens the store, builds the services, listens. Needs a tokio runtime. Port 0 takes a free port.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub async fn start(_config: Config, _clock: Clock) -> Result<RunningNode, StartError> {
        Err(StartError::Io(io::Error::other("being written")))
    }
}

impl RunningNode {
    /// Stops in order: no new sockets, clients told when to come back, acks flushed, commits finished, store closed.
    pub async fn stop(self) {}
}
