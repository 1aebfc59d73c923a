//! What an operator reads when Redis is not as it should be: in health while a node runs, and from `martlet check`.

use martlet::{
    check::{self, Finding},
    config::{Config, RedisKind, SecretUrl},
    relay::RelayError,
};
use martlet_servers::{Redis, RedisCluster, free_port, shared_redis};

use crate::world::{KEY, TestRelay, entry, own_devices, shared_url};

fn checked(url: &str, kind: RedisKind) -> Finding {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = Config::default();
    config.storage.data_dir = folder.path().to_owned();
    config.server.listen = ([127, 0, 0, 1], 0).into();
    config.server.internal_listen = ([127, 0, 0, 1], 0).into();
    config.relay.redis_url = Some(SecretUrl::new(url));
    config.relay.redis_kind = kind;
    check::run(&config).into_iter().find(|finding| finding.subject == "redis").expect("Redis is tried")
}

async fn named(url: &str, kind: RedisKind, fix: &str) {
    let relay = TestRelay::open(url, KEY, |config| config.relay.redis_kind = kind).expect("opened");
    relay.relay.start();
    relay.until(fix, || relay.reason().contains(fix)).await;
    let text = relay.reason() + &checked(url, kind).to_string();
    assert!(!text.contains("hunter2"), "{text}");
    relay.relay.stop().await;
}

#[tokio::test]
async fn a_node_whose_redis_is_down_starts_and_says_so_and_serves_its_own() {
    let url = format!("redis://127.0.0.1:{}", free_port());
    named(&url, RedisKind::Single, "Redis can't be reached: start it, or correct relay.redis_url").await;
    let relay = TestRelay::open(&url, KEY, |_| {}).expect("opened");
    relay.relay.start();
    let device = own_devices(1)[0];
    let id = relay.register(device);
    relay.relay.publish([entry(device, 1)]);
    assert_eq!(relay.seqs(id), [1]);
    relay.until("health says so", || !relay.reason().is_empty()).await;
    assert!(relay.relay.is_lost());
    let finding = checked(&url, RedisKind::Single);
    assert!(finding.is_failure() && finding.to_string().contains("relay.redis_url"), "{finding}");
    relay.relay.stop().await;
}

#[tokio::test]
async fn a_refused_password_and_missing_rights_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let redis = Redis::start(folder.path()).expect("Redis starts");
    let users: [&[&str]; 3] = [
        &["martlet", "on", ">hunter2", "resetkeys", "+@all"],
        &["mute", "on", ">hunter2", "&*", "+@all", "-publish"],
        &["narrow", "on", ">hunter2", "resetchannels", "&other", "+@all"],
    ];
    for user in users {
        redis.command(&[&["ACL", "SETUSER"], user].concat()).expect("a user");
    }
    let url = |user: &str, password: &str| format!("redis://{user}:{password}@127.0.0.1:{}", redis.port());
    named(&url("martlet", "wrong"), RedisKind::Single, "correct them in relay.redis_url").await;
    named(&url("narrow", "hunter2"), RedisKind::Single, "ACL SETUSER").await;

    let mute = TestRelay::open(&url("mute", "hunter2"), KEY, |_| {}).expect("opened");
    mute.relay.start();
    mute.relay.publish([entry(own_devices(1)[0], 1)]);
    mute.until("health names what is missing", || mute.reason().contains("ACL SETUSER")).await;
    let finding = checked(&url("mute", "hunter2"), RedisKind::Single);
    assert!(finding.is_failure() && finding.to_string().contains("ACL SETUSER"), "{finding}");
    mute.relay.stop().await;
}

#[tokio::test]
async fn the_least_rights_that_are_named_are_enough() {
    let folder = tempfile::tempdir().expect("a folder");
    let redis = Redis::start(folder.path()).expect("Redis starts");
    let wrong = checked(&format!("redis://nobody:x@127.0.0.1:{}", redis.port()), RedisKind::Single);
    assert!(wrong.is_failure(), "{wrong}");
    redis.command(&["ACL", "SETUSER", "none", "on", ">x", "resetchannels", "+hello", "+auth"]).expect("a user");
    let text = checked(&format!("redis://none:x@127.0.0.1:{}", redis.port()), RedisKind::Single).to_string();
    let rights = text.split("ACL SETUSER <user> ").nth(1).and_then(|rest| rest.split(" (").next()).expect("rights");
    let words: Vec<&str> = rights.split_whitespace().collect();
    redis.command(&[&["ACL", "SETUSER", "least", "on", ">x", "resetchannels"], &words[..]].concat()).expect("a user");
    let url = format!("redis://least:x@127.0.0.1:{}", redis.port());
    assert!(!checked(&url, RedisKind::Single).is_failure());
    let (here, there) = tokio::join!(TestRelay::start_on(&url, |_| {}), TestRelay::start_on(&url, |_| {}));
    let device = own_devices(1)[0];
    let id = there.subscribe(device).await;
    here.relay.publish([entry(device, 1)]);
    there.until("it came", || there.seqs(id) == [1]).await;
    there.subscribers.unregister(device, id);
}

#[tokio::test]
async fn a_wrong_kind_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = RedisCluster::start(folder.path()).expect("a cluster");
    let finding = checked(&cluster.urls()[0], RedisKind::Single).to_string();
    assert!(finding.contains("relay.redis_kind = \"cluster\""), "{finding}");
    assert!(!checked(&cluster.urls()[0], RedisKind::Cluster).is_failure());
    named(&shared_url(), RedisKind::Cluster, "relay.redis_kind = \"single\"").await;
    named(&shared_url(), RedisKind::Sentinel, "relay.redis").await;
    let finding = checked(&shared_redis().expect("Redis").url(), RedisKind::Single).to_string();
    assert!(finding.starts_with("ok"), "{finding}");
}

#[tokio::test]
async fn a_file_of_authorities_that_is_none_keeps_a_node_from_starting() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("authorities.pem");
    for text in [None, Some("no certificate")] {
        if let Some(text) = text {
            std::fs::write(&file, text).expect("written");
        }
        let opened =
            TestRelay::open("rediss://localhost", KEY, |config| config.relay.redis_ca_file = Some(file.clone()));
        assert!(matches!(opened, Err(RelayError::CaFile { .. })));
    }
}
