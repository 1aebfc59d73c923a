//! Every key, once: what it is for, its type, its default, and what is allowed.
//!
//! The documentation of a field is printed by `martlet config` as the comment above the key, so it is written for an operator.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use martlet_storage::DatabaseUrl;

use super::addresses::{Database, Databases, RedisUrls};
use super::rates::Limits;
use super::rules::{
    Address, Bytes, Count, Filter, Name, OneOf, OptionalName, OptionalPath, Path, Time, WebOrigin, days, hours, kib,
    mib, millis, minutes, secs,
};
use super::secret::SecretUrl;

/// How safely the store writes before a send is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Every commit reaches the disk before anything is answered.
    Full,
    /// Commits reach the disk some time later.
    Normal,
}

/// What a standby may lack when it is promoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standbys {
    /// What was answered last.
    MayLag,
    /// Nothing.
    Synchronous,
}

/// Who may make an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Anybody who reaches the node.
    Open,
    /// Nobody; existing accounts go on as before.
    Closed,
}

/// How the Redis is run that nodes talk through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisKind {
    /// One server.
    Single,
    /// Redis Cluster.
    Cluster,
    /// A server and its replicas, watched by Redis Sentinels.
    Sentinel,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: one line, words first.
    Human,
    /// For machines: one JSON object per line.
    Json,
}

const STANDBYS: OneOf<Standbys> = OneOf(&[("may-lag", Standbys::MayLag), ("synchronous", Standbys::Synchronous)]);
const DURABILITY: OneOf<Durability> = OneOf(&[("full", Durability::Full), ("normal", Durability::Normal)]);
const REGISTRATION: OneOf<Registration> = OneOf(&[("open", Registration::Open), ("closed", Registration::Closed)]);
const LOG_FORMAT: OneOf<LogFormat> = OneOf(&[("human", LogFormat::Human), ("json", LogFormat::Json)]);

const REDIS_KIND: OneOf<RedisKind> =
    OneOf(&[("single", RedisKind::Single), ("cluster", RedisKind::Cluster), ("sentinel", RedisKind::Sentinel)]);

config! {
    server: Server,
    storage: Storage,
    cluster: Cluster,
    accounts: Accounts,
    prekeys: Prekeys,
    conversations: Conversations,
    messages: Messages,
    mailbox: Mailbox,
    logs: Logs,
    socket: Socket,
    relay: Relay,
    limits: Limits,
    log: Log,
}

section! {
    /// Where the node listens, and how much it takes on.
    Server as "server" {
        /// Address of the public listener: the API and the sockets of devices. Use 0.0.0.0 or [::] to serve other machines.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8080)), Address;
        /// Address of the internal listener: health details and operation. It asks for no token, so keep it off public networks.
        internal_listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8081)), Address;
        /// Threads that serve connections; 0 means one per processor core.
        workers: usize = 0, Count(0..=256);
        /// Sockets the node holds at once; further ones are turned away with the code `busy`. Each needs a file descriptor (see
        /// `martlet check`).
        max_connections: usize = 1_000_000, Count(1..=100_000_000);
        /// How long clients are asked to spread their return over when the node shuts down, and the longest it waits for work
        /// under way.
        drain_window: Duration = secs(10), Time(secs(0)..=minutes(10));
        /// Address under which clients reach the node, if a proxy stands in front of it. It is shown to people, never matched.
        public_url: Option<String> = None, WebOrigin;
    }
}

