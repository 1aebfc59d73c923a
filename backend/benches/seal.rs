//! The outer seal of one fork, as the accepting node makes it: one AEAD call under a key that is in the cache, and the agreement on such a
//! key with a device that is not.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use martlet::clock::rng;
use martlet_protocol::{
    crypto::DhSecret,
    id::{DeviceId, EntryId},
    seal::MailboxSealer,
    wire,
};

/// What the node runs with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn message(content_bytes: usize) -> wire::SealedMessage {
    wire::SealedMessage {
        message_id: vec![1; 16].into(),
        sender_account_id: vec![2; 16].into(),
        sender_device_id: vec![3; 16].into(),
        conversation_id: vec![4; 32].into(),
        client_message_id: vec![5; 16].into(),
        accepted_at_ms: 1_750_000_000_000,
        suite: 1,
        fork_header: vec![6; 85].into(),
        content: vec![7; content_bytes].into(),
        content_sha256: bytes::Bytes::new(),
    }
}

fn seal(c: &mut Criterion) {
    let mailbox_key = DhSecret::generate(&mut rng()).public();
    let (device, entry) = (DeviceId::random(&mut rng()), EntryId::random(&mut rng()));
    let sealer = MailboxSealer::new(&mut rng(), &mailbox_key).expect("a good key");
    let mut group = c.benchmark_group("outer_seal");
    // A line of text, and as much as is kept inline.
    for content_bytes in [300_usize, 4096] {
        let message = message(content_bytes);
        group.throughput(Throughput::Bytes(content_bytes as u64));
        group.bench_function(BenchmarkId::new("cached_key", content_bytes), |b| {
            b.iter(|| black_box(sealer.seal(&device, &entry, &message)));
        });
    }
    group.finish();
    c.bench_function("outer_seal/new_key", |b| {
        let mut rng = rng();
        b.iter(|| black_box(MailboxSealer::new(&mut rng, &mailbox_key).expect("a good key")));
    });
}

criterion_group!(benches, seal);
criterion_main!(benches);
