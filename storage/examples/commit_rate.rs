//! How fast messages are committed: rows per second of `commit_sends` in batches, beside one transaction per row, and of the acks that
//! take the rows out again. The CPU time beside it depends less on what else the machine does, but still does.
//!
//! `cargo run --release -p martlet-storage --example commit_rate -- [folder]`; the folder should lie on the disk that matters. The rows
//! are like those of suite 1: 200 senders, 6 devices per message, about 450 sealed bytes. Times include the transaction's sync.

use std::{
    error::Error,
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use martlet_protocol::{
    id::{AccountId, ConversationId, DeviceId, EntryId, Hash, PublicKey, Signature},
    rest::{DeviceLabel, PrekeyKind, SignedDeviceList, SignedMembershipLink, SignedPrekey},
    wire::{ConversationKind, Role},
};
use martlet_storage::{
    ConversationKey, Db, DbConfig, DeviceKey, StorageError,
    accounts::{self, AppendList, AppendListError, InsertAccountError, NewAccount, NewDevice},
    conversations::{self, CreateError, NewConversation, NewMember},
    mailbox,
    sends::{self, EntryBody, MailboxLimits, PreparedEntry, PreparedSend, SendOutcome},
};

const SENDERS: u64 = 200;
const DEVICES_PER_MESSAGE: u64 = 6;
const SEALED_BYTES: usize = 450;
const ANSWER_BYTES: usize = 64;
const SECONDS_EACH: u64 = 4;
const NOW_MS: u64 = 1_800_000_000_000;
const LIMITS: MailboxLimits =
    MailboxLimits { max_bytes: u64::MAX, max_entries: u64::MAX, answer_retention: Duration::from_secs(86_400) };

/// One conversation per sender, of an account with six devices.
struct Talk {
    conversation: ConversationKey,
    devices: Vec<DeviceKey>,
    list_n: u64,
}

/// Numbers that look random to an index.
struct Numbers(u64);

impl Numbers {
    fn next<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(8) {
            // SplitMix64.
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_be_bytes()[..chunk.len()]);
        }
        bytes
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(folder)?;
    let db = Db::open(&DbConfig::new(folder.path().join("martlet.db")))?;
    let mut numbers = Numbers(1);
    let talks = (0..SENDERS).map(|_| talk(&db, &mut numbers)).collect::<Result<Vec<_>, _>>()?;
    println!("{SENDERS} senders, {DEVICES_PER_MESSAGE} entries of {SEALED_BYTES} bytes per send, synchronous=FULL");
    println!("mailboxes that are read and acked between the batches:");
    for sends_per_batch in [1, 20, 100, 200, 500] {
        let rate = batches(&db, &talks, &mut numbers, sends_per_batch, true)?;
        println!("  batches of {sends_per_batch:>3} sends: {rate}");
    }
    println!("  one row each        : {}", single_rows(&db, &talks, &mut numbers)?);
    println!("mailboxes that nobody reads, so that each device's end of the index is a page of its own:");
    for sends_per_batch in [100, 500] {
        let rate = batches(&db, &talks, &mut numbers, sends_per_batch, false)?;
        println!("  batches of {sends_per_batch:>3} sends: {rate}");
    }
    println!("  acks of all devices : {}", acks(&db, &talks, 100)?);
    Ok(())
}

/// Commits batches for a while.
fn batches(
    db: &Db,
    talks: &[Talk],
    numbers: &mut Numbers,
    sends_per_batch: usize,
    drained: bool,
) -> Result<Rate, StorageError> {
    let mut rows_left = 0;
    measure(|turn| {
        let batch: Vec<_> = (0..sends_per_batch)
            .map(|position| send(&talks[(turn * sends_per_batch + position) % talks.len()], numbers))
            .collect();
        if drained && rows_left > 10_000 {
            acks(db, talks, 1)?;
            rows_left = 0;
        }
        let begin = Begin::now();
        let outcomes = commit(db, &batch)?;
        let rows = outcomes.iter().map(|outcome| matches!(outcome, SendOutcome::Committed { .. }) as u64).sum::<u64>();
        rows_left += rows * DEVICES_PER_MESSAGE;
        Ok(begin.end(rows * DEVICES_PER_MESSAGE))
    })
}

/// The same rows, each in a transaction of its own.
fn single_rows(db: &Db, talks: &[Talk], numbers: &mut Numbers) -> Result<Rate, StorageError> {
    measure(|turn| {
        let mut one = send(&talks[turn % talks.len()], numbers);
        one.entries.truncate(1);
        let begin = Begin::now();
        commit(db, &[one])?;
        Ok(begin.end(1))
    })
}

fn commit(db: &Db, batch: &[PreparedSend]) -> Result<Vec<SendOutcome>, StorageError> {
    db.write_blocking(|conn| sends::commit_sends(conn, batch, &LIMITS, NOW_MS, &|_, _, _| vec![7; ANSWER_BYTES]))
}

/// Acks what is there in as many steps, all devices in each.
fn acks(db: &Db, talks: &[Talk], steps: u64) -> Result<Rate, StorageError> {
    let devices: Vec<_> = talks.iter().flat_map(|talk| talk.devices.clone()).collect();
    let heads = db.write_blocking(|conn| mailbox::heads(conn, &devices))?;
    let mut rate = Rate::default();
    for step in 1..=steps {
        let ack = |device_key, seq| mailbox::Ack { device_key, epoch: 1, seq };
        let acks: Vec<_> = heads.iter().map(|(device, head)| ack(*device, head * step / steps)).collect();
        let begin = Begin::now();
        let removed = db.write_blocking(|conn| mailbox::apply_acks(conn, &acks))?;
        rate.add(begin.end(removed as u64));
    }
    Ok(rate)
}