section! {
    /// Where and how safely data is kept.
    Storage as "storage" {
        /// Directory of the embedded database and of the node's secret. It is made at the first start.
        data_dir: PathBuf = PathBuf::from("data"), Path;
        /// The PostgreSQL database (15 or newer) that the nodes of a cluster share, in place of the embedded one. The password is not shown
        /// by `martlet config`; better than in a file it stands in the environment (MARTLET__STORAGE__DATABASE_URL).
        database_url: Option<DatabaseUrl> = None, Database;
        /// Read replicas of that database. Mailboxes are read from them where they can't be behind; anything else asks the primary.
        replica_urls: Vec<DatabaseUrl> = Vec::new(), Databases;
        /// File of the secret that all nodes of a cluster share: copy it from the first node to the others. Without it, it is node.secret in
        /// data_dir.
        secret_file: Option<PathBuf> = None, OptionalPath;
        /// "full": every commit is on disk before a send is answered. "normal": a power loss can take answered sends with it (the
        /// process alone may crash safely); say so to your users if you choose it.
        durability: Durability = Durability::Full, DURABILITY;
        /// Standbys of the PostgreSQL database. "may-lag": one that is promoted may lack what was answered last, so devices then read their
        /// mailboxes anew and upload new one-time prekeys. "synchronous": commits wait for the standby that will be promoted
        /// (synchronous_standby_names), so a failover changes nothing for devices.
        standbys: Standbys = Standbys::MayLag, STANDBYS;
        /// Connections that read the store.
        read_connections: usize = 4, Count(1..=256);
        /// Connections to PostgreSQL that write what is no message: accounts, keys, acks. The embedded database has one for everything.
        write_connections: usize = 4, Count(1..=256);
        /// How long a request waits for its turn at the store before it is refused with the code `busy`.
        wait: Duration = secs(5), Time(millis(10)..=minutes(1));
        /// How long PostgreSQL may take to connect or to answer. Past it a request is refused with the code `unavailable`; a send, whose
        /// outcome is then not known, is to be repeated.
        timeout: Duration = secs(10), Time(secs(1)..=minutes(5));
    }
}

section! {
    /// What nodes that share a database must agree upon.
    Cluster as "cluster" {
        /// This node's name, in health and logs; no two nodes may have the same. Without one it is the machine's name and the port.
        node_id: String = String::new(), OptionalName;
        /// How far this machine's clock may be from the database's. Past that health says so, and the node goes by the database's time: by a
        /// clock that is ahead, messages would have expired before they were read.
        max_clock_difference: Duration = secs(5), Time(millis(100)..=hours(1));
    }
}

section! {
    /// Accounts, their devices, and how they sign in.
    Accounts as "accounts" {
        /// Devices an account may have at once.
        max_devices: usize = 10, Count(1..=64);
        /// Memory of one password hash (Argon2id) in KiB. Existing passwords keep the cost they were hashed with
        /// until their account signs in.
        argon2_memory_kib: u32 = 19_456, Count(8..=4_194_304);
        /// Passes over that memory per password hash.
        argon2_iterations: u32 = 2, Count(1..=100);
        /// Password hashes computed at once. Memory for passwords is at most this times argon2_memory_kib.
        argon2_permits: usize = 2, Count(1..=256);
        /// How long a device's token is good for if it isn't rotated.
        token_lifetime: Duration = days(90), Time(minutes(1)..=days(3650));
        /// How long a socket ticket is good for; it serves once.
        ticket_lifetime: Duration = secs(30), Time(secs(1)..=minutes(10));
        /// How long a new device may take to be linked.
        link_lifetime: Duration = minutes(10), Time(minutes(1)..=hours(24));
        /// "open": anybody who reaches the node may make an account. "closed": nobody may.
        registration: Registration = Registration::Open, REGISTRATION;
    }
}

section! {
    /// The one-time keys that devices leave with the node.
    Prekeys as "prekeys" {
        /// One-time prekeys kept per device. A new device brings 100.
        max_one_time: usize = 200, Count(100..=10_000);
        /// Stock below which a device is told to bring more.
        low_water: usize = 20, Count(0..=10_000);
    }
}

section! {
    /// Conversations and their members.
    Conversations as "conversations" {
        /// Members a group may have.
        max_members_group: usize = 256, Count(2..=10_000);
        /// Members a large conversation may have: they read one log, so that a message costs the same whatever their number.
        max_members_large: usize = 10_000, Count(2..=1_000_000);
        /// Size of a conversation's encrypted title.
        max_title_bytes: usize = 1024, Bytes(0..=kib(64));
    }
}

