//! Who a conversation's messages go to: its members and their devices, cached. Of a large conversation only who may send to it, for its
//! members read for themselves.
//!
//! The caches may be stale: a control entry drops what it made untrue, and the commit compares membership and list numbers with the
//! rows it locks. So staleness costs a sender a mismatch answer, never a wrong recipient. An ephemeral message has no commit: for it the
//! caches are as old as the control stream, and what was read while that brought something is not kept.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use martlet_protocol::{
    id::{AccountId, ConversationId, DeviceId, Hash, PublicKey},
    wire,
};
use martlet_storage::{AccountKey, Conn, ConversationKey, Db, DeviceKey, StorageError, db};
use prost::Message as _;
use quick_cache::sync::Cache;
use tokio::time::{self, Instant};

use super::{RETRY_PAUSE, SendError};
use crate::accounts::DeviceIdentity;

/// Conversations and accounts kept, each. An account of three devices takes about 600 bytes.
const CACHED: usize = 100_000;

/// Everybody a message goes to.
pub struct Audience {
    pub conversation: Arc<ConversationView>,
    pub accounts: Vec<Arc<AccountView>>,
}

/// A conversation's members at one membership link.
pub struct ConversationView {
    pub key: ConversationKey,
    pub m: u64,
    pub members: Vec<(AccountKey, AccountId)>,
}

/// A large conversation at one membership link.
#[derive(Clone, Copy)]
pub struct LogView {
    pub key: ConversationKey,
    pub m: u64,
}

/// What is known of a conversation.
#[derive(Clone)]
enum Known {
    Forked(Arc<ConversationView>),
    Log(LogView),
}

/// An account's devices at one list.
pub struct AccountView {
    pub account_key: AccountKey,
    pub account_id: AccountId,
    pub n: u64,
    pub hash: Hash,
    /// Suites that every served device lists.
    pub suites: Vec<u32>,
    /// Active and suspended ones.
    pub devices: Vec<DeviceView>,
    /// When a device of it that was awake at the reading falls dormant unless it renewed its signed prekey since. One that was dormant and
    /// comes back is told of by a control entry.
    pub reread_at_ms: u64,
}

/// One device as the fork needs it.
pub struct DeviceView {
    pub device_key: DeviceKey,
    pub device_id: DeviceId,
    pub mailbox_key: PublicKey,
    pub state: DeviceState,
    pub prekey_not_after_ms: u64,
}

/// Whether a listed device is served.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum DeviceState {
    Active,
    /// By the operator: listed, not served.
    Suspended,
}

/// The caches. Cheap to clone.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

struct Inner {
    db: Db,
    /// How long a store that is away is waited for.
    give_up_after: Duration,
    conversations: Cache<ConversationId, Known>,
    /// The link at which an account was seen to be a member of a large conversation: at a later one it is looked up again.
    log_members: Cache<(ConversationKey, AccountKey), u64>,
    accounts: Cache<AccountId, Arc<AccountView>>,
    /// Control entries heard of. What was read before one and cached after it would stay, untrue.
    changes: AtomicU64,
}

impl Directory {
    pub fn new(db: Db, give_up_after: Duration) -> Self {
        Self(Arc::new(Inner {
            db,
            give_up_after,
            conversations: Cache::new(CACHED),
            log_members: Cache::new(CACHED),
            accounts: Cache::new(CACHED),
            changes: AtomicU64::new(0),
        }))
    }

    /// Everybody that a message of this sender goes to, from the caches where they have it.
    ///
    /// # Errors
    /// `NotFound` if the conversation is missing or the sender's account is no member; `Unauthenticated` if the sending device is
    /// not served any more.
    pub async fn audience(
        &self,
        sender: &DeviceIdentity,
        id: &ConversationId,
        now_ms: u64,
    ) -> Result<Audience, SendError> {
        let Known::Forked(conversation) = self.known(sender, id).await? else {
            return Err(SendError::Malformed("a large conversation takes no ephemeral messages"));
        };
        if !conversation.members.iter().any(|(key, _)| *key == sender.account_key) {
            return Err(SendError::NotFound);
        }
        let mut accounts = Vec::with_capacity(conversation.members.len());
        for (key, id) in &conversation.members {
            let cached = self.0.accounts.get(id).filter(|view| now_ms < view.reread_at_ms);
            accounts.push(match cached {
                Some(view) => view,
                None => self.load_account(*key, *id, now_ms).await?,
            });
        }
        let audience = Audience { conversation, accounts };
        if audience.serves(sender) { Ok(audience) } else { Err(SendError::Unauthenticated) }
    }

