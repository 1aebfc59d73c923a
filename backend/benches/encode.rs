//! Encoding one node frame in each sub-protocol: protobuf for `martlet.v1.proto`, proto3 JSON for `martlet.v1.json`. A frame of a mailbox
//! is encoded once for its device, one of a log once for all who read it. The WebSocket header in front of it is not in the figure.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use martlet_protocol::wire::{self, log_item, node_frame};
use prost::Message as _;

/// What the node runs with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A line of text, encrypted.
const CONTENT_BYTES: usize = 300;

fn frame(frame: node_frame::Frame) -> wire::NodeFrame {
    wire::NodeFrame { r#ref: 0, frame: Some(frame) }
}

fn mailbox_entry() -> wire::NodeFrame {
    frame(node_frame::Frame::Entry(wire::MailboxEntry {
        seq: 1_000_000,
        entry_id: vec![1; 16].into(),
        sealed: vec![2; CONTENT_BYTES + 300].into(),
        ..wire::MailboxEntry::default()
    }))
}

fn log_entry() -> wire::NodeFrame {
    let entry = wire::LogEntry {
        seq: 1_000_000,
        message_id: vec![1; 16].into(),
        accepted_at_ms: 1_750_000_000_000,
        group_epoch: 3,
        suite: 200,
        content: vec![2; CONTENT_BYTES].into(),
    };
    let items = vec![wire::LogItem { item: Some(log_item::Item::Entry(entry)) }];
    frame(node_frame::Frame::LogItems(wire::LogItems { conversation_id: vec![9; 32].into(), items }))
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    for (name, frame) in [("mailbox_entry", mailbox_entry()), ("log_entry", log_entry())] {
        group.bench_function(BenchmarkId::new("proto", name), |b| b.iter(|| black_box(frame.encode_to_vec())));
        group.bench_function(BenchmarkId::new("json", name), |b| {
            b.iter(|| black_box(serde_json::to_vec(&frame).expect("a frame is JSON")));
        });
    }
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