section! {
    /// Sending: sizes, and how sends share a transaction.
    Messages as "messages" {
        /// Size of one message's encrypted content.
        max_content_bytes: usize = kib(64), Bytes(256..=mib(16));
        /// Content up to this size is stored inside each device's seal; larger content is stored once and shared.
        inline_content_bytes: usize = kib(4), Bytes(0..=mib(1));
        /// Size of one ephemeral message's content. It is copied for each device, so it is smaller; max_content_bytes holds for it too.
        max_ephemeral_bytes: usize = kib(16), Bytes(256..=mib(1));
        /// How long an ephemeral message may be on its way before it is dropped, and how long it is if its sender doesn't say.
        ephemeral_lifetime: Duration = secs(10), Time(secs(1)..=secs(60));
        /// Forks one send may carry: devices of all members together.
        max_forks_per_send: usize = 2560, Count(1..=100_000);
        /// Size of one fork header. The built-in suite uses 85 bytes; other suites may need more.
        max_header_bytes: usize = 1024, Bytes(85..=kib(64));
        /// Sends that share one transaction at most.
        commit_max_sends: usize = 500, Count(1..=10_000);
        /// Threads that commit sends to PostgreSQL, each with a connection of its own; a device's sends stay with one. The embedded
        /// database has one. More than one divides the same sends over more transactions: worth it only where PostgreSQL has cores to spare.
        commit_writers: usize = 1, Count(1..=16);
        /// How long a send may wait for others to share its transaction with.
        commit_max_delay: Duration = millis(1), Time(millis(0)..=secs(1));
        /// Sends that wait for their commit at most; further ones are refused with the code `busy`.
        send_queue: usize = 10_000, Count(1..=10_000_000);
        /// Bytes of sends that wait for their commit at most; further ones are refused with the code `busy`.
        send_queue_bytes: usize = mib(256), Bytes(mib(8)..=mib(1024 * 1024));
        /// Mailbox entries in one transaction, about: a send for more devices than that is written alone.
        commit_max_entries: usize = 20_000, Count(1..=1_000_000);
        /// How long a repeated send gets its first answer again.
        answer_retention: Duration = hours(24), Time(hours(24)..=days(30));
        /// Devices whose seal key is kept in memory (about 200 bytes each); others are set up anew when needed.
        seal_cache_devices: usize = 200_000, Count(1..=100_000_000);
    }
}

section! {
    /// What waits for devices that are away.
    Mailbox as "mailbox" {
        /// How long an entry waits for its device. After that a gap marker stands in its place.
        retention: Duration = days(30), Time(minutes(1)..=days(3650));
        /// Bytes that may wait for one device. Past it a gap marker is stored and the sender is told.
        max_bytes: u64 = 100 << 20, Bytes((1 << 20)..=(1 << 40));
        /// Entries that may wait for one device. Past it a gap marker is stored and the sender is told.
        max_entries: u64 = 100_000, Count(100..=100_000_000);
        /// How often acks are written, many in one transaction. Longer is cheaper, since entries of many devices share pages: at 200 ms
        /// a loaded SQLite node accepted a third fewer messages. A crash repeats so much to a device, which drops it.
        ack_flush_interval: Duration = secs(1), Time(millis(1)..=secs(10));
        /// How often expired entries, answers, tickets and links are cleared away.
        sweep_interval: Duration = secs(60), Time(secs(1)..=hours(24));
    }
}

section! {
    /// The logs of large conversations.
    Logs as "logs" {
        /// How long an entry can be read. After that a gap marker stands in its place.
        retention: Duration = days(30), Time(minutes(1)..=days(3650));
        /// Bytes in one page of history, of a log or of a mailbox. An entry that is larger comes alone.
        max_page_bytes: usize = mib(1), Bytes(kib(64)..=mib(64));
        /// Logs that one socket may read at once. Each costs the node less than ten bytes.
        max_per_socket: usize = 5000, Count(1..=1_000_000);
        /// How much of the newest part of a log is kept in memory while somebody reads it. Who is further behind reads from the store.
        tail_bytes: usize = mib(1), Bytes(kib(64)..=mib(256));
        /// The same of all logs together. Past it each keeps little.
        all_tails_bytes: usize = mib(256), Bytes(mib(1)..=mib(65_536));
    }
}

