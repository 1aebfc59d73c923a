//! Tries what a node will do with Redis, for `martlet check`: connect, ask for its version, publish, subscribe. Leaves nothing behind.

use redis::{InfoDict, RedisError};

use super::{
    channel::{Channel, Naming},
    endpoint::Endpoint,
    fault,
};
use crate::config::{self, RedisKind};

/// A Redis that does what a node needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// Its version, if it tells.
    pub version: Option<String>,
    /// It is a cluster, and the config does not say so: every message then goes to all of its servers.
    pub is_unnamed_cluster: bool,
}

/// Tries the Redis that the config names; `None` if it names none.
///
/// # Errors
/// What is wrong and how to correct it, in words.
pub async fn probe(config: &config::Relay) -> Result<Option<Probed>, String> {
    let Some(endpoint) = Endpoint::new(config).map_err(|error| error.to_string())? else { return Ok(None) };
    try_all(&endpoint, config).await.map(Some).map_err(|error| fault::explain(&error, config.redis_kind))
}

async fn try_all(endpoint: &Endpoint, config: &config::Relay) -> Result<Probed, RedisError> {
    let naming = endpoint.naming();
    let channel = Channel::Control.name(naming);
    let mut connection = endpoint.connect(Some(Box::new(|_| {}))).await?;
    connection.ping().await?;
    let command = match naming {
        Naming::Plain => "PUBLISH",
        Naming::Sharded => "SPUBLISH",
    };
    // Empty, which nodes ignore.
    redis::cmd(command).arg(&channel).arg("").exec_async(&mut connection).await?;
    connection.subscribe(std::slice::from_ref(&channel)).await?;
    connection.unsubscribe(&[channel]).await?;
    if config.redis_kind == RedisKind::Cluster {
        return Ok(Probed { version: None, is_unnamed_cluster: false });
    }
    // A user may be forbidden to ask; then nothing is known, and nothing is wrong.
    let info = redis::cmd("INFO").arg("server").query_async::<InfoDict>(&mut connection).await.ok();
    let version = info.as_ref().and_then(|info| info.get("redis_version"));
    let mode: Option<String> = info.as_ref().and_then(|info| info.get("redis_mode"));
    Ok(Probed { version, is_unnamed_cluster: mode.as_deref() == Some("cluster") })
}
