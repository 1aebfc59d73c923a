//! How nodes tell each other what was committed. Embedded there is one node, so this passes on to its own subscribers; with Redis it
//! passes on to those and to the other nodes (see [`redis`]). It carries entries and knows nothing of messages, and whatever it loses is
//! repaired from the store.

mod redis;

use std::sync::Arc;

use martlet_storage::{ConversationKey, Db};
use tokio::sync::Notify;
use zeroize::Zeroizing;

pub use redis::{EndpointError as RelayError, Probed, RedisRelay, Statistics, probe};

use crate::{
    clock::Clock,
    config::Config,
    health::Health,
    subscribers::{LiveEntry, LiveLogItem, Subscribers, Whisper},
};

/// What a relay between nodes is made of.
pub struct Parts {
    /// Where Redis is, and all limits.
    pub config: Arc<Config>,
    /// The node's time.
    pub clock: Clock,
    /// Is told when Redis fails, and when it works again.
    pub health: Health,
    /// Where contents are that are too large for the relay.
    pub db: Db,
    /// Who reads here.
    pub subscribers: Arc<Subscribers>,
    /// Under which nodes believe each other: [`crate::secrets::Secrets::relay_key`].
    pub key: Zeroizing<[u8; 32]>,
    /// Randomness for this node's tag, tie-breakers and pauses.
    pub seed: [u8; 32],
}

/// The way to the nodes that hold the devices.
pub enum Relay {
    /// This process is the only node.
    InProcess(Arc<Subscribers>),
    /// There may be others.
    Redis(Box<RedisRelay>),
}

impl Relay {
    /// The relay that the config asks for. Connects to nothing yet, so a Redis that is down keeps no node from starting.
    ///
    /// # Errors
    /// [`RelayError`] if what the config says can't even be tried.
    pub fn open(parts: Parts) -> Result<Self, RelayError> {
        let subscribers = parts.subscribers.clone();
        let redis = RedisRelay::new(parts)?;
        Ok(redis.map_or(Self::InProcess(subscribers), |redis| Self::Redis(Box::new(redis))))
    }

    /// Begins to publish and to subscribe, on the current tokio runtime.
    pub fn start(&self) {
        match self {
            Self::InProcess(_) => {}
            Self::Redis(redis) => redis.start(),
        }
    }

    /// Publishes what still waits, and ends.
    pub async fn stop(&self) {
        match self {
            Self::InProcess(_) => {}
            Self::Redis(redis) => redis.stop().await,
        }
    }

    /// Passes entries on, in order. Never blocks.
    pub fn publish(&self, entries: impl IntoIterator<Item = Arc<LiveEntry>>) {
        match self {
            Self::InProcess(subscribers) => subscribers.deliver(entries),
            Self::Redis(redis) => redis.publish(entries),
        }
    }

    /// Passes entries of logs on, in order. Never blocks.
    pub fn publish_to_logs(&self, items: Vec<(ConversationKey, Arc<LiveLogItem>)>) {
        match self {
            Self::InProcess(subscribers) => subscribers.append_to_logs(items),
            Self::Redis(redis) => redis.publish_to_logs(items),
        }
    }

    /// So many entries can't be passed on: other nodes are to compare heads. Never blocks.
    pub fn left_out(&self, entries: usize) {
        match self {
            Self::InProcess(_) => {}
            Self::Redis(redis) => redis.left_out(entries),
        }
    }

    /// Passes ephemeral messages on. Never blocks, and what is lost stays lost.
    pub fn whisper(&self, whispers: impl IntoIterator<Item = Arc<Whisper>>) {
        match self {
            Self::InProcess(subscribers) => subscribers.whisper(whispers),
            Self::Redis(redis) => redis.whisper(whispers),
        }
    }

    /// Tells the other nodes that the control stream has grown. Never blocks; they look by themselves soon.
    pub fn control_changed(&self) {
        match self {
            Self::InProcess(_) => {}
            Self::Redis(redis) => redis.control_changed(),
        }
    }

    /// Is notified when another node says that the control stream has grown.
    #[must_use]
    pub fn control_hint(&self) -> Arc<Notify> {
        match self {
            Self::InProcess(_) => Arc::default(),
            Self::Redis(redis) => redis.control_hint(),
        }
    }

    /// Whether what other nodes accept is not heard of at present.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        match self {
            Self::InProcess(_) => false,
            Self::Redis(redis) => redis.is_lost(),
        }
    }

    /// What it has done, in numbers.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        match self {
            Self::InProcess(_) => Statistics::default(),
            Self::Redis(redis) => redis.statistics(),
        }
    }
}
