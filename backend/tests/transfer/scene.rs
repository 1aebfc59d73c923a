//! An embedded deployment that has seen everything, stopped, and a database that it may move to.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use diesel::{Connection as _, SqliteConnection, connection::SimpleConnection as _};
use martlet::{
    clock::Clock,
    config::{Config, Durability},
    transfer::{self, Import, Moved, Progress, TransferError},
};
use martlet_protocol::{
    chain::members::MembershipChain,
    id::ConversationId,
    rest::{Accepted, ChangeMembership, RevokeRequest, Role, SendRequest, SocketTicket},
    wire::node_frame::Frame,
};
use martlet_servers::Database;
use martlet_storage::DatabaseUrl;
use tempfile::TempDir;

use crate::{
    client::{Client, PROTO},
    harness::{TestDevice, TestNode},
    world::World,
};

/// Entries that no client knows of: more than one page of them.
pub const UNTOLD: usize = 600;
/// Messages whose content lies beside the seal: more than one page of contents.
pub const LARGE: usize = 10;
/// Up to here Bob has acknowledged.
pub const ACKED: u64 = 3;
/// Bob's last `seq`: one message with an answer, the large ones, the untold ones, a gap of two.
pub const HEAD: u64 = 1 + LARGE as u64 + UNTOLD as u64 + 2;

/// See the module.
pub struct Scene {
    pub alice: TestDevice,
    pub bob: TestDevice,
    pub conversation: ConversationId,
    /// A send of Alice's, and its first answer.
    pub sent: (SendRequest, Accepted),
    /// Of Bob's mailbox.
    pub epoch: u64,
    pub data: TempDir,
    pub folder: TempDir,
    pub database: Database,
}

