//! One send → n forks prepared, on a node in this process: the request read, compared with the device lists and the membership that the
//! node has in memory, and an entry sealed for each of 5, 20 and 100 devices. It is measured with an ephemeral message, which goes the
//! way of any other up to the commit and then to those who are connected, of whom there are none here. So there is no disk in it.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use martlet::clock::Clock;
use martlet_protocol::{rest::Role, wire};

#[path = "../tests/api/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "written for the API's tests, of which this needs a part")]
mod harness;

use harness::{TestDevice, TestNode};

/// This binary's node keeps its data itself.
const MODE: harness::Mode = harness::Mode::Embedded;

/// What the node runs with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A sender and a group of so many other devices.
struct Scene {
    sender: TestDevice,
    request: wire::SendRequest,
}

impl Scene {
    async fn new(node: &TestNode, devices: usize) -> Self {
        let sender = TestDevice::register(node, &format!("sender-{devices}")).await;
        let mut others = Vec::new();
        for number in 0..devices {
            others.push(TestDevice::register(node, &format!("member-{devices}-{number}")).await);
        }
        let members: Vec<_> = others.iter().map(|other| other.member(Role::Member)).collect();
        let conversation = sender.create(node, &sender.group_with(node, &members)).await.conversation_id;
        let recipients: Vec<_> = others.iter().collect();
        let request = sender.message(1, &recipients).into_wire(conversation);
        Self { sender, request }
    }
}

fn fork(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let _inside = runtime.enter();
    let node = runtime.block_on(TestNode::start_at(Clock::System, |config| {
        config.limits.ephemeral_per_device_per_second = 0;
        config.limits.ephemeral_per_account_per_second = 0;
        config.limits.ephemeral_burst = 0;
    }));
    let services = node.running().services();
    let mut group = c.benchmark_group("fork");
    for devices in [5_usize, 20, 100] {
        let scene = runtime.block_on(Scene::new(&node, devices));
        let identity = runtime.block_on(services.accounts.authenticate(&scene.sender.token)).expect("a device");
        group.throughput(Throughput::Elements(devices as u64));
        group.bench_function(BenchmarkId::new("devices", devices), |b| {
            b.iter_batched(
                || scene.request.clone(),
                |request| {
                    let sent = runtime.block_on(services.messages.send_ephemeral(identity, request));
                    black_box(sent.expect("it fits what the node has"))
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    runtime.block_on(node.stop());
}

criterion_group!(benches, fork);
criterion_main!(benches);
