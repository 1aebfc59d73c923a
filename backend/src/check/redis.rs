//! Whether Redis does what nodes need of it. A node starts without; so what fails here is a warning where nodes could do with less, and a
//! failure where the operator surely meant something else.

use std::thread;

use super::Finding;
use crate::{
    config::{Config, RedisKind},
    relay::{self, Probed},
};

const SUBJECT: &str = "redis";

/// Tries the Redis of the config, if it names one.
pub(super) fn redis(config: &Config) -> Option<Finding> {
    let relay = config.relay.clone();
    let kind = relay.redis_kind;
    // A thread of its own, so that it doesn't matter whether the caller has a runtime.
    let tried = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| error.to_string())?.block_on(relay::probe(&relay))
    });
    let found = tried.join().unwrap_or_else(|_| Err("trying Redis failed".into()));
    Some(match found {
        Ok(probed) => judge(&probed?, kind),
        Err(fix) => Finding::failure(SUBJECT, "does not do what a node needs", fix),
    })
}

fn judge(probed: &Probed, kind: RedisKind) -> Finding {
    if probed.is_unnamed_cluster {
        let found = "it is a cluster, and sends every message to all of its servers";
        return Finding::warning(SUBJECT, found, "set relay.redis_kind = \"cluster\"");
    }
    let kind = match kind {
        RedisKind::Single => "one server",
        RedisKind::Cluster => "a cluster",
        RedisKind::Sentinel => "the master that Sentinels name",
    };
    let version = probed.version.as_ref().map(|version| format!(", version {version}")).unwrap_or_default();
    Finding::good(SUBJECT, format!("{kind}{version}: publishes and subscribes"))
}
