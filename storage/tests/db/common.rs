//! A store in a temporary folder, and the things that tests put into it. Nothing here is signed: the store checks no signature.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use diesel::{QueryableByName, RunQueryDsl as _, sql_types::BigInt};
use martlet_protocol::{
    id::{AccountId, ConversationId, DeviceId, EntryId, Hash, PublicKey, Signature},
    rest::{DeviceLabel, DeviceSignature, PrekeyKind, SignedDeviceList, SignedMembershipLink, SignedPrekey},
    wire::{ConversationKind, GapReason, Role},
};
use martlet_servers::Database;
use martlet_storage::{
    AccountKey, Conn, ConversationKey, DatabaseUrl, Db, DbConfig, DeviceKey, Durability, StorageError,
    accounts::{self, AppendList, AppendListError, NewAccount, NewDevice},
    conversations::{self, AppendLink, AppendLinkError, MemberChange, NewConversation, NewMember},
    mailbox::{self, Item, RangeQuery},
    sends::{self, EntryBody, MailboxLimits, PreparedEntry, PreparedSend, SendOutcome},
};
use tempfile::TempDir;

/// Unix milliseconds at which tests begin.
pub const NOW_MS: u64 = 1_800_000_000_000;
pub const NOW_S: u64 = NOW_MS / 1000;
/// The mailbox's own retention in these tests: 30 days, in seconds.
pub const RETENTION_S: u64 = 30 * 86_400;
pub const ROOMY: MailboxLimits =
    MailboxLimits { max_bytes: 1 << 30, max_entries: 100_000, answer_retention: Duration::from_secs(86_400) };

/// Another number each time, for ids and names.
pub fn fresh() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Bytes that are different for each number.
pub fn bytes<const N: usize>(number: u64) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Which backend a test binary tries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

/// Each test binary names one of them; here both are, or the compiler would miss the other.
pub const BACKENDS: [Backend; 2] = [Backend::Sqlite, Backend::Postgres];

pub struct Store {
    pub db: Db,
    pub place: Place,
}

pub enum Place {
    Folder(TempDir),
    /// By its address; of the shared server, unless a test has one of its own.
    #[expect(dead_code, reason = "the second is held for its drop")]
    Database(DatabaseUrl, Option<Database>),
}

impl Place {
    fn config(&self) -> DbConfig {
        match self {
            Self::Folder(folder) => DbConfig::new(folder.path().join("martlet.db")),
            // The tests' server is not durable.
            Self::Database(url, _) => DbConfig { durability: Durability::Normal, ..DbConfig::postgres(url.clone()) },
        }
    }
}

impl Store {
    pub fn new() -> Self {
        assert!(BACKENDS.contains(&crate::BACKEND));
        let place = match crate::BACKEND {
            Backend::Sqlite => Place::Folder(tempfile::tempdir().expect("a temporary folder")),
            Backend::Postgres => {
                let database = Database::create().expect("a database");
                let url = DatabaseUrl::new(&database.url().expect("a server")).expect("an address");
                Place::Database(url, Some(database))
            }
        };
        Self::at(place)
    }

    /// The store may be there already.
    pub fn at(place: Place) -> Self {
        let db = Db::open(&place.config()).expect("the store opens");
        Self { db, place }
    }

    /// Another process, as it were: a second set of connections to the same store.
    pub fn second(&self) -> Db {
        Db::open(&self.place.config()).expect("the store opens again")
    }

    pub fn config(&self) -> DbConfig {
        self.place.config()
    }

    /// Runs in a write transaction.
    pub fn run<T>(&self, run: impl FnOnce(&mut Conn) -> Result<T, StorageError>) -> T {
        self.db.write_blocking(run).expect("the query works")
    }

    /// A number by SQL.
    pub fn number(&self, sql: &str) -> i64 {
        self.numbers(&format!("SELECT ({sql})::bigint AS n"))[0]
    }

