//! Whole nodes on one PostgreSQL and one Redis.

use martlet::{
    clock::Clock,
    config::{Config, SecretUrl, kib},
};
use martlet_protocol::{
    id::Blob,
    problem::{Code, close},
    rest::{Accepted, DeviceSession, RevokeRequest},
    wire::{self, client_frame, control_entry::Event, node_frame::Frame},
};
use martlet_servers::{Database, Proxy, Redis};
use martlet_storage::DatabaseUrl;
use prost::Message as _;
use tempfile::TempDir;

use crate::{
    client::Client,
    harness::{TestDevice, TestNode},
};

struct Nodes {
    nodes: Vec<TestNode>,
    database: Database,
    secret: TempDir,
}

fn settle(config: &mut Config, database_url: &str, secret: &TempDir, number: usize, redis_url: &str) {
    config.storage.database_url = DatabaseUrl::new(database_url);
    config.storage.durability = martlet::config::Durability::Normal;
    config.storage.secret_file = Some(secret.path().join("node.secret"));
    config.cluster.node_id = format!("node-{number}");
    config.relay.redis_url = Some(SecretUrl::new(redis_url));
    // Whatever comes, comes by the relay or by what the relay has done.
    config.socket.head_check_interval = std::time::Duration::from_secs(600);
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
                settle(config, &database_url, &secret, number, url);
                change(config);
            });
            nodes.push(start.await);
        }
        Self { nodes, database, secret }
    }

    /// One more, with a clock of its own that it does not keep to.
    async fn start_another(&self, clock: Clock, url: &str, change: fn(&mut Config)) -> TestNode {
        let database_url = self.database.url().expect("an address");
        let node = TestNode::start_at(clock, |config| {
            config.cluster.max_clock_difference = std::time::Duration::from_secs(5);
            settle(config, &database_url, &self.secret, self.nodes.len(), url);
            change(config);
        });
        node.await
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

/// By its own clock every message would have expired, and its first sweep, which comes at once, would end them.
#[tokio::test]
async fn a_node_whose_clock_is_ahead_ends_no_message() {
    let (redis, _folder) = own_redis();
    let nodes = Nodes::start(&[redis.url()], |_| {}).await;
    let right = &nodes.nodes[0];
    let (alice, bob) = (TestDevice::register(right, "alice").await, TestDevice::register(right, "bob").await);
    let id = alice.create(right, &alice.direct_with(right, &bob)).await.conversation_id;
    for (content_bytes, lifetime_seconds) in [(100, 0), (50_000, 0), (100, 1)] {
        let mut message = alice.message(1, &[&bob]);
        message.content = Blob::from(vec![7; content_bytes]);
        message.lifetime_seconds = lifetime_seconds;
        let _: Accepted = right.post(&TestDevice::messages_path(&id), &alice.token, &message).await.ok(200);
    }
    let (ahead, url) = (Clock::manual(right.now_ms() + 40 * 86_400_000), redis.url());
    let wrong = nodes.start_another(ahead, &url, |config| {
        config.mailbox.sweep_interval = std::time::Duration::from_secs(1);
    });
    let wrong = wrong.await;
    // Only this node sweeps so soon; when the message is gone that has really expired, it has swept the others' table too.
    let living =
        || nodes.database.query("SELECT count(*) FROM mailbox_entries WHERE own_lifetime = 1").expect("a number");
    crate::harness::eventually("the node with the wrong clock has swept", || async { living() == "0" }).await;
    for node in [right, &wrong] {
        let (_bob, frames) = Client::resumed(node, &bob, None).await;
        let whole = matches!(&frames[..], [Frame::Entry(_), Frame::Entry(large), Frame::Gap(_)] if large.content.len() == 50_000);
        assert!(whole, "{frames:?}");
    }
    crate::harness::eventually("health names it", || async {
        wrong.running().services().health.report().reasons.contains_key("clock")
    })
    .await;
}

#[tokio::test]
async fn signing_out_and_in_at_one_node_closes_the_socket_at_another() {
    let (redis, _folder) = own_redis();
    let nodes = Nodes::start(&[redis.url(), redis.url()], |_| {}).await;
    let [first, second] = &nodes.nodes[..] else { panic!("two") };
    let mut alice = TestDevice::register(first, "alice").await;
    let (mut before, _) = Client::resumed(second, &alice, None).await;
    let session: DeviceSession = first.post("/v1/sessions", "", &alice.sign_in(first)).await.ok(201);
    assert_eq!(before.close_code().await, close::GOING_AWAY, "whoever has the new token comes back with it");
    alice.token = session.token;
    let (mut after, _) = Client::resumed(second, &alice, None).await;
    first.delete("/v1/sessions/current", &alice.token).await.done();
    assert_eq!(after.close_code().await, close::DEVICE_ENDED);
}

/// Promise 5: by the control stream in the database, whatever has become of Redis.
#[tokio::test]
async fn a_device_revoked_at_one_node_loses_its_socket_at_another_with_redis_cut_off_too() {
    let (redis, _folder) = own_redis();
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port()).into()).expect("a proxy");
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let nodes = Nodes::start(&[url.clone(), url], |_| {}).await;
    let [first, second] = &nodes.nodes[..] else { panic!("two") };
    let mut alice = TestDevice::register(first, "alice").await;
    for is_cut in [false, true] {
        let gone = alice.link(first).await;
        let (mut socket, _) = Client::resumed(second, &gone, None).await;
        if is_cut {
            proxy.cut();
        }
        let device_list = alice.list_without(&[gone.device_id], first.now_ms());
        let revoke = RevokeRequest { device_list: device_list.clone() };
        let answer = first.post("/v1/devices/revoke", &alice.token, &revoke).await;
        assert!(answer.status.is_success(), "{}", answer.body);
        alice.chain = alice.chain.extend(&device_list).expect("a sound list");
        // The hello may come again before: its list has changed.
        let code = loop {
            if let tokio_tungstenite::tungstenite::Message::Close(frame) = socket.message().await {
                break frame.map(|frame| u16::from(frame.code));
            }
        };
        assert_eq!(code, Some(close::DEVICE_ENDED));
        second.get("/v1/devices", &gone.token).await.refused(Code::Unauthenticated);
    }
}

