//! How a node stores an account and a large conversation: two accounts and one conversation are made through the API of a real node, its
//! store is exported, and the rows found there are the pattern for all others. What this program would have written for those two must be
//! exactly what the node wrote, or nothing is made of it: a schema that has changed is noticed here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use martlet_client::{api::Api, identity::NewAccount};
use martlet_protocol::{
    chain::members::Member,
    id::Hash,
    rest::{self, Role},
    wire,
};
use prost::Message as _;
use rand::rngs::StdRng;
use tempfile::TempDir;

use super::{
    log::Log,
    rows::{self, Row, Value},
};
use crate::{ambient, cli::NodeArgs, node::Node};

/// Tables with one row per account, and how many columns they have.
pub const OF_ACCOUNT: [(&str, usize); 6] =
    [("accounts", 7), ("device_lists", 4), ("devices", 10), ("prekeys", 7), ("mailbox_heads", 6), ("mailbox_acks", 4)];
/// Columns of those that tell one account from another and can't be reckoned from its keys: a password's salt, the moment of linking.
const VARYING: [(&str, usize); 2] = [("accounts", 3), ("devices", 8)];
/// One row per token, in the order of their hashes.
pub const TOKENS: (&str, usize) = ("tokens", 3);
/// Tables of conversations.
pub const CONVERSATIONS: (&str, usize) = ("conversations", 8);
/// See [`CONVERSATIONS`].
pub const LINKS: (&str, usize) = ("membership_links", 4);
/// See [`CONVERSATIONS`].
pub const MEMBERS: (&str, usize) = ("members", 6);
/// See [`CONVERSATIONS`].
pub const LOG_HEADS: (&str, usize) = ("log_heads", 4);
/// Tables that go into the archive as the template has them; they belong to no account.
const OF_STORE: [&str; 1] = ["store"];
/// Tables whose single row is there from the beginning and says "nothing yet".
const OF_CONTROL: [&str; 1] = ["control_heads"];

/// The pattern.
pub struct Template {
    of_account: [Row; 6],
    token: Row,
    conversation: Row,
    owner: Row,
    member: Row,
    log_head: Row,
    /// The export that the rows come from, with the store's own row, its secret and the manifest.
    pub folder: PathBuf,
    /// Removes it in the end.
    _scratch: TempDir,
}

/// An account with its token as the node gave it.
type Registered = (NewAccount, String);

impl Template {
    /// Starts a node, has it store two accounts and a conversation of both, and takes the pattern from its export.
    ///
    /// # Errors
    /// When the node or its export fails, or its rows are not as this program would have written them.
    pub fn take(node: &NodeArgs) -> Result<Self> {
        ensure!(
            node.server.is_none(),
            "--server is of no use here: a store can only be exported when its node has stopped"
        );
        let scratch = TempDir::with_prefix("martlet-load-")?;
        let folder = scratch.path().join("template");
        let (registered, log) = exported(node, &folder)?;
        let template = Self::read(folder, scratch)?;
        template.check(&registered, &log)?;
        Ok(template)
    }

    fn read(folder: PathBuf, scratch: TempDir) -> Result<Self> {
        let first = |(table, columns): (&str, usize)| {
            let rows = rows::read(&folder, table, columns)?;
            rows.into_iter().next().with_context(|| format!("table {table} of the template is empty"))
        };
        let mut of_account: [Row; 6] = Default::default();
        for (row, table) in of_account.iter_mut().zip(OF_ACCOUNT) {
            *row = first(table)?;
        }
        let members = rows::read(&folder, MEMBERS.0, MEMBERS.1)?;
        let [owner, member] = <[Row; 2]>::try_from(members).ok().context("the template's log has two members")?;
        let (token, conversation, log_head) = (first(TOKENS)?, first(CONVERSATIONS)?, first(LOG_HEADS)?);
        Ok(Self { of_account, token, conversation, owner, member, log_head, folder, _scratch: scratch })
    }

    /// The rows of an account, in the order of [`OF_ACCOUNT`]. Account and device have the same key.
    #[must_use]
    pub fn account(&self, key: u32, account: &NewAccount) -> [Row; 6] {
        filled(self.of_account.clone(), key, account)
    }

