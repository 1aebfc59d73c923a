//! Whole nodes on one PostgreSQL and one Redis.

use martlet::{
    clock::Clock,
    config::{Config, SecretUrl, kib},
};
use martlet_protocol::{id::Blob, problem::close, wire::client_frame};
use martlet_servers::{Database, Proxy, Redis};
use martlet_storage::DatabaseUrl;
use tempfile::TempDir;

use crate::{
    client::Client,
    harness::{TestDevice, TestNode},
};

struct Nodes {
    nodes: Vec<TestNode>,
    _database: Database,
    _secret: TempDir,
}

/// Of its own: what nodes with another secret say would be counted by the relays of other tests.
fn own_redis() -> (Redis, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    (Redis::start(folder.path()).expect("Redis starts"), folder)
}

impl Nodes {
    async fn start(urls: &[String], change: fn(&mut Config)) -> Self {
        let database = Database::create().expect("a database");
        let database_url = database.url().expect("an address");
        let secret = tempfile::tempdir().expect("a folder");
        let mut nodes = Vec::new();
        for (number, url) in urls.iter().enumerate() {
            let start = TestNode::start_at(Clock::System, |config| {
                config.storage.database_url = DatabaseUrl::new(&database_url);
                config.storage.durability = martlet::config::Durability::Normal;
                config.storage.secret_file = Some(secret.path().join("node.secret"));
                config.cluster.node_id = format!("node-{number}");
                config.relay.redis_url = Some(SecretUrl::new(url));
                // Whatever comes, comes by the relay or by what the relay has done.
                config.socket.head_check_interval = std::time::Duration::from_secs(600);
                change(config);
            });
            nodes.push(start.await);
        }
        Self { nodes, _database: database, _secret: secret }
    }
}

#[tokio::test]
async fn devices_on_three_nodes_get_every_message_and_large_content_is_read_once_per_node() {
    let (redis, _folder) = own_redis();
    let nodes = Nodes::start(&[redis.url(), redis.url(), redis.url()], |config| {
        config.messages.inline_content_bytes = kib(1);
        config.relay.inline_content_bytes = kib(2);
    })
    .await;
    let [first, second, third] = &nodes.nodes[..] else { panic!("three") };
    let mut alice = TestDevice::register(first, "alice").await;
    let bob = TestDevice::register(second, "bob").await;
    let tablet = alice.link(first).await;
    let conversation = alice.create(first, &alice.direct_with(first, &bob)).await.conversation_id;
    let (mut sender, _) = Client::resumed(first, &alice, None).await;
    let (mut on_third, _) = Client::resumed(third, &tablet, None).await;
    let (mut bob_on_third, _) = Client::resumed(third, &bob, None).await;
    let read = || third.running().services().streams.relay_statistics().contents_read;
    let mut expected_reads = 0;
    for content_bytes in [100, 1500, 3000, 50_000] {
        let mut request = alice.message(1, &[&tablet, &bob]);
        request.content = Blob::from(vec![7; content_bytes]);
        sender.send(client_frame::Frame::Send(request.into_wire(conversation))).await;
        let entries = [on_third.entry().await, bob_on_third.entry().await];
        let outside = if content_bytes > 1024 { content_bytes } else { 0 };
        assert!(entries.iter().all(|entry| entry.content.len() == outside), "{content_bytes}");
        expected_reads += u64::from(content_bytes > 2048);
        assert!(read() <= expected_reads, "two devices, and read once");
    }
    assert!(read() > 0, "the largest did not travel through Redis");
}

#[tokio::test]
async fn a_socket_on_another_node_replaces_the_older_one() {
    let (redis, _folder) = own_redis();
    let nodes = Nodes::start(&[redis.url(), redis.url()], |_| {}).await;
    let [first, second] = &nodes.nodes[..] else { panic!("two") };
    let alice = TestDevice::register(first, "alice").await;
    let (mut older, _) = Client::resumed(first, &alice, None).await;
    let (mut newer, _) = Client::resumed(second, &alice, None).await;
    assert_eq!(older.close_code().await, close::REPLACED);
    assert!(newer.is_silent_for(std::time::Duration::from_millis(300)).await, "and stays");
}

#[tokio::test]
async fn with_redis_cut_off_devices_on_other_nodes_still_get_their_messages() {
    let (redis, _folder) = own_redis();
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port()).into()).expect("a proxy");
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let nodes = Nodes::start(&[url.clone(), url], |_| {}).await;
    let [first, second] = &nodes.nodes[..] else { panic!("two") };
    let alice = TestDevice::register(first, "alice").await;
    let bob = TestDevice::register(second, "bob").await;
    let conversation = alice.create(first, &alice.direct_with(first, &bob)).await.conversation_id;
    let (mut sender, _) = Client::resumed(first, &alice, None).await;
    let (mut receiver, _) = Client::resumed(second, &bob, None).await;
    let send = async |sender: &mut Client| {
        let request = alice.message(1, &[&bob]).into_wire(conversation);
        sender.send(client_frame::Frame::Send(request)).await;
    };
    send(&mut sender).await;
    assert_eq!(receiver.entry().await.seq, 1);
    proxy.cut();
    for seq in 2..=5 {
        send(&mut sender).await;
        assert_eq!(receiver.entry().await.seq, seq);
    }
    let health = || first.running().services().health.report().reasons.contains_key("relay");
    crate::harness::eventually("health says so", || async { health() }).await;
    proxy.heal().expect("healed");
    for seq in 6..=10 {
        send(&mut sender).await;
        assert_eq!(receiver.entry().await.seq, seq);
    }
}
