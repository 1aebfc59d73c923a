//! Who asks: device tokens and socket tickets. Both are random, stored as SHA-256, and shown once.
//!
//! A token that was rotated keeps working until its successor was first used, and at most five minutes, so that an answer that got lost
//! locks nobody out. Found tokens are cached; the control stream says what to forget. A ticket is a browser's way onto the socket: it
//! can't set a header there.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use martlet_protocol::{
    id::{AccountId, DeviceId, Hash, to_base64},
    rest::{DeviceSession, SocketTicket},
    wire::{ControlEntry, control_entry::Event},
};
use martlet_storage::{Conn, DeviceKey, StorageError, tickets, tokens};
use quick_cache::sync::Cache;
use rand::CryptoRng;

use super::{AccountError, Accounts, DeviceIdentity, Inner};

const TOKEN_PREFIX: &str = "mt_";
const TICKET_PREFIX: &str = "mtk_";
const SECRET_LEN: usize = 32;
/// How long a rotated token serves if its successor is not used.
const OLD_TOKEN_LIFE: Duration = Duration::from_secs(5 * 60);
/// Tokens kept in memory, about 150 bytes each. Others are read from the store again.
const CACHED_TOKENS: usize = 200_000;
/// Rotations remembered. A forgotten one only means that the old token serves its five minutes to the end.
const REMEMBERED_ROTATIONS: usize = 10_000;

/// A token or ticket as it is shown, once, and what is stored of it. No `Debug`.
pub(super) struct Secret {
    pub(super) text: String,
    pub(super) hash: Hash,
}

impl Secret {
    pub(super) fn token(rng: &mut impl CryptoRng) -> Self {
        Self::draw(TOKEN_PREFIX, rng)
    }

    pub(super) fn draw(prefix: &str, rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0; SECRET_LEN];
        rng.fill_bytes(&mut bytes);
        let text = format!("{prefix}{}", to_base64(&bytes));
        Self { hash: Hash::of(text.as_bytes()), text }
    }
}

/// Rotations that await their successor's first use. Only a memory of this node: the store bounds the old token's life anyway.
struct Rotations {
    successor: Cache<Hash, Hash>,
    predecessor: Cache<Hash, Hash>,
}

/// Tokens that were found lately.
pub(super) struct Tokens {
    cache: Cache<Hash, (DeviceIdentity, u64)>,
    rotations: Rotations,
    /// Counts what was forgotten, so that a token read before and cached after is noticed.
    forgotten: AtomicU64,
}

impl Tokens {
    pub(super) fn new() -> Self {
        Self {
            cache: Cache::new(CACHED_TOKENS),
            rotations: Rotations {
                successor: Cache::new(REMEMBERED_ROTATIONS),
                predecessor: Cache::new(REMEMBERED_ROTATIONS),
            },
            forgotten: AtomicU64::new(0),
        }
    }

    pub(super) fn on_control(&self, entry: &ControlEntry) {
        match &entry.event {
            Some(Event::DeviceEnded(ended)) => match DeviceId::try_from(ended.device_id.as_ref()) {
                Ok(device_id) => self.forget(|identity| identity.device_id == device_id),
                Err(_) => self.forget_all(),
            },
            Some(Event::TokenEnded(ended)) => match Hash::try_from(ended.token_hash.as_ref()) {
                Ok(hash) => self.forget_one(&hash),
                Err(_) => self.forget_all(),
            },
            // The tokens themselves have entries of their own.
            Some(Event::AccountListChanged(_) | Event::MembershipChanged(_) | Event::SignedOut(_)) | None => {}
        }
    }

    pub(super) fn forget_all(&self) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.cache.clear();
    }

    fn forget_one(&self, hash: &Hash) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.cache.remove(hash);
    }

    /// Forgets the tokens of devices that ended.
    pub(super) fn forget_devices(&self, device_keys: &[DeviceKey]) {
        if !device_keys.is_empty() {
            self.forget(|identity| device_keys.contains(&identity.device_key));
        }
    }

    fn forget(&self, ended: impl Fn(&DeviceIdentity) -> bool) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.cache.retain(|_, (identity, _)| !ended(identity));
    }

    fn cached(&self, hash: &Hash, now_ms: u64) -> Option<DeviceIdentity> {
        self.cache.get(hash).filter(|(_, expires_at_ms)| *expires_at_ms > now_ms).map(|(identity, _)| identity)
    }

    /// Caches what was read after `forgotten` stood at that value. Whoever forgets counts first and removes second; this inserts first
    /// and looks at the count second: so one of the two removes what must not stay.
    fn remember(&self, hash: Hash, identity: DeviceIdentity, expires_at_ms: u64, forgotten: u64) {
        self.cache.insert(hash, (identity, expires_at_ms));
        if self.forgotten.load(Ordering::SeqCst) != forgotten {
            self.cache.remove(&hash);
        }
    }
}

