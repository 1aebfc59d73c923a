//! Accounts, their devices and what devices bring: tokens, prekeys, links.
//!
//! In reading order: [`parse`] (names and passwords as they may be), [`password`] (argon2id under permits), [`registration`],
//! [`sign_in`], [`tokens`] (who asks), [`lists`] (the chain and what removes devices), [`linking`] (what adds them), [`prekeys`]
//! (uploads), [`claims`] (bundles for senders), [`hello`] (what a device's socket starts with).
//!
//! It checks every chain and signature so that broken ones never get in; clients check them again, because they don't believe the
//! node. It knows nothing of HTTP, and nothing of conversations or messages.

mod claims;
mod error;
mod hello;
mod linking;
mod lists;
mod parse;
mod password;
mod prekeys;
mod registration;
mod sign_in;
mod tokens;

use std::sync::Arc;

use martlet_protocol::{
    id::{AccountId, DeviceId},
    wire,
};
use martlet_storage::{AccountKey, Db, DeviceKey, tokens::TokenRow};

pub use error::AccountError;
pub use hello::HelloFacts;

use self::{claims::ClaimMemory, password::Passwords, tokens::Tokens};
use crate::{clock::Clock, config::Config, limits::Limits, secrets::Secrets, streams::Streams};

/// A device that has proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceIdentity {
    /// Its row and mailbox.
    pub device_key: DeviceKey,
    /// Its public id.
    pub device_id: DeviceId,
    /// Its account's row.
    pub account_key: AccountKey,
    /// Its account's public id.
    pub account_id: AccountId,
}

impl From<&TokenRow> for DeviceIdentity {
    fn from(row: &TokenRow) -> Self {
        Self {
            device_key: row.device_key,
            device_id: row.device_id,
            account_key: row.account_key,
            account_id: row.account_id,
        }
    }
}

/// Everything about accounts. Cheap to clone.
#[derive(Clone)]
pub struct Accounts(Arc<Inner>);

struct Inner {
    config: Arc<Config>,
    clock: Clock,
    limits: Limits,
    db: Db,
    streams: Streams,
    passwords: Passwords,
    tokens: Tokens,
    claims: ClaimMemory,
}

/// What [`Accounts::new`] needs.
pub struct Parts<'a> {
    /// Limits of accounts and prekeys.
    pub config: Arc<Config>,
    /// When tokens, tickets, links and prekeys end.
    pub clock: Clock,
    /// The pepper.
    pub secrets: &'a Secrets,
    /// Rates of claims.
    pub limits: Limits,
    /// Where accounts rest.
    pub db: Db,
    /// Hears at once of what the control stream got.
    pub streams: Streams,
}

impl Accounts {
    /// Computes one password hash, to compare unknown users' passwords with: takes some ten milliseconds.
    ///
    /// # Errors
    /// [`AccountError::Hashing`] if argon2 does not take the configured cost.
    pub fn new(parts: Parts<'_>) -> Result<Self, AccountError> {
        let passwords = Passwords::new(&parts.config.accounts, *parts.secrets.pepper())?;
        Ok(Self(Arc::new(Inner {
            config: parts.config,
            clock: parts.clock,
            limits: parts.limits,
            db: parts.db,
            streams: parts.streams,
            passwords,
            tokens: Tokens::new(),
            claims: ClaimMemory::new(),
        })))
    }

    /// Forgets what a control entry made untrue.
    pub fn on_control(&self, entry: &wire::ControlEntry) {
        self.0.tokens.on_control(entry);
    }

    /// Forgets every cached token: for a reader of the control stream that missed entries.
    pub fn forget_all(&self) {
        self.0.tokens.forget_all();
    }

    /// Passwords compared with a hash so far, unknown users' included: what makes sign-in take the same time for all.
    #[must_use]
    pub fn password_verifications(&self) -> u64 {
        self.0.passwords.verifications()
    }
}

/// Runs what takes milliseconds of computing off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AccountError> + Send + 'static,
) -> Result<T, AccountError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is shutting down and never began it.
        Err(_) => Err(AccountError::Busy),
    }
}