/// Repeats until the measured part has taken its time.
fn measure(mut step: impl FnMut(usize) -> Result<Part, StorageError>) -> Result<Rate, StorageError> {
    let mut rate = Rate::default();
    for turn in 0.. {
        rate.add(step(turn)?);
        if rate.took > Duration::from_secs(SECONDS_EACH) {
            break;
        }
    }
    Ok(rate)
}

#[derive(Default)]
struct Rate {
    rows: u64,
    took: Duration,
    cpu: Duration,
    transactions: Vec<Duration>,
}

impl Rate {
    fn add(&mut self, part: Part) {
        self.rows += part.rows;
        self.took += part.took;
        self.cpu += part.cpu;
        self.transactions.push(part.took);
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut sorted = self.transactions.clone();
        sorted.sort_unstable();
        let at = |percent: usize| sorted[(sorted.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
        let rate = self.rows as f64 / self.took.as_secs_f64();
        let [median, p99, slowest] = [50, 99, 100].map(at);
        let cpu = self.cpu.as_secs_f64() * 1e6 / self.rows as f64;
        write!(
            f,
            "{rate:>8.0} rows/s, {cpu:.1} µs of CPU per row; transactions: {median:.1} ms median, {p99:.1} ms p99, {slowest:.1} ms slowest"
        )
    }
}

/// When a measured part began.
struct Begin {
    wall: Instant,
    cpu: Duration,
}

impl Begin {
    #[expect(clippy::disallowed_methods, reason = "a measurement needs the clock")]
    fn now() -> Self {
        Self { wall: Instant::now(), cpu: cpu_time() }
    }

    fn end(self, rows: u64) -> Part {
        Part { rows, took: self.wall.elapsed(), cpu: cpu_time().saturating_sub(self.cpu) }
    }
}

/// What a measured part did and took.
struct Part {
    rows: u64,
    took: Duration,
    cpu: Duration,
}

/// What this thread has used, by Linux's scheduler; zero elsewhere.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|field| field.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}

fn send(talk: &Talk, numbers: &mut Numbers) -> PreparedSend {
    let mut entry = |device: &DeviceKey| PreparedEntry {
        device: *device,
        list_n: talk.list_n,
        entry_id: EntryId::new(numbers.next()),
        body: EntryBody::Sealed(Bytes::copy_from_slice(&numbers.next::<SEALED_BYTES>())),
    };
    let entries = talk.devices.iter().map(&mut entry).collect();
    PreparedSend {
        request_key: numbers.next(),
        request_mac: numbers.next(),
        conversation_key: talk.conversation,
        membership_m: 1,
        entries,
        content: None,
        expires_at_s: NOW_MS / 1000 + 30 * 86_400,
        own_lifetime: false,
        log: None,
    }
}

#[derive(Debug, thiserror::Error)]
enum SetupError {
    #[error(transparent)]
    Insert(#[from] InsertAccountError),
    #[error(transparent)]
    Append(#[from] AppendListError),
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

fn talk(db: &Db, numbers: &mut Numbers) -> Result<Talk, SetupError> {
    let list = SignedDeviceList { list: vec![1; 100].into(), signatures: Vec::new() };
    let link = SignedMembershipLink { link: vec![1; 100].into(), signature: Signature::new([1; 64]) };
    let devices: Vec<_> = (0..DEVICES_PER_MESSAGE).map(|_| device(numbers)).collect();
    let username = format!("{:x?}", numbers.next::<8>());
    let hash = Hash::new(numbers.next());
    let new = NewAccount {
        account_id: AccountId::new(numbers.next()),
        username: &username,
        password_hash: "none",
        list: &list,
        fingerprint: hash,
        device: &devices[0],
    };
    let conversation_id = ConversationId::new(numbers.next());
    db.write_blocking(|conn| {
        let (account_key, first) = accounts::insert_account(conn, &new)?;
        let added = &devices[1..];
        let append = AppendList { account_key, expected_n: 1, list: &list, hash, added, removed: &[], now_s: 1 };
        let mut keys = accounts::append_list(conn, &append)?;
        keys.push(first);
        let member = NewMember { account_key, fingerprint: hash, role: Role::Owner };
        let kind = ConversationKind::Group;
        let new = NewConversation { conversation_id, kind, link: &link, title: None, members: &[member] };
        let conversation = conversations::create(conn, &new)?;
        Ok(Talk { conversation, devices: keys, list_n: 2 })
    })
}

fn device(numbers: &mut Numbers) -> NewDevice {
    let signed_prekey = SignedPrekey {
        suite: 1,
        kind: PrekeyKind::Signed,
        key_id: 1,
        public_key: PublicKey::new(numbers.next()),
        not_after_ms: u64::MAX,
        list_n: 1,
        list_hash: Hash::new(numbers.next()),
        signature: Signature::new([1; 64]),
    };
    NewDevice {
        device_id: DeviceId::new(numbers.next()),
        label: DeviceLabel { name: "bench".to_owned(), platform: "bench".to_owned() },
        signing_key: PublicKey::new(numbers.next()),
        mailbox_key: PublicKey::new(numbers.next()),
        linked_at_ms: NOW_MS,
        signed_prekey,
        one_time_prekeys: Vec::new(),
    }
}