/// No route suspends a device yet, so the database says it as one will: status and control entry in one transaction.
#[tokio::test]
async fn a_device_suspended_in_the_database_loses_its_socket_with_redis_cut_off_too() {
    let (redis, _folder) = own_redis();
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port()).into()).expect("a proxy");
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let nodes = Nodes::start(&[url.clone(), url], |_| {}).await;
    let [first, second] = &nodes.nodes[..] else { panic!("two") };
    for (name, is_cut) in [("alice", false), ("bob", true)] {
        let device = TestDevice::register(first, name).await;
        let (mut socket, _) = Client::resumed(second, &device, None).await;
        if is_cut {
            proxy.cut();
        }
        let ended = wire::DeviceEnded { device_id: device.device_id.to_wire(), suspended: true };
        let entry = wire::ControlEntry { event: Some(Event::DeviceEnded(ended)) };
        let (id, entry) = (hex(device.device_id.as_bytes()), hex(&entry.encode_to_vec()));
        let suspend = format!(
            "UPDATE devices SET status = 1 WHERE device_id = '{id}';
             WITH head AS (UPDATE control_heads SET head_seq = head_seq + 1 RETURNING head_seq)
             INSERT INTO control_entries SELECT head_seq, '{entry}', extract(epoch FROM now())::bigint FROM head"
        );
        nodes.database.query(&suspend).expect("suspended");
        assert_eq!(socket.close_code().await, close::DEVICE_ENDED);
        for node in [first, second] {
            node.get("/v1/devices", &device.token).await.refused(Code::Unauthenticated);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("\\x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// Never a hang, never a false success.
#[tokio::test]
async fn a_node_whose_database_is_silent_says_so_and_when_to_come_back() {
    let (redis, _folder) = own_redis();
    let nodes = Nodes::start(&[redis.url()], |_| {}).await;
    let server = martlet_servers::shared_postgres().expect("a server");
    let line = Proxy::start(([127, 0, 0, 1], server.port()).into()).expect("a proxy");
    let database_url = format!("postgres://martlet@127.0.0.1:{}/{}", line.port(), nodes.database.name());
    let node = TestNode::start_at(Clock::System, |config| {
        settle(config, &database_url, &nodes.secret, 1, &redis.url());
        config.storage.timeout = std::time::Duration::from_secs(1);
        config.storage.wait = std::time::Duration::from_millis(200);
    });
    let node = node.await;
    let (alice, bob) = (TestDevice::register(&node, "alice").await, TestDevice::register(&node, "bob").await);
    let conversation = alice.create(&node, &alice.direct_with(&node, &bob)).await.conversation_id;
    let (mut socket, _) = Client::resumed(&node, &alice, None).await;
    let message = alice.message(1, &[&bob]);
    line.stall().expect("stalled");

    let path = TestDevice::messages_path(&conversation);
    let answer = node.post(&path, &alice.token, &message).await;
    let wait: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!((1..60).contains(&wait), "{wait}");
    answer.refused(Code::Unavailable);
    let reference = socket.send(client_frame::Frame::Send(alice.message(1, &[&bob]).into_wire(conversation))).await;
    // And whatever only reads.
    let answer = node.get("/v1/devices", &alice.token).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(!answer.header("retry-after").is_empty());

    line.heal().expect("healed");
    // Nothing is pushed to a device that may have been revoked meanwhile, no answer either; so this one comes now.
    let refused = loop {
        match socket.next().await {
            (0, _) => {}
            (to, Frame::Problem(problem)) if to == reference => break problem,
            (to, other) => panic!("{to}: {other:?}"),
        }
    };
    assert!(refused.code == Code::Unavailable.as_str() && refused.retry_after_ms > 0, "{refused:?}");
    crate::harness::eventually("it serves again", || async {
        node.post(&path, &alice.token, &message).await.status == 200
    })
    .await;
}
