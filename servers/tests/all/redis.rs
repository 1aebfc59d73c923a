//! Redis: alone, as a Cluster, and behind a sentinel.

use martlet_servers::{Redis, RedisCluster, Sentinel, shared_redis};

use crate::world::{runs, until};

#[test]
fn it_forgets_and_comes_back_on_the_same_port() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut redis = Redis::start(folder.path()).expect("starts");
    let port = redis.port();
    for kill in [true, false] {
        assert_eq!(redis.command(&["SET", "key", "value"]).expect("set"), "OK");
        let pid = redis.pid();
        if kill { redis.kill() } else { redis.stop() }.expect("ends");
        assert!(!runs(pid) && redis.pid() == 0);
        assert!(redis.command(&["PING"]).is_err());
        redis.start_again().expect("starts");
        assert_eq!(redis.port(), port);
        assert_eq!(redis.command(&["EXISTS", "key"]).expect("asked"), "0", "nothing was on disk");
    }
    assert_eq!(redis.command(&["DEBUG", "SLEEP", "0"]).expect("allowed"), "OK");
    assert!(redis.command(&["NONSENSE"]).is_err(), "a refusal is an error");
}

#[test]
fn arguments_of_the_test_win() {
    let folder = tempfile::tempdir().expect("a folder");
    let redis = Redis::start_with(folder.path(), &["--maxmemory", "2mb", "--appendonly", "yes"]).expect("starts");
    assert!(redis.command(&["CONFIG", "GET", "maxmemory"]).expect("asked").contains("2097152"));
    assert!(redis.command(&["CONFIG", "GET", "appendonly"]).expect("asked").contains("yes"));
    let error = Redis::start_with(&folder.path().join("second"), &["--maxmemory", "much"]).err().expect("refused");
    assert!(format!("{error:#}").contains("maxmemory"), "{error:#}");
}

#[test]
fn three_masters_share_the_slots() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = RedisCluster::start(folder.path()).expect("starts");
    assert_eq!(cluster.urls().len(), 3);
    // The slot of a key decides who holds it, and the others say so.
    let answers: Vec<_> = cluster.nodes().iter().map(|node| node.command(&["SET", "key", "value"])).collect();
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    let moved = answers.iter().filter_map(|answer| answer.as_ref().err());
    assert!(moved.into_iter().all(|error| error.to_string().contains("MOVED 12539")));
    cluster.nodes_mut()[0].kill().expect("killed");
    cluster.nodes_mut()[0].start_again().expect("starts, and knows the others");
    until("the cluster is whole again", || {
        cluster
            .nodes()
            .iter()
            .all(|node| node.command(&["CLUSTER", "INFO"]).is_ok_and(|info| info.contains("cluster_state:ok")))
    });
}

#[test]
fn a_sentinel_makes_the_replica_the_master() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut all = Sentinel::start(folder.path()).expect("starts");
    let (master, replica) = (all.master().port(), all.replica().port());
    assert_eq!(all.master_port().expect("known"), master);
    all.master().kill().expect("killed");
    until("the sentinel names the replica", || all.master_port().is_ok_and(|port| port == replica));
}

#[test]
fn the_shared_one_is_one() {
    let redis = shared_redis().expect("starts");
    assert_eq!(redis.port(), shared_redis().expect("runs").port());
    assert_eq!(Redis::running_on(redis.port()).expect("answers").pid(), redis.pid());
}
