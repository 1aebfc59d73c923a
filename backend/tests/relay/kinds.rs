//! Redis Cluster, Sentinels, TLS.

use std::{fs, path::Path, process::Command};

use martlet::config::{Config, RedisKind, millis};
use martlet_servers::{Redis, RedisCluster, Sentinel, free_port};

use crate::world::{Came, TestRelay, entry, own_devices};

fn cluster(config: &mut Config) {
    config.relay.redis_kind = RedisKind::Cluster;
    config.relay.redis_ping_interval = millis(500);
}

#[tokio::test]
async fn on_a_cluster_every_channel_lies_on_one_master_and_all_masters_are_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut redis = RedisCluster::start(folder.path()).expect("a cluster");
    let (one, all) = (redis.urls()[0].clone(), redis.urls().join(","));
    let (here, there) = tokio::join!(TestRelay::start_on(&one, cluster), TestRelay::start_on(&all, cluster));
    let devices = own_devices(700);
    let ids: Vec<_> = devices.iter().map(|device| there.register(*device)).collect();
    there.until("all are compared", || ids.iter().all(|id| there.came(*id).contains(&Came::CompareHead))).await;
    for seqs in [[1, 2], [3, 4]] {
        here.relay.publish(devices.iter().flat_map(|device| seqs.map(|seq| entry(*device, seq))));
    }
    there.until("all came, in order", || ids.iter().all(|id| there.seqs(*id) == [1, 2, 3, 4])).await;
    let channels =
        |node: &Redis| node.command(&["PUBSUB", "SHARDCHANNELS", "*m:*"]).expect("an answer").lines().count();
    let each: Vec<usize> = redis.nodes().iter().map(channels).collect();
    assert_eq!(each.iter().sum::<usize>(), devices.len(), "no channel lies on two masters");
    assert!(each.iter().all(|channels| *channels > 100), "{each:?}");
    assert_eq!(here.reason(), "");

    let hint = there.relay.control_hint();
    here.relay.control_changed();
    tokio::time::timeout(crate::world::PATIENCE, hint.notified()).await.expect("the hint comes");

    let lost = there.statistics().lost;
    redis.nodes_mut()[1].kill().expect("killed");
    there.until("a master is missed", || there.statistics().lost > lost && there.relay.is_lost()).await;
    there.until("and that is named", || there.reason().contains("Redis")).await;
    redis.nodes_mut()[1].start_again().expect("started");
    here.until_ok().await;
    there.until_ok().await;
    let seq = 5;
    here.relay.publish(devices.iter().map(|device| entry(*device, seq)));
    there.until("entries come again", || ids.iter().all(|id| there.seqs(*id).contains(&seq))).await;
}

#[tokio::test]
async fn the_master_that_sentinels_name_is_used_and_after_a_failover_the_new_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut redis = Sentinel::start(folder.path()).expect("master, replica and sentinel");
    let url = format!("redis://127.0.0.1:{}", redis.port());
    let name = redis.master_name();
    let sentinel = |config: &mut Config| {
        config.relay.redis_kind = RedisKind::Sentinel;
        config.relay.redis_master = name.to_owned();
        config.relay.redis_ping_interval = millis(500);
    };
    let (here, there) = tokio::join!(TestRelay::start_on(&url, sentinel), TestRelay::start_on(&url, sentinel));
    let device = own_devices(1)[0];
    let id = there.subscribe(device).await;
    here.relay.publish([entry(device, 1)]);
    there.until("it came", || there.seqs(id) == [1]).await;

    redis.master().kill().expect("killed");
    there.until("it is lost", || there.relay.is_lost()).await;
    here.until_ok().await;
    there.until_ok().await;
    here.relay.publish([entry(device, 2)]);
    there.until("it came by the new master", || there.seqs(id) == [1, 2]).await;
}

/// A certificate of our own authority for 127.0.0.1; returns the file of the authority.
fn certificates(folder: &Path) -> std::path::PathBuf {
    let run = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let root = ["req", "-x509", "-days", "2", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.pem"];
    run(&[&root[..], &new_key[..]].concat());
    let asked = ["req", "-subj", "/CN=redis", "-keyout", "redis.key", "-out", "redis.csr"];
    run(&[&asked[..], &new_key[..]].concat());
    fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").expect("written");
    run(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        "redis.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-extfile",
        "names",
        "-out",
        "redis.pem",
    ]);
    folder.join("ca.pem")
}

#[tokio::test]
async fn by_tls_only_whom_a_trusted_authority_signed_is_spoken_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = certificates(folder.path());
    let at = |name: &str| folder.path().join(name).display().to_string();
    let tls_port = free_port();
    let (port, certificate, key, ca) = (tls_port.to_string(), at("redis.pem"), at("redis.key"), at("ca.pem"));
    let arguments = [
        "--tls-port",
        &port,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ];
    let _redis = Redis::start_with(&folder.path().join("redis"), &arguments).expect("Redis starts");
    let url = format!("rediss://127.0.0.1:{tls_port}");
    let trusting = |config: &mut Config| config.relay.redis_ca_file = Some(authority.clone());
    let (here, there) = tokio::join!(TestRelay::start_on(&url, trusting), TestRelay::start_on(&url, trusting));
    let device = own_devices(1)[0];
    let id = there.subscribe(device).await;
    here.relay.publish([entry(device, 1)]);
    there.until("it came", || there.seqs(id) == [1]).await;

    let distrusting = TestRelay::open(&url, crate::world::KEY, |_| {}).expect("opened");
    distrusting.relay.start();
    distrusting.until("health names the fix", || distrusting.reason().contains("relay.redis_ca_file")).await;
}
