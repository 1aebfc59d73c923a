//! What the store costs a node per batch and per range: committing 1, 16 and 256 sends in one transaction, each to five mailboxes, and
//! reading ranges of 100 entries. SQLite on the disk of the target folder, durability full: every commit waits for the disk.
//!
//! No sealing, no sockets, and one thread.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use martlet_storage::{
    DbConfig,
    mailbox::{self, RangeQuery},
    sends::{self, EntryBody, MailboxLimits, PreparedSend},
};

#[path = "../tests/db/common.rs"]
#[expect(dead_code, reason = "written for the tests, of which this needs a part")]
mod common;

use common::{Account, Conversation, NOW_MS, NOW_S, Place, ROOMY, Store, answer, bytes, fresh};

/// This binary's stores are files.
const BACKEND: common::Backend = common::Backend::Sqlite;

/// Bytes of a sealed entry: a message of a line of text.
const SEALED_BYTES: usize = 600;
/// A mailbox is never full here.
const LIMITS: MailboxLimits = MailboxLimits { max_bytes: u64::MAX >> 2, max_entries: u64::MAX >> 2, ..ROOMY };

/// A store on a real disk, and a conversation of two accounts with five devices.
struct Scene {
    store: Store,
    accounts: [Account; 2],
    conversation: Conversation,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder on the target's disk");
        let store = Store::at(Place::Folder(folder));
        assert_eq!(store.config().durability, DbConfig::new("martlet.db").durability, "as a node runs by default");
        let accounts = [store.register(2), store.register(3)];
        let conversation = store.converse(&[&accounts[0], &accounts[1]]);
        Self { store, accounts, conversation }
    }

    fn send(&self) -> PreparedSend {
        let mut send = self.conversation.send(&[&self.accounts[0], &self.accounts[1]]);
        for entry in &mut send.entries {
            let mut sealed = vec![0x5a; SEALED_BYTES];
            sealed[..16].copy_from_slice(&bytes::<16>(fresh()));
            entry.body = EntryBody::Sealed(sealed.into());
        }
        send
    }

    fn batch(&self, sends: usize) -> Vec<PreparedSend> {
        (0..sends).map(|_| self.send()).collect()
    }

    fn commit(&self, batch: &[PreparedSend]) {
        let outcomes = self.store.run(|conn| sends::commit_sends(conn, batch, &LIMITS, NOW_MS, &answer));
        assert_eq!(outcomes.len(), batch.len());
        assert!(matches!(outcomes[0], sends::SendOutcome::Committed { .. }), "{:?}", outcomes[0]);
    }
}

fn append(c: &mut Criterion) {
    let scene = Scene::new();
    let mut group = c.benchmark_group("mailbox_append");
    for sends in [1_usize, 16, 256] {
        group.throughput(Throughput::Elements(sends as u64));
        group.bench_function(BenchmarkId::new("sends", sends), |b| {
            b.iter_batched(|| scene.batch(sends), |batch| scene.commit(&batch), BatchSize::PerIteration);
        });
    }
    group.finish();
}

fn read(c: &mut Criterion) {
    const ENTRIES: u64 = 10_000;
    const RANGE: u32 = 100;
    let scene = Scene::new();
    let mut left = ENTRIES;
    while left > 0 {
        scene.commit(&scene.batch(500));
        left -= 500;
    }
    let device = scene.accounts[1].devices[0];
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut group = c.benchmark_group("mailbox_read");
    group.throughput(Throughput::Elements(RANGE.into()));
    let mut after_seq = 0;
    group.bench_function(BenchmarkId::new("entries", RANGE), |b| {
        b.iter(|| {
            // Another part each time, as devices that come back ask for.
            after_seq = (after_seq + 7_919) % (ENTRIES - u64::from(RANGE));
            let query = RangeQuery { device, after_seq, max_items: RANGE, max_bytes: 1 << 20, now_s: NOW_S };
            let range = scene.store.db.read(move |conn| mailbox::range(conn, &query));
            let range = runtime.block_on(range).expect("the query works");
            assert_eq!(range.items.len(), RANGE as usize);
            black_box(range)
        });
    });
    group.finish();
}

criterion_group!(benches, append, read);
criterion_main!(benches);