section! {
    /// The sockets of devices.
    Socket as "socket" {
        /// How often a silent socket is pinged.
        ping_interval: Duration = secs(30), Time(secs(1)..=hours(1));
        /// How long a device may take to answer a ping before its socket is closed.
        pong_timeout: Duration = secs(20), Time(secs(1)..=hours(1));
        /// Size of one frame, and of one message in several frames, from a device.
        max_frame_bytes: usize = mib(1), Bytes(kib(4)..=mib(64));
        /// Bytes that may wait to be written to one slow device. Past it the node reads on from the store once the device has caught
        /// up, so nothing is lost.
        outbound_budget_bytes: usize = kib(256), Bytes(kib(16)..=mib(64));
        /// Sends of one device that may be under way at once; further frames wait.
        max_in_flight_sends: usize = 64, Count(1..=10_000);
        /// How long an entry that arrives before its predecessor is held back before the gap is read from the store.
        hold_out_of_order: Duration = millis(20), Time(millis(0)..=secs(10));
        /// How often the mailboxes of connected devices are compared with the store.
        head_check_interval: Duration = secs(15), Time(millis(100)..=minutes(10));
    }
}

section! {
    /// How several nodes tell each other what was committed: through Redis, which may lose anything at any time without a message being
    /// lost. A single node needs none of this.
    Relay as "relay" {
        /// Where Redis is. With it, nodes that share a database share their devices too. Passwords are not shown by `martlet config`;
        /// better than in a file they stand in the environment (MARTLET__RELAY__REDIS_URL).
        redis_url: Option<SecretUrl> = None, RedisUrls;
        /// "single": one server. "cluster": a Redis Cluster, of which redis_url names some nodes. "sentinel": redis_url names the
        /// Sentinels, and its user and password are those of the Redis they watch.
        redis_kind: RedisKind = RedisKind::Single, REDIS_KIND;
        /// The name under which Sentinels know the server.
        redis_master: String = "mymaster".to_owned(), Name;
        /// A file with the certificates (PEM) of those whose signature on Redis's certificate is trusted, for rediss://. Without it
        /// the public authorities are.
        redis_ca_file: Option<PathBuf> = None, OptionalPath;
        /// Connections for publishing; the one for subscriptions comes on top.
        redis_connections: usize = 2, Count(1..=64);
        /// How long Redis may take to connect or to answer.
        redis_timeout: Duration = secs(2), Time(millis(50)..=minutes(1));
        /// How often a connection that only listens is tried, so that a silent end is noticed.
        redis_ping_interval: Duration = secs(3), Time(millis(50)..=minutes(1));
        /// The first pause before Redis is tried again; each next one may be twice as long, up to reconnect_max, and is drawn at random.
        reconnect_min: Duration = millis(100), Time(millis(1)..=minutes(1));
        /// The longest pause before Redis is tried again.
        reconnect_max: Duration = secs(5), Time(millis(1)..=minutes(10));
        /// Channels that are subscribed to, or no longer, in one command.
        subscribe_batch: usize = 512, Count(1..=10_000);
        /// Content up to this size travels through Redis with its entry; larger content is read from the store, once per node.
        inline_content_bytes: usize = kib(64), Bytes(0..=mib(16));
        /// Bytes that may wait to be published. Past it they are left out, and other nodes find them by the next comparison.
        publish_queue_bytes: usize = mib(64), Bytes(kib(64)..=mib(4096));
        /// Bytes of entries whose content is still to be read from the store. Past it their devices read from the store themselves.
        content_queue_bytes: usize = mib(16), Bytes(kib(64)..=mib(4096));
        /// How often the mailboxes of connected devices are compared with the store while Redis can't be reached: the longest that an
        /// entry from another node then takes. It takes the place of socket.head_check_interval, which may be longer.
        lost_head_check_interval: Duration = secs(1), Time(millis(100)..=minutes(1));
        /// What another node said longer ago than this is not believed: it may have been recorded and played again. The clocks of the
        /// nodes may be apart by no more.
        max_message_age: Duration = minutes(2), Time(secs(1)..=hours(1));
    }
}

section! {
    /// What the node says about itself.
    Log as "log" {
        /// "human": lines for people. "json": one object per line.
        format: LogFormat = LogFormat::Human, LOG_FORMAT;
        /// What is logged: a level, or levels per module like "info,martlet::transport=debug".
        filter: String = "info,actix_server=warn".to_owned(), Filter;
    }
}