    /// The column `n` by SQL.
    pub fn numbers(&self, sql: &str) -> Vec<i64> {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = BigInt)]
            n: i64,
        }
        let sql = sql.to_owned();
        let rows: Vec<Row> = self.run(move |conn| match conn {
            Conn::Sqlite(c) => Ok(diesel::sql_query(sql.replace("::bigint", "")).load(c)?),
            Conn::Postgres(c) => Ok(diesel::sql_query(sql).load(c)?),
        });
        rows.into_iter().map(|row| row.n).collect()
    }

    pub fn execute(&self, sql: &str) {
        let sql = sql.to_owned();
        self.run(move |conn| match conn {
            Conn::Sqlite(c) => Ok(diesel::sql_query(sql).execute(c)?),
            Conn::Postgres(c) => Ok(diesel::sql_query(sql).execute(c)?),
        });
    }

    pub fn register(&self, devices: usize) -> Account {
        let first = new_device();
        let id = AccountId::new(bytes(fresh()));
        let name = format!("user{}", fresh());
        let fingerprint = Hash::new(bytes(fresh()));
        let new = NewAccount {
            account_id: id,
            username: &name,
            password_hash: "argon2",
            list: &list(),
            fingerprint,
            device: &first,
        };
        let (key, device) =
            self.db.write_blocking(|conn| accounts::insert_account(conn, &new)).expect("an account is registered");
        let mut account = Account { id, key, name, n: 1, devices: vec![device], device_ids: vec![first.device_id] };
        for _ in 1..devices {
            self.link(&mut account);
        }
        account
    }

    /// Links a further device.
    pub fn link(&self, account: &mut Account) -> DeviceKey {
        let device = new_device();
        let added = self.append(account, std::slice::from_ref(&device), &[]).expect("a device is linked");
        account.n += 1;
        account.devices.extend(&added);
        account.device_ids.push(device.device_id);
        added[0]
    }

    /// Revokes a device.
    pub fn revoke(&self, account: &mut Account, device: DeviceKey) {
        self.append(account, &[], &[device]).expect("a device is revoked");
        account.n += 1;
        let at = account.devices.iter().position(|key| *key == device).expect("a device of the account");
        account.devices.remove(at);
        account.device_ids.remove(at);
    }

    pub fn append(
        &self,
        account: &Account,
        added: &[NewDevice],
        removed: &[DeviceKey],
    ) -> Result<Vec<DeviceKey>, AppendListError> {
        self.db.write_blocking(|conn| append(conn, account, added, removed))
    }

    pub fn converse(&self, members: &[&Account]) -> Conversation {
        let id = ConversationId::new(bytes(fresh()));
        let members: Vec<_> = members.iter().map(|account| member(account.key, Role::Member)).collect();
        let new = NewConversation {
            conversation_id: id,
            kind: ConversationKind::Group,
            link: &link(),
            title: None,
            members: &members,
        };
        let key = self.db.write_blocking(|conn| conversations::create(conn, &new)).expect("a conversation is created");
        Conversation { id, key, m: 1 }
    }

    /// Appends a link to a conversation's membership, which is then one further.
    pub fn change(&self, talk: &Conversation, changes: &[MemberChange]) -> Result<(), AppendLinkError> {
        let append = AppendLink {
            conversation_key: talk.key,
            expected_m: talk.m,
            link: &link(),
            hash: Hash::new(bytes(fresh())),
            changes,
            now_s: NOW_S,
        };
        self.db.write_blocking(|c| conversations::append_link(c, &append))
    }

    pub fn commit(&self, batch: &[PreparedSend]) -> Vec<SendOutcome> {
        self.commit_within(batch, &ROOMY)
    }

    pub fn commit_within(&self, batch: &[PreparedSend], limits: &MailboxLimits) -> Vec<SendOutcome> {
        self.run(|conn| sends::commit_sends(conn, batch, limits, NOW_MS, &answer))
    }

    pub fn ack(&self, device: DeviceKey, seq: u64) -> usize {
        self.run(|conn| mailbox::apply_acks(conn, &[ack(device, seq)]))
    }

    /// The whole mailbox after `seq`, at a time.
    pub fn read_at(&self, device: DeviceKey, after_seq: u64, now_s: u64) -> Vec<Item> {
        self.run(|conn| mailbox::range(conn, &query(device, after_seq, now_s))).items
    }

    pub fn read(&self, device: DeviceKey, after_seq: u64) -> Vec<Item> {
        self.read_at(device, after_seq, NOW_S)
    }
}

pub fn query(device: DeviceKey, after_seq: u64, now_s: u64) -> RangeQuery {
    RangeQuery { device, after_seq, max_items: 10_000, max_bytes: 1 << 30, now_s }
}

pub fn append(
    conn: &mut Conn,
    account: &Account,
    added: &[NewDevice],
    removed: &[DeviceKey],
) -> Result<Vec<DeviceKey>, AppendListError> {
    let append = AppendList {
        account_key: account.key,
        expected_n: account.n,
        list: &list(),
        hash: Hash::new(bytes(fresh())),
        added,
        removed,
        now_s: NOW_S,
    };
    accounts::append_list(conn, &append)
}

