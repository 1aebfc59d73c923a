//! What a message costs the device that sends it: the content, signed, padded and encrypted once; the inner fork header for one device;
//! and both together for 5, 20 and 100 devices.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use martlet_client::{
    compose::{Composed, Draft, compose},
    identity::DeviceKeys,
    system_rng,
};
use martlet_protocol::{
    crypto::{DhSecret, SUITE_1, VerifiedPrekey},
    id::{AccountId, ClientMessageId, ConversationId, DeviceId, Hash},
    rest::{ListHead, PrekeyKind},
    suite1::{ForkContext, fork_header, seal_content},
    wire,
};
use rand::rngs::StdRng;

/// A line of text.
const TEXT_BYTES: usize = 100;

/// A sender, and the devices that it writes to.
struct Scene {
    keys: DeviceKeys,
    list_heads: Vec<ListHead>,
    recipients: Vec<VerifiedPrekey>,
    conversation_id: ConversationId,
    body: wire::Content,
}

impl Scene {
    fn new(devices: usize, rng: &mut StdRng) -> Self {
        let account_id = AccountId::random(rng);
        let recipient = |_| VerifiedPrekey {
            suite: SUITE_1,
            account_id,
            device_id: DeviceId::random(rng),
            kind: PrekeyKind::Signed,
            key_id: 1,
            public_key: DhSecret::generate(rng).public(),
        };
        let recipients = (0..devices).map(recipient).collect();
        let text = wire::Text { text: "x".repeat(TEXT_BYTES), reply_to: None };
        Self {
            keys: DeviceKeys::generate(AccountId::random(rng), rng),
            list_heads: vec![ListHead { account_id, n: 1, hash: Hash::random(rng) }],
            recipients,
            conversation_id: ConversationId::new(*Hash::random(rng).as_bytes()),
            body: wire::Content { body: Some(wire::content::Body::Text(text)) },
        }
    }

    fn compose(&self, rng: &mut StdRng) -> Composed {
        let draft = Draft {
            conversation_id: self.conversation_id,
            membership: wire::MembershipHead::default(),
            list_heads: &self.list_heads,
            client_message_id: ClientMessageId::random(rng),
            sent_at_ms: 1_750_000_000_000,
            counter: 1,
            previous: None,
            body: &self.body,
            lifetime_seconds: 0,
            ephemeral_until_ms: 0,
        };
        compose(&self.keys, &draft, &self.recipients, rng).expect("the prekeys are good")
    }
}

fn header(c: &mut Criterion) {
    let mut rng = system_rng();
    let scene = Scene::new(1, &mut rng);
    let plaintext = wire::Plaintext { body: Some(scene.body.clone()), ..wire::Plaintext::default() };
    c.bench_function("inner_content", |b| {
        b.iter(|| black_box(seal_content(&mut rng, &plaintext, &scene.keys.signing)));
    });
    let (content_key, content) = seal_content(&mut rng, &plaintext, &scene.keys.signing);
    let context = ForkContext {
        conversation_id: scene.conversation_id,
        sender_account: scene.keys.account_id,
        sender_device: scene.keys.device_id,
        client_message_id: ClientMessageId::random(&mut rng),
        content_hash: Hash::of(&content),
    };
    c.bench_function("inner_fork_header", |b| {
        b.iter(|| black_box(fork_header(&mut rng, &content_key, &context, &scene.recipients[0]).expect("a header")));
    });
}

fn whole(c: &mut Criterion) {
    let mut rng = system_rng();
    let mut group = c.benchmark_group("compose");
    for devices in [5, 20, 100] {
        let scene = Scene::new(devices, &mut rng);
        group.throughput(Throughput::Elements(devices as u64));
        group.bench_function(BenchmarkId::new("devices", devices), |b| b.iter(|| black_box(scene.compose(&mut rng))));
    }
    group.finish();
}

criterion_group!(benches, header, whole);
criterion_main!(benches);