impl Accounts {
    /// Whose token it is.
    ///
    /// # Errors
    /// [`AccountError::Unauthenticated`] if it is unknown, expired or ended.
    pub async fn authenticate(&self, token: &str) -> Result<DeviceIdentity, AccountError> {
        let inner = &*self.0;
        let hash = presented(token, TOKEN_PREFIX).ok_or(AccountError::Unauthenticated)?;
        let now_ms = inner.clock.now_ms();
        // What is cached is worth something only while this node follows the control stream, which says what has ended.
        if inner.streams.may_push()
            && let Some(identity) = inner.tokens.cached(&hash, now_ms)
        {
            return Ok(identity);
        }
        let forgotten = inner.tokens.forgotten.load(Ordering::SeqCst);
        let row = inner.db.read(move |conn| tokens::by_hash(conn, &hash)).await.map_err(AccountError::Storage)?;
        let row = row.filter(|row| row.expires_at_ms > now_ms).ok_or(AccountError::Unauthenticated)?;
        let identity = DeviceIdentity::from(&row);
        inner.end_predecessor(&hash).await?;
        inner.tokens.remember(hash, identity, row.expires_at_ms, forgotten);
        Ok(identity)
    }

    /// A new token in place of the presented one, which serves on until the new one is first used, and at most five minutes.
    ///
    /// # Errors
    /// [`AccountError::Unauthenticated`] if the presented one ended meanwhile.
    pub async fn rotate_token(&self, identity: &DeviceIdentity, token: &str) -> Result<DeviceSession, AccountError> {
        let inner = &*self.0;
        let old = presented(token, TOKEN_PREFIX).ok_or(AccountError::Unauthenticated)?;
        let new = Secret::token(&mut crate::clock::rng());
        let session = inner.session(identity.account_id, identity.device_id, &new);
        let now_ms = inner.clock.now_ms();
        let rotation = tokens::Rotation {
            old,
            old_expires_at_ms: now_ms + millis(OLD_TOKEN_LIFE),
            new: new.hash,
            new_expires_at_ms: session.token_expires_at_ms,
            now_s: now_ms / 1000,
        };
        // Rotated before and asked again: that answer was lost, so nobody holds its token.
        let unused = inner.tokens.rotations.successor.get(&old);
        let rotated = inner
            .db
            .write(move |conn| {
                if let Some(unused) = &unused {
                    tokens::delete(conn, unused, rotation.now_s)?;
                }
                tokens::rotate(conn, &rotation)
            })
            .await
            .map_err(AccountError::Storage)?;
        if !rotated {
            return Err(AccountError::Unauthenticated);
        }
        inner.tokens.rotations.successor.insert(old, new.hash);
        inner.tokens.rotations.predecessor.insert(new.hash, old);
        inner.tokens.forget_one(&old);
        inner.streams.control_changed();
        Ok(session)
    }

    /// Ends the presented token, and the device's socket on whichever node it is.
    ///
    /// # Errors
    /// [`AccountError::Storage`].
    pub async fn sign_out(&self, identity: &DeviceIdentity, token: &str) -> Result<(), AccountError> {
        let inner = &*self.0;
        let hash = presented(token, TOKEN_PREFIX).ok_or(AccountError::Unauthenticated)?;
        let (device_id, now_s) = (identity.device_id, inner.clock.now_s());
        let ended = inner.db.write(move |conn| tokens::sign_out(conn, &hash, &device_id, now_s)).await;
        ended.map_err(AccountError::Storage)?;
        inner.tokens.forget_one(&hash);
        inner.streams.control_changed();
        Ok(())
    }

    /// A ticket for the device's next socket.
    ///
    /// # Errors
    /// [`AccountError::Storage`].
    pub async fn issue_ticket(&self, identity: &DeviceIdentity) -> Result<SocketTicket, AccountError> {
        let inner = &*self.0;
        let ticket = Secret::draw(TICKET_PREFIX, &mut crate::clock::rng());
        let expires_at_ms = inner.clock.now_ms() + millis(inner.config.accounts.ticket_lifetime);
        let (hash, device_key) = (ticket.hash, identity.device_key);
        inner
            .db
            .write(move |conn| tickets::insert(conn, &hash, device_key, expires_at_ms))
            .await
            .map_err(AccountError::Storage)?;
        Ok(SocketTicket { ticket: ticket.text, expires_at_ms })
    }