    /// The log that a message of this sender goes to; `None` if the conversation has none, and is one of mailboxes.
    ///
    /// # Errors
    /// As [`Self::audience`].
    pub async fn log(
        &self,
        sender: &DeviceIdentity,
        id: &ConversationId,
        now_ms: u64,
    ) -> Result<Option<LogView>, SendError> {
        let Known::Log(mut log) = self.known(sender, id).await? else { return Ok(None) };
        if self.0.log_members.get(&(log.key, sender.account_key)) != Some(log.m) {
            // The conversation was loaded for somebody else.
            let Some(Known::Log(now)) = self.load_conversation(sender, id).await? else {
                return Err(SendError::NotFound);
            };
            log = now;
        }
        let cached = self.0.accounts.get(&sender.account_id).filter(|view| now_ms < view.reread_at_ms);
        let account = match cached {
            Some(view) => view,
            None => self.load_account(sender.account_key, sender.account_id, now_ms).await?,
        };
        if account.serves(sender) { Ok(Some(log)) } else { Err(SendError::Unauthenticated) }
    }

    /// The same, from the store.
    ///
    /// # Errors
    /// As [`Self::audience`].
    pub async fn fresh_log(
        &self,
        sender: &DeviceIdentity,
        id: &ConversationId,
        now_ms: u64,
    ) -> Result<Option<LogView>, SendError> {
        self.0.conversations.remove(id);
        self.0.accounts.remove(&sender.account_id);
        self.log(sender, id, now_ms).await
    }

    async fn known(&self, asker: &DeviceIdentity, id: &ConversationId) -> Result<Known, SendError> {
        match self.0.conversations.get(id) {
            Some(known) => Ok(known),
            None => self.load_conversation(asker, id).await?.ok_or(SendError::NotFound),
        }
    }

    /// The same, from the store.
    ///
    /// # Errors
    /// As [`Self::audience`].
    pub async fn fresh_audience(
        &self,
        sender: &DeviceIdentity,
        id: &ConversationId,
        now_ms: u64,
    ) -> Result<Audience, SendError> {
        if let Some((_, Known::Forked(view))) = self.0.conversations.remove(id) {
            for (_, account_id) in &view.members {
                self.0.accounts.remove(account_id);
            }
        }
        if let Some(Known::Forked(view)) = self.load_conversation(sender, id).await? {
            for (_, account_id) in &view.members {
                self.0.accounts.remove(account_id);
            }
        }
        self.audience(sender, id, now_ms).await
    }

    /// Drops what a control entry made untrue.
    pub fn on_control(&self, entry: &wire::ControlEntry) {
        // Counted first: who caches after that sees that it must not, and who cached before is dropped below.
        self.0.changes.fetch_add(1, Ordering::SeqCst);
        match &entry.event {
            // Also written when a dormant device of the account has brought a signed prekey: `reread_at_ms` knows nothing of that.
            Some(wire::control_entry::Event::AccountListChanged(changed)) => {
                if let Ok(id) = AccountId::try_from(changed.account_id.as_ref()) {
                    self.0.accounts.remove(&id);
                }
            }
            Some(wire::control_entry::Event::MembershipChanged(changed)) => {
                if let Ok(id) = ConversationId::try_from(changed.conversation_id.as_ref()) {
                    self.0.conversations.remove(&id);
                }
            }
            // A device that ended is followed by its account's list or by a status that the next load reads.
            _ => {}
        }
    }

    /// Drops everything: control entries were missed.
    pub fn forget_all(&self) {
        self.0.changes.fetch_add(1, Ordering::SeqCst);
        self.0.conversations.clear();
        self.0.log_members.clear();
        self.0.accounts.clear();
    }

    async fn load_conversation(
        &self,
        asker: &DeviceIdentity,
        id: &ConversationId,
    ) -> Result<Option<Known>, StorageError> {
        let (wanted, asker) = (*id, asker.account_key);
        let before = self.changes();
        let known = self.read(move |conn| read_conversation(conn, &wanted, asker)).await?;
        if let Some(known) = &known {
            if let Known::Log(log) = known {
                self.0.log_members.insert((log.key, asker), log.m);
            }
            self.0.conversations.insert(*id, known.clone());
            if self.changes() != before {
                self.0.conversations.remove(id);
            }
        }
        Ok(known)
    }