    /// The row of a token.
    #[must_use]
    pub fn token(&self, hash: &Hash, key: u32) -> Row {
        let mut row = self.token.clone();
        row[0] = Value::bytes(hash.as_bytes());
        row[1] = Value::number(key.into());
        row
    }

    /// The row of a conversation.
    #[must_use]
    pub fn conversation(&self, key: u32, log: &Log) -> Row {
        let mut row = self.conversation.clone();
        row[0] = Value::number(key.into());
        row[1] = Value::bytes(log.id().as_bytes());
        row[3] = Value::number(log.links.len() as u64);
        row[4] = Value::bytes(log.head().as_bytes());
        row
    }

    /// The rows of its links.
    #[must_use]
    pub fn links(key: u32, log: &Log) -> Vec<Row> {
        let row = |(signed, m): (&rest::SignedMembershipLink, u64)| {
            let (link, signature) = (Value::bytes(&signed.link.0), Value::bytes(signed.signature.as_bytes()));
            vec![Value::number(key.into()), Value::number(m), link, signature]
        };
        log.links.iter().zip(1..).map(row).collect()
    }

    /// The row of a member, added by the given link.
    #[must_use]
    pub fn member(&self, conversation_key: u32, account_key: u32, member: &Member, joined_m: u64) -> Row {
        let mut row = if member.role == Role::Owner { self.owner.clone() } else { self.member.clone() };
        row[0] = Value::number(conversation_key.into());
        row[1] = Value::number(account_key.into());
        row[2] = Value::bytes(member.fingerprint.as_bytes());
        row[4] = Value::number(joined_m);
        row
    }

    /// The row of a log to which nothing was written.
    #[must_use]
    pub fn log_head(&self, key: u32) -> Row {
        let mut row = self.log_head.clone();
        row[0] = Value::number(key.into());
        row
    }

    /// Whether what this program writes is what the node wrote.
    fn check(&self, registered: &[Registered; 2], log: &Log) -> Result<()> {
        let same = |(table, columns): (&str, usize), own: &[Row]| {
            let is_same = rows::read(&self.folder, table, columns)? == own;
            ensure!(is_same, "the node writes table {table} in another way than this program knows");
            anyhow::Ok(())
        };
        for (at, table) in OF_ACCOUNT.into_iter().enumerate() {
            let stored = rows::read(&self.folder, table.0, table.1)?;
            let own = (1..).zip(registered).map(|(key, (account, _))| {
                let mut row = self.account(key, account)[at].clone();
                for (_, column) in VARYING.iter().filter(|(name, _)| *name == table.0) {
                    row[*column] = stored.get(key as usize - 1).map_or(Value::Null, |stored| stored[*column].clone());
                }
                row
            });
            same(table, &own.collect::<Vec<_>>())?;
        }
        for row in rows::read(&self.folder, TOKENS.0, TOKENS.1)? {
            let hashes = registered.each_ref().map(|(_, token)| Hash::of(token.as_bytes()));
            let owner = hashes.iter().position(|hash| row[0] == Value::bytes(hash.as_bytes()));
            ensure!(
                owner.is_some_and(|at| row[1] == Value::number(at as u64 + 1)),
                "the node hashes tokens in another way"
            );
        }
        same(CONVERSATIONS, &[self.conversation(1, log)])?;
        same(LINKS, &Self::links(1, log))?;
        let members = (1..).zip(&log.members).map(|(key, member)| self.member(1, key, member, 1));
        same(MEMBERS, &members.collect::<Vec<_>>())?;
        same(LOG_HEADS, &[self.log_head(1)])
    }

    /// Whether a table goes into the archive as it is; what is not known must be empty.
    ///
    /// # Errors
    /// For a table with rows that this program does not know.
    pub fn is_kept(table: &str, rows: u64) -> Result<bool> {
        let known = [TOKENS, CONVERSATIONS, LINKS, MEMBERS, LOG_HEADS];
        if OF_ACCOUNT.iter().chain(&known).any(|(name, _)| *name == table) {
            return Ok(false);
        }
        if rows > 0 && !OF_STORE.contains(&table) && !OF_CONTROL.contains(&table) {
            bail!("the node has written to table {table}, which this program does not know");
        }
        Ok(true)
    }
}

