//! One worker's fan-out pass: a message of a log to 1,000 and 9,000 followers, from its acceptance to the last follower's read. One
//! worker thread, real sockets on loopback, read one after the other by one thread of this process; so about half of the figure is what
//! the system does for each socket on both sides. 9,000 because both ends of 10,000 sockets are more files than a process may commonly
//! open. `--test` tries it with 20.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::{StreamExt as _, stream};
use martlet::{accounts::DeviceIdentity, clock::Clock};
use martlet_protocol::{
    id::ConversationId,
    rest::Role,
    wire::{self, client_frame, node_frame, subscribed_log},
};
use prost::Message as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Runtime;

#[path = "../tests/api/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "written for the API's tests, of which this needs a part")]
mod harness;

use harness::{TestDevice, TestNode};

/// This binary's nodes keep their data themselves.
const MODE: harness::Mode = harness::Mode::Embedded;

/// What the node runs with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FOLLOWERS: [usize; 2] = [1_000, 9_000];
const FOLLOWERS_OF_TEST: [usize; 1] = [20];
/// Registrations under way at once.
const REGISTERING: usize = 32;
/// A line of text, encrypted.
const CONTENT: [u8; 300] = [0xa7; 300];
/// Files beside the sockets.
const OTHER_FILES: u64 = 200;

/// A node, and those who follow the log of its one large conversation.
struct Scene {
    node: TestNode,
    writer: DeviceIdentity,
    conversation: ConversationId,
    followers: Vec<Follower>,
}

impl Scene {
    async fn new(followers: usize) -> Self {
        let node = TestNode::start_at(Clock::System, |config| {
            config.server.workers = 1;
            config.conversations.max_members_large = followers + 1;
            // Pings would be read as messages.
            config.socket.ping_interval = Duration::from_secs(3600);
            config.limits.connections_per_second = 0;
        })
        .await;
        let writer = TestDevice::register(&node, "writer").await;
        let register = |number: usize| {
            let node = &node;
            async move { TestDevice::register(node, &format!("follower-{number}")).await }
        };
        let devices: Vec<_> = stream::iter(0..followers).map(register).buffered(REGISTERING).collect().await;
        let members: Vec<_> = devices.iter().map(|device| device.member(Role::Member)).collect();
        let conversation = writer.create(&node, &writer.large_with(&node, &members)).await.conversation_id;
        let services = node.running().services();
        let identity = services.accounts.authenticate(&writer.token).await.expect("a device");
        let address = node.running().public;
        let follow = move || devices.iter().map(|device| Follower::new(address, &device.token, conversation)).collect();
        let followers = tokio::task::spawn_blocking(follow).await.expect("all follow");
        Self { node, writer: identity, conversation, followers }
    }

    /// Returns when it is accepted.
    async fn send(&self) {
        let request = TestDevice::log_message(&CONTENT).into_wire(self.conversation);
        let services = self.node.running().services();
        services.messages.send(self.writer, request).await.expect("accepted");
    }

    /// Until everybody has it.
    fn read_all(&self) {
        self.followers.iter().for_each(Follower::read_message);
    }
}

/// A device's socket, by hand: a client library keeps more per socket than 9,000 of them may cost.
struct Follower(TcpStream);

impl Follower {
    fn new(node: SocketAddr, token: &str, conversation: ConversationId) -> Self {
        let mut stream = TcpStream::connect(node).expect("a connection");
        stream.set_nodelay(true).expect("possible");
        let upgrade = format!(
            "GET /v1/socket HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: martlet.v1.proto\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(upgrade.as_bytes()).expect("written");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        let mut follower = Self(stream);
        follower.until(|frame| matches!(frame, node_frame::Frame::Hello(_)));
        follower.put(client_frame::Frame::Resume(wire::Resume { mailbox: None }));
        follower.until(|frame| matches!(frame, node_frame::Frame::CaughtUp(_)));
        let log = wire::LogCursor { conversation_id: conversation.to_wire(), cursor: None };
        follower.put(client_frame::Frame::Subscribe(wire::Subscribe { logs: vec![log] }));
        follower.until(|frame| match frame {
            node_frame::Frame::Subscribed(subscribed) => {
                let outcome = subscribed.logs.first().and_then(|log| log.outcome.as_ref());
                assert!(matches!(outcome, Some(subscribed_log::Outcome::State(_))), "{outcome:?}");
                true
            }
            _ => false,
        });
        follower
    }

    fn put(&mut self, frame: client_frame::Frame) {
        let payload = wire::ClientFrame { r#ref: 1, frame: Some(frame) }.encode_to_vec();
        let length = u8::try_from(payload.len()).ok().filter(|length| *length <= 125).expect("a short frame");
        // Binary, masked with zeros.
        let bytes = [&[0x82, 0x80 | length, 0, 0, 0, 0], payload.as_slice()].concat();
        self.0.write_all(&bytes).expect("written");
    }

    fn until(&mut self, is_it: impl Fn(&node_frame::Frame) -> bool) {
        loop {
            let mut head = [0; 2];
            self.0.read_exact(&mut head).expect("a frame");
            let length = match head[1] {
                126 => {
                    let mut long = [0; 2];
                    self.0.read_exact(&mut long).expect("a length");
                    u16::from_be_bytes(long).into()
                }
                short => usize::from(short),
            };
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).expect("a payload");
            let frame = wire::NodeFrame::decode(Bytes::from(payload)).expect("a frame of the schema");
            if frame.frame.as_ref().is_some_and(&is_it) {
                return;
            }
        }
    }

    /// The one message that is under way: a frame that ends with its content.
    fn read_message(&self) {
        let (mut buffer, mut read) = ([0; 1024], 0);
        while read < 4 || read < 4 + usize::from(u16::from_be_bytes([buffer[2], buffer[3]])) {
            let count = (&self.0).read(&mut buffer[read..]).expect("a message");
            assert_ne!(count, 0, "the node closed the connection");
            read += count;
        }
        assert!(buffer[1] == 126 && buffer[..read].ends_with(&CONTENT), "another frame than the message's");
    }
}

/// The sizes that fit into what this process may open.
fn sizes() -> Vec<usize> {
    let most = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
    let sizes: &[usize] = if std::env::args().any(|arg| arg == "--test") { &FOLLOWERS_OF_TEST } else { &FOLLOWERS };
    let fits = |size: &usize| most.is_none_or(|most| *size as u64 * 2 + OTHER_FILES <= most);
    for size in sizes.iter().filter(|size| !fits(size)) {
        eprintln!("left out: {size} followers need {} open files (ulimit -Hn)", *size as u64 * 2 + OTHER_FILES);
    }
    sizes.iter().copied().filter(fits).collect()
}

fn pass(c: &mut Criterion) {
    let mut group = c.benchmark_group("hub_pass");
    group.sample_size(20).measurement_time(Duration::from_secs(8));
    for followers in sizes() {
        let runtime = Runtime::new().expect("a runtime");
        let _inside = runtime.enter();
        let scene = runtime.block_on(Scene::new(followers));
        group.throughput(Throughput::Elements(followers as u64));
        group.bench_function(BenchmarkId::new("followers", followers), |b| {
            b.iter_batched(|| runtime.block_on(scene.send()), |()| scene.read_all(), BatchSize::PerIteration);
        });
        let Scene { node, followers, .. } = scene;
        drop(followers);
        runtime.block_on(node.stop());
    }
    group.finish();
}

criterion_group!(benches, pass);
criterion_main!(benches);