impl Scene {
    pub async fn new() -> Self {
        let mut world = World::new().await;
        let gone = world.bob.link(&world.node).await;
        let device_list = world.bob.list_without(&[gone.device_id], world.node.now_ms());
        let revoke = RevokeRequest { device_list: device_list.clone() };
        let answer = world.node.post("/v1/devices/revoke", &world.bob.token, &revoke).await;
        assert!(answer.status.is_success(), "{}", answer.body);
        world.bob.chain = world.bob.chain.extend(&device_list).expect("a sound list");
        world.alice.answer_link(&world.node).await;
        let _: SocketTicket = world.node.post("/v1/socket-tickets", &world.alice.token, &()).await.ok(201);

        let message = world.alice.message(1, &[&world.bob]);
        let path = TestDevice::messages_path(&world.conversation);
        let accepted: Accepted = world.node.post(&path, &world.alice.token, &message).await.ok(200);
        let (mut alice, _) = Client::connect(&world.node, &world.alice, PROTO).await;
        world.send_many(&mut alice, LARGE, 20_000).await;
        let (mut bob, hello) = Client::connect(&world.node, &world.bob, PROTO).await;
        let epoch = hello.mailbox.expect("a mailbox").epoch;
        bob.resume(&hello, None).await;
        bob.until_caught_up().await;
        bob.ack(epoch, ACKED).await;
        for _ in 0..1000 {
            if world.node.count("mailbox_acks", &format!("acked_seq = {ACKED}")) == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let create = world.alice.large_with(&world.node, &[world.bob.member(Role::Member)]);
        let large = world.alice.create(&world.node, &create).await.conversation_id;
        for content in [b"one for all", b"another one"] {
            let message = TestDevice::log_message(content);
            let path = TestDevice::messages_path(&large);
            let _: Accepted = world.node.post(&path, &world.alice.token, &message).await.ok(200);
        }
        // Bob is removed, and may still fetch what there was.
        let chain = MembershipChain::create(&create.creation, |signer| world.alice.chain.signer_key(signer));
        let chain = chain.expect("a sound link");
        let removal = chain.removal(&world.bob.account_id).expect("a member");
        let link = chain.change(world.alice.signer(), vec![removal], world.node.now_ms()).sign(&world.alice.signing);
        let path = format!("/v1/conversations/{}/membership", large.to_text());
        world.node.post(&path, &world.alice.token, &ChangeMembership { link }).await.done();
        drop((alice, bob));
        world.commit_unpublished(UNTOLD);
        let World { node, alice, bob, conversation } = world;
        let data = moved_away(node.stop_keeping_data().await.folder());
        let scene = Self {
            alice,
            bob,
            conversation,
            sent: (message, accepted),
            epoch,
            data,
            folder: tempfile::tempdir().expect("a folder"),
            database: Database::create().expect("a database"),
        };
        scene.add_a_gap();
        scene
    }

    /// As a full mailbox leaves it, at the end of Bob's mailbox.
    fn add_a_gap(&self) {
        let path = self.data.path().join("martlet.db");
        let mut conn = SqliteConnection::establish(path.to_str().expect("UTF-8")).expect("the store");
        let id: String = self.bob.device_id.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        conn.batch_execute(&format!(
            "UPDATE mailbox_heads SET head_seq = head_seq + 2
                 WHERE device_key = (SELECT device_key FROM devices WHERE device_id = X'{id}');
             INSERT INTO mailbox_gaps (device_key, from_seq, to_seq, count, reason)
                 SELECT device_key, head_seq - 1, head_seq, 2, 2 FROM mailbox_heads
                 WHERE device_key = (SELECT device_key FROM devices WHERE device_id = X'{id}')"
        ))
        .expect("a gap");
    }

    /// Of the embedded deployment.
    pub fn old(&self) -> Config {
        let mut config = Config::default();
        config.storage.data_dir = self.data.path().to_owned();
        config.storage.wait = Duration::from_millis(200);
        config
    }

    /// Of a node of the cluster.
    pub fn new_config(&self) -> Config {
        let mut config = Config::default();
        config.storage.data_dir = self.folder.path().join("new-data");
        self.onto_database(&mut config);
        config
    }

    /// Of a new embedded deployment.
    pub fn new_embedded(&self) -> Config {
        let mut config = Config::default();
        config.storage.data_dir = self.folder.path().join("new-embedded");
        config
    }

    fn onto_database(&self, config: &mut Config) {
        let url = self.database.url().expect("a server");
        config.storage.database_url = Some(DatabaseUrl::new(&url).expect("an address"));
        config.storage.secret_file = Some(self.folder.path().join("new-data/node.secret"));
        // The tests' server is not durable.
        config.storage.durability = Durability::Normal;
    }

    /// Where the export goes.
    pub fn exported(&self) -> PathBuf {
        self.folder.path().join("export")
    }

    pub fn export(&self) -> Result<Moved, TransferError> {
        transfer::export(&self.old(), &self.exported(), true, &Clock::System, &Progress::hidden())
    }

    pub fn import(&self, max_pages: u64) -> Result<Moved, TransferError> {
        self.import_into(&self.new_config(), max_pages)
    }

    pub fn import_into(&self, config: &Config, max_pages: u64) -> Result<Moved, TransferError> {
        let (folder, progress) = (self.exported(), Progress::hidden());
        transfer::import(&Import { config, folder: &folder, clock: &Clock::System, progress: &progress, max_pages })
    }

    /// A node of the cluster.
    pub async fn node(&self) -> TestNode {
        TestNode::start_at(Clock::System, |config| self.onto_database(config)).await
    }

    /// What a file of the export holds.
    pub fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.exported().join(name)).expect("a file of the export")
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.exported().join(name), bytes).expect("written");
    }

    pub fn has_tables(&self) -> bool {
        self.database.query("SELECT to_regclass('accounts') IS NOT NULL").expect("an answer") == "t"
    }
}

/// A copy of what a stopped node leaves. In a process of its own the node would be gone; here its connections outlive it, and a store that
/// somebody has open is not exported.
fn moved_away(data: &Path) -> TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    for file in ["martlet.db", "node.secret"] {
        fs::copy(data.join(file), copy.path().join(file)).expect("left behind");
    }
    let log = fs::metadata(data.join("martlet.db-wal")).map_or(0, |log| log.len());
    assert_eq!(log, 0, "a clean stop leaves everything in one file");
    copy
}

/// What Bob gets, in short: numbers of entries, and where a gap is.
pub fn seqs(frames: &[Frame]) -> (Vec<u64>, Vec<(u64, u64)>) {
    let (mut entries, mut gaps) = (Vec::new(), Vec::new());
    for frame in frames {
        match frame {
            Frame::Entry(entry) => entries.push(entry.seq),
            Frame::Gap(gap) => gaps.push((gap.from_seq, gap.to_seq)),
            Frame::Hello(_) => {}
            other => panic!("{other:?}"),
        }
    }
    (entries, gaps)
}