pub struct Account {
    pub id: AccountId,
    pub key: AccountKey,
    pub name: String,
    pub n: u64,
    pub devices: Vec<DeviceKey>,
    pub device_ids: Vec<DeviceId>,
}

pub struct Conversation {
    pub id: ConversationId,
    pub key: ConversationKey,
    pub m: u64,
}

impl Conversation {
    /// A send to every device of the accounts.
    pub fn send(&self, accounts: &[&Account]) -> PreparedSend {
        let entries = accounts
            .iter()
            .flat_map(|account| account.devices.iter().map(|device| (*device, account.n)))
            .map(|(device, list_n)| PreparedEntry {
                device,
                list_n,
                entry_id: EntryId::new(bytes(fresh())),
                body: EntryBody::Sealed(bytes::Bytes::copy_from_slice(&self::bytes::<64>(fresh()))),
            })
            .collect();
        PreparedSend {
            request_key: self::bytes(fresh()),
            request_mac: self::bytes(fresh()),
            conversation_key: self.key,
            membership_m: self.m,
            entries,
            content: None,
            expires_at_s: NOW_S + RETENTION_S,
            own_lifetime: false,
            log: None,
        }
    }
}

/// What tests answer a send with: its index and the indexes of the full mailboxes.
pub fn answer(index: usize, _seqs: &[u64], partial: &[usize]) -> Vec<u8> {
    format!("{index} {partial:?}").into_bytes()
}

pub fn seqs(outcome: &SendOutcome) -> Vec<u64> {
    match outcome {
        SendOutcome::Committed { seqs, .. } => seqs.clone(),
        SendOutcome::Appended { seq, .. } => vec![*seq],
        other => panic!("not committed: {other:?}"),
    }
}

/// Items in short: `e3` is entry 3, `gap 4-6 quota` what it says.
pub fn short(items: &[Item]) -> Vec<String> {
    items
        .iter()
        .map(|item| match item {
            Item::Entry { seq, .. } => format!("e{seq}"),
            Item::Gap(gap) => {
                assert_eq!(gap.count, gap.to_seq - gap.from_seq + 1);
                let reason = match gap.reason() {
                    GapReason::Unexplained => "unexplained",
                    GapReason::Expired => "expired",
                    GapReason::Quota => "quota",
                    GapReason::Dormant => "dormant",
                    GapReason::Acked => "acked",
                    GapReason::NotAMember => "not a member",
                };
                format!("gap {}-{} {reason}", gap.from_seq, gap.to_seq)
            }
        })
        .collect()
}

pub fn member(account_key: AccountKey, role: Role) -> NewMember {
    NewMember { account_key, fingerprint: Hash::new(bytes(1)), role }
}

pub fn list() -> SignedDeviceList {
    let signature = DeviceSignature { device_id: DeviceId::new(bytes(1)), signature: Signature::new(bytes(fresh())) };
    SignedDeviceList { list: bytes::<40>(fresh()).to_vec().into(), signatures: vec![signature] }
}

pub fn link() -> SignedMembershipLink {
    SignedMembershipLink { link: bytes::<40>(fresh()).to_vec().into(), signature: Signature::new(bytes(fresh())) }
}

pub fn prekey(kind: PrekeyKind, key_id: u32) -> SignedPrekey {
    SignedPrekey {
        suite: 1,
        kind,
        key_id,
        public_key: PublicKey::new(bytes(fresh())),
        not_after_ms: NOW_MS + 60 * 86_400_000,
        list_n: 1,
        list_hash: Hash::new(bytes(1)),
        signature: Signature::new(bytes(1)),
    }
}

pub fn one_time(ids: std::ops::Range<u32>) -> Vec<SignedPrekey> {
    ids.map(|id| prekey(PrekeyKind::OneTime, id)).collect()
}

pub fn new_device() -> NewDevice {
    NewDevice {
        device_id: DeviceId::new(bytes(fresh())),
        label: DeviceLabel { name: "phone".to_owned(), platform: "linux".to_owned() },
        signing_key: PublicKey::new(bytes(fresh())),
        mailbox_key: PublicKey::new(bytes(fresh())),
        linked_at_ms: NOW_MS,
        signed_prekey: prekey(PrekeyKind::Signed, 1),
        one_time_prekeys: one_time(1..4),
    }
}

/// Of a store as it is made.
pub fn ack(device_key: DeviceKey, seq: u64) -> mailbox::Ack {
    mailbox::Ack { device_key, epoch: 1, seq }
}