/// An account's own values in rows of another.
fn filled(rows: [Row; 6], key: u32, account: &NewAccount) -> [Row; 6] {
    let [mut accounts, mut lists, mut devices, mut prekeys, mut heads, mut acks] = rows;
    let fingerprint = Value::bytes(account.chain.fingerprint().as_bytes());
    let key = Value::number(key.into());
    accounts[0] = key.clone();
    accounts[1] = Value::bytes(account.keys.account_id.as_bytes());
    accounts[2] = Value::Text(account.request.username.clone());
    accounts[4] = fingerprint.clone();
    accounts[6] = fingerprint;
    let mut signatures = wire::SignedDeviceList::from(&account.list);
    let list = std::mem::take(&mut signatures.list);
    lists[0] = key.clone();
    lists[2] = Value::bytes(list);
    lists[3] = Value::Bytes(signatures.encode_to_vec());
    devices[0] = key.clone();
    devices[1] = Value::bytes(account.keys.device_id.as_bytes());
    devices[2] = key.clone();
    devices[5] = Value::bytes(account.keys.signing.public().as_bytes());
    devices[6] = Value::bytes(account.keys.mailbox.public().as_bytes());
    if let Some(prekey) = &account.request.prekeys.signed_prekey {
        devices[9] = Value::number(prekey.not_after_ms);
        prekeys[2] = Value::number(prekey.key_id.into());
        prekeys[3] = Value::bytes(prekey.public_key.as_bytes());
        prekeys[4] = Value::number(prekey.not_after_ms);
        prekeys[5] = Value::Bytes(wire::SignedPrekey::from(prekey).encode_to_vec());
    }
    prekeys[0] = key.clone();
    heads[0] = key.clone();
    acks[0] = key;
    [accounts, lists, devices, prekeys, heads, acks]
}

/// A new account of one device with a signed prekey and no one-time ones.
///
/// # Errors
/// Only if drawn keys are weak, which does not happen.
pub fn new_account(username: &str, now_ms: u64, rng: &mut StdRng) -> Result<NewAccount> {
    let label = rest::DeviceLabel { name: "load".to_owned(), platform: "load".to_owned() };
    // Passwords are not what is measured, and the accounts guard nothing.
    Ok(NewAccount::generate(username, "a password for load", label, 0, now_ms, rng)?)
}

/// Two accounts and a log of both on a node of its own, and that node's export in `folder`.
fn exported(args: &NodeArgs, folder: &Path) -> Result<([Registered; 2], Log)> {
    let mut node = Node::start(args)?;
    let pid = node.pid().context("the node has no process")?;
    let program = fs::read_link(format!("/proc/{pid}/exe")).context("the node's program can't be found")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let made = runtime.block_on(register(&Api::new(node.url())?))?;
    // What it has answered is in its store; an orderly end would remove that too.
    node.kill()?;
    let mut export = Command::new(program);
    export.arg("export").arg(folder).arg("--data-dir").arg(node.folder().join("data"));
    let output = export.output().context("martlet export can't be started")?;
    ensure!(output.status.success(), "martlet export failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(made)
}

async fn register(api: &Api) -> Result<([Registered; 2], Log)> {
    let mut rng = ambient::system_rng();
    let mut registered = Vec::with_capacity(2);
    for name in ["template-1", "template-2"] {
        let account = new_account(name, ambient::unix_ms(), &mut rng)?;
        let token = api.register(&account.request).await?.token;
        registered.push((account, token));
    }
    let Ok(registered) = <[Registered; 2]>::try_from(registered) else { bail!("two accounts were registered") };
    let [(owner, token), (other, _)] = &registered;
    let log = Log::make(owner, [Log::plain(other)], ambient::unix_ms(), &mut rng)?;
    let creation = rest::CreateConversation { creation: log.links[0].clone(), title: None };
    api.with_token(token).create_conversation(&creation).await?;
    Ok((registered, log))
}
