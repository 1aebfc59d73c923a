//! What is wrong with Redis, in words that name the fix. For health, the log and `martlet check`; no address and no password is in them.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::config::RedisKind;

/// Rights that a node needs, as one line for `ACL SETUSER`.
const RIGHTS: &str = "&m:* &{p*}:* &control resetkeys +ping +publish +subscribe +unsubscribe +spublish +ssubscribe \
                      +sunsubscribe +cluster|slots +cluster|shards +role +info +hello +auth";

/// Says what to do about an error.
pub(super) fn explain(error: &RedisError, kind: RedisKind) -> String {
    let text = error.to_string();
    let code = error.code().unwrap_or_default();
    let is = |word: &str| code == word || text.contains(word);
    let fix = if error.kind() == ErrorKind::AuthenticationFailed || is("WRONGPASS") || is("NOAUTH") {
        "Redis refuses user or password: correct them in relay.redis_url (redis://user:password@host:port)".to_owned()
    } else if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) || is("NOPERM") {
        format!("Redis does not allow this user what a node needs: ACL SETUSER <user> {RIGHTS}")
    } else if is("cluster support disabled") {
        "this Redis is no cluster: set relay.redis_kind = \"single\"".to_owned()
    } else if is("MOVED") || is("CROSSSLOT") {
        "this Redis is a cluster: set relay.redis_kind = \"cluster\"".to_owned()
    } else if is("CLUSTERDOWN") || error.kind() == ErrorKind::ClusterConnectionNotFound {
        "the Redis Cluster is not whole, or none of its nodes in relay.redis_url can be reached: see CLUSTER INFO"
            .to_owned()
    } else if matches!(
        error.kind(),
        ErrorKind::MasterNameNotFoundBySentinel | ErrorKind::NoValidReplicasFoundBySentinel
    ) {
        "the Sentinels know no working master of this name: correct relay.redis_master, or see SENTINEL MASTERS"
            .to_owned()
    } else if error.kind() == ErrorKind::RESP3NotSupported || is("unknown command 'HELLO'") || is("NOPROTO") {
        "this Redis is too old: use version 6 or newer (7 for a cluster)".to_owned()
    } else if is("sentinel node") {
        "what answers is no Sentinel: correct relay.redis_url or relay.redis_kind".to_owned()
    } else if is("HELLO messages") {
        "this server is a Sentinel: set relay.redis_kind = \"sentinel\"".to_owned()
    } else if is("unknown command") {
        match kind {
            RedisKind::Single => {
                "this server does not know a command that nodes need; is it a Sentinel? Then set relay.redis_kind"
            }
            RedisKind::Cluster => "this Redis has no sharded channels: use version 7 or newer for a cluster",
            RedisKind::Sentinel => "what answers is no Sentinel: correct relay.redis_url or relay.redis_kind",
        }
        .to_owned()
    } else if is("READONLY") || is("MASTERDOWN") {
        "this server is a replica: name its master in relay.redis_url, or its Sentinels".to_owned()
    } else if is("LOADING") {
        "Redis is reading its data and will answer soon".to_owned()
    } else if is("certificate") || is("corrupt message") || is("TLS") {
        "the TLS connection is refused: correct relay.redis_ca_file, or the name in Redis's certificate".to_owned()
    } else if error.is_timeout() {
        "Redis does not answer in time (relay.redis_timeout): see whether it runs and is reached".to_owned()
    } else if error.is_connection_refusal() || error.is_io_error() {
        "Redis can't be reached: start it, or correct relay.redis_url".to_owned()
    } else {
        "Redis does not do its work".to_owned()
    };
    format!("{fix} ({})", short(error, code))
}

/// The kind of an error; its text might name an address.
fn short(error: &RedisError, code: &str) -> String {
    if code.is_empty() { error.category().to_owned() } else { code.to_owned() }
}