    /// Whose ticket it is; it is used up by this.
    ///
    /// # Errors
    /// [`AccountError::TicketInvalid`] if it is unknown, expired or used.
    pub async fn redeem_ticket(&self, ticket: &str) -> Result<DeviceIdentity, AccountError> {
        let inner = &*self.0;
        let hash = presented(ticket, TICKET_PREFIX).ok_or(AccountError::TicketInvalid)?;
        let now_ms = inner.clock.now_ms();
        let row = inner.db.write(move |conn| tickets::redeem(conn, &hash, now_ms)).await;
        let row = row.map_err(AccountError::Storage)?.ok_or(AccountError::TicketInvalid)?;
        Ok(DeviceIdentity::from(&row))
    }
}

impl Inner {
    /// What a device is told about a token that is about to be stored.
    pub(super) fn session(&self, account_id: AccountId, device_id: DeviceId, token: &Secret) -> DeviceSession {
        DeviceSession {
            account_id,
            device_id,
            token: token.text.clone(),
            token_expires_at_ms: self.clock.now_ms() + millis(self.config.accounts.token_lifetime),
        }
    }

    /// The first use of a successor proves that its answer arrived.
    async fn end_predecessor(&self, used: &Hash) -> Result<(), AccountError> {
        let Some((_, old)) = self.tokens.rotations.predecessor.remove(used) else { return Ok(()) };
        self.tokens.rotations.successor.remove(&old);
        self.end_token(old).await
    }

    async fn end_token(&self, hash: Hash) -> Result<(), AccountError> {
        let now_s = self.clock.now_s();
        self.db.write(move |conn| tokens::delete(conn, &hash, now_s)).await.map_err(AccountError::Storage)?;
        self.tokens.forget_one(&hash);
        self.streams.control_changed();
        Ok(())
    }
}

/// Stores a new token of a device, within a transaction that does more.
pub(super) fn store_token(
    conn: &mut Conn,
    device_key: DeviceKey,
    hash: &Hash,
    session: &DeviceSession,
) -> Result<(), StorageError> {
    tokens::insert(conn, hash, device_key, session.token_expires_at_ms)
}

/// The hash of what was presented, if it has the right form at all: what hasn't costs no query.
fn presented(text: &str, prefix: &str) -> Option<Hash> {
    let secret = text.strip_prefix(prefix)?;
    let fits = secret.len() == (SECRET_LEN * 4).div_ceil(3);
    (fits && secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)))
        .then(|| Hash::of(text.as_bytes()))
}

pub(super) fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use martlet_protocol::wire;
    use martlet_storage::AccountKey;

    use super::*;

    fn identity(device: u8) -> DeviceIdentity {
        DeviceIdentity {
            device_key: DeviceKey(device.into()),
            device_id: DeviceId::new([device; 16]),
            account_key: AccountKey(1),
            account_id: AccountId::new([1; 16]),
        }
    }

    #[test]
    fn a_token_has_one_form() {
        let token = Secret::token(&mut crate::clock::rng());
        assert!(token.text.starts_with("mt_"));
        assert!(presented(&token.text, TOKEN_PREFIX) == Some(token.hash));
        for bad in
            ["", "mt_", "mt_short", &token.text[3..], &format!("{}A", token.text), &token.text.replace("mt_", "mtk_")]
        {
            assert!(presented(bad, TOKEN_PREFIX).is_none());
        }
    }

    #[test]
    fn the_control_stream_empties_the_cache() {
        let tokens = Tokens::new();
        let (one, two) = (Hash::new([1; 32]), Hash::new([2; 32]));
        tokens.remember(one, identity(1), 100, 0);
        tokens.remember(two, identity(2), 100, 0);
        assert!(tokens.cached(&one, 99).is_some());
        assert!(tokens.cached(&one, 100).is_none(), "expired");
        let ended = wire::DeviceEnded { device_id: DeviceId::new([1; 16]).to_wire(), suspended: false };
        tokens.on_control(&ControlEntry { event: Some(Event::DeviceEnded(ended)) });
        assert!(tokens.cached(&one, 99).is_none());
        assert!(tokens.cached(&two, 99).is_some());
        let ended = wire::TokenEnded { token_hash: two.to_wire() };
        tokens.on_control(&ControlEntry { event: Some(Event::TokenEnded(ended)) });
        assert!(tokens.cached(&two, 99).is_none());
    }

    #[test]
    fn what_was_read_before_it_was_forgotten_is_not_cached() {
        let tokens = Tokens::new();
        let before = tokens.forgotten.load(Ordering::SeqCst);
        tokens.forget_all();
        tokens.remember(Hash::new([1; 32]), identity(1), 100, before);
        assert!(tokens.cached(&Hash::new([1; 32]), 0).is_none());
    }
}