    async fn load_account(
        &self,
        key: AccountKey,
        id: AccountId,
        now_ms: u64,
    ) -> Result<Arc<AccountView>, StorageError> {
        let before = self.changes();
        let view = Arc::new(self.read(move |conn| read_account(conn, key, id, now_ms)).await?);
        self.0.accounts.insert(id, view.clone());
        if self.changes() != before {
            self.0.accounts.remove(&id);
        }
        Ok(view)
    }

    /// A store that is away gets some time to come back, as it gets from the commit. A send that was refused here would stand behind those
    /// after it on its socket, if they found the store again and its sender never heard of the refusal.
    async fn read<T: Send + 'static>(
        &self,
        run: impl Fn(&mut Conn) -> Result<T, StorageError> + Copy + Send + 'static,
    ) -> Result<T, StorageError> {
        let began = Instant::now();
        loop {
            let error = match self.0.db.read(run).await {
                Err(error) if error.may_pass() => error,
                outcome => return outcome,
            };
            if began.elapsed() >= self.0.give_up_after {
                return Err(error);
            }
            time::sleep(RETRY_PAUSE).await;
        }
    }

    fn changes(&self) -> u64 {
        self.0.changes.load(Ordering::SeqCst)
    }
}

impl Audience {
    /// Whether every served device lists the suite.
    pub fn speaks(&self, suite: u32) -> bool {
        self.accounts.iter().all(|account| account.suites.contains(&suite))
    }

    fn serves(&self, sender: &DeviceIdentity) -> bool {
        self.accounts.iter().any(|account| account.account_key == sender.account_key && account.serves(sender))
    }
}

impl AccountView {
    fn serves(&self, sender: &DeviceIdentity) -> bool {
        self.devices.iter().any(|d| d.device_key == sender.device_key && d.state == DeviceState::Active)
    }
}

fn read_conversation(conn: &mut Conn, id: &ConversationId, asker: AccountKey) -> Result<Option<Known>, StorageError> {
    let Some(row) = db::conversations::by_id_for_member(conn, id, asker)? else { return Ok(None) };
    let (key, m) = (row.conversation_key, row.m);
    if row.kind == wire::ConversationKind::Large {
        return Ok(Some(Known::Log(LogView { key, m })));
    }
    let members = db::conversations::members(conn, key)?;
    let members = members.into_iter().map(|member| (member.account_key, member.account_id)).collect();
    Ok(Some(Known::Forked(Arc::new(ConversationView { key, m, members }))))
}

fn read_account(conn: &mut Conn, key: AccountKey, id: AccountId, now_ms: u64) -> Result<AccountView, StorageError> {
    let account = db::accounts::by_id(conn, &id)?.ok_or(StorageError::Inconsistent("a member without an account"))?;
    let head = db::accounts::lists_after(conn, key, account.list_n - 1)?.pop();
    let head = head.ok_or(StorageError::Inconsistent("an account without its list head"))?;
    let list =
        wire::DeviceList::decode(head.list.0).map_err(|_| StorageError::Inconsistent("a stored list is unreadable"))?;
    let devices: Vec<_> = db::devices::by_account(conn, key)?.into_iter().filter_map(view).collect();
    Ok(AccountView {
        account_key: key,
        account_id: id,
        n: account.list_n,
        hash: account.list_hash,
        suites: common_suites(&list, &devices),
        reread_at_ms: devices
            .iter()
            .map(|d| d.prekey_not_after_ms)
            .filter(|end| *end > now_ms)
            .min()
            .unwrap_or(u64::MAX),
        devices,
    })
}

/// `None` for revoked ones.
fn view(row: db::devices::DeviceRow) -> Option<DeviceView> {
    let state = match row.status {
        db::devices::DeviceStatus::Active => DeviceState::Active,
        db::devices::DeviceStatus::Suspended => DeviceState::Suspended,
        db::devices::DeviceStatus::Revoked => return None,
    };
    Some(DeviceView {
        device_key: row.device_key,
        device_id: row.device_id,
        mailbox_key: row.mailbox_key,
        state,
        prekey_not_after_ms: row.prekey_not_after_ms,
    })
}

fn common_suites(list: &wire::DeviceList, devices: &[DeviceView]) -> Vec<u32> {
    let served = |listed: &&wire::ListedDevice| {
        let id = listed.device_id.as_ref();
        devices.iter().any(|d| d.state == DeviceState::Active && d.device_id.as_bytes().as_slice() == id)
    };
    let mut listed = list.devices.iter().filter(served);
    let Some(first) = listed.next() else { return Vec::new() };
    let mut common = first.suites.clone();
    for device in listed {
        common.retain(|suite| device.suites.contains(suite));
    }
    common
}
