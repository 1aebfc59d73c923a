//! argon2id off the async threads, under a permit count: memory for passwords is at most permits × configured memory.
//!
//! Knows nothing of accounts. Who has no hash is compared with a made-up one, so that the answer takes the same time. The made-up one has the
//! config's cost, a stored one the cost of its time; so after a change of the config the time of an account differs from nobody's until
//! it has signed in once, which hashes its password anew.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use rand::Rng as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

use super::{AccountError, parse::Password};
use crate::config;

const SALT_LEN: usize = 16;
/// Callers that may wait for a permit. At 20 ms each the last of them waits a few seconds; more are sent away.
const MAX_WAITING: usize = 256;

/// Hashes and verifies passwords.
pub(super) struct Passwords {
    hasher: Arc<Hasher>,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    verifications: AtomicU64,
}

struct Hasher {
    params: Params,
    pepper: Zeroizing<[u8; 32]>,
    /// Of a password that nobody knows.
    nobody: String,
}

/// What became of a comparison.
pub(super) struct Verified {
    /// The password is the one of the hash.
    pub(super) matches: bool,
    /// The same password by the config's cost, to be stored in the place of a hash of another one.
    pub(super) renewed: Option<String>,
}

impl Passwords {
    pub(super) fn new(config: &config::Accounts, pepper: [u8; 32]) -> Result<Self, AccountError> {
        let params = Params::new(config.argon2_memory_kib, config.argon2_iterations, 1, None).map_err(refused)?;
        let mut hasher = Hasher { params, pepper: Zeroizing::new(pepper), nobody: String::new() };
        let mut unknown = Zeroizing::new([0; 32]);
        crate::clock::rng().fill_bytes(unknown.as_mut_slice());
        hasher.nobody = hasher.hash(unknown.as_slice())?;
        Ok(Self {
            hasher: Arc::new(hasher),
            permits: Arc::new(Semaphore::new(config.argon2_permits)),
            waiting: AtomicUsize::new(0),
            verifications: AtomicU64::new(0),
        })
    }

    /// A hash to store.
    pub(super) async fn hash(&self, password: Password) -> Result<String, AccountError> {
        self.run(move |hasher| hasher.hash(password.as_bytes())).await
    }

    /// Whether the password is the one of the hash. Without a hash the answer is no, after the same work. With `may_renew` (everything else
    /// about the asker is right), a hash of another cost than the config's comes back as one of that cost, under the same permit.
    pub(super) async fn verify(
        &self,
        password: Password,
        hash: Option<String>,
        may_renew: bool,
    ) -> Result<Verified, AccountError> {
        self.verifications.fetch_add(1, Ordering::Relaxed);
        self.run(move |hasher| {
            let matches = hasher.matches(password.as_bytes(), hash.as_deref().unwrap_or(&hasher.nobody))?;
            let Some(hash) = hash.filter(|_| matches) else { return Ok(Verified { matches: false, renewed: None }) };
            let renew = may_renew && hasher.is_of_another_cost(&hash)?;
            let renewed = renew.then(|| hasher.hash(password.as_bytes())).transpose()?;
            Ok(Verified { matches: true, renewed })
        })
        .await
    }

    pub(super) fn verifications(&self) -> u64 {
        self.verifications.load(Ordering::Relaxed)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Hasher) -> Result<T, AccountError> + Send + 'static,
    ) -> Result<T, AccountError> {
        let permit = self.permit().await?;
        let hasher = self.hasher.clone();
        let done = tokio::task::spawn_blocking(move || {
            // Held by the work itself: a caller that goes away does not free memory that is still in use.
            let _permit = permit;
            work(&hasher)
        });
        done.await.map_err(|_| AccountError::Hashing("the hashing thread ended early".to_owned()))?
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, AccountError> {
        let _waiting = Waiting::enter(&self.waiting).ok_or(AccountError::Busy)?;
        self.permits.clone().acquire_owned().await.map_err(|_| AccountError::Busy)
    }
}

/// Counts a waiting caller for as long as it waits, also if it is dropped meanwhile.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Option<Self> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        let entered = Self(count);
        (before < MAX_WAITING).then_some(entered)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Hasher {
    fn argon2(&self) -> Result<Argon2<'_>, AccountError> {
        Argon2::new_with_secret(self.pepper.as_slice(), Algorithm::Argon2id, Version::V0x13, self.params.clone())
            .map_err(refused)
    }

    fn hash(&self, password: &[u8]) -> Result<String, AccountError> {
        let mut salt = [0; SALT_LEN];
        crate::clock::rng().fill_bytes(&mut salt);
        let hash: PasswordHash = self.argon2()?.hash_password_with_salt(password, &salt).map_err(refused)?;
        Ok(hash.to_string())
    }

    /// By the cost that the hash names, which may be an earlier config's.
    fn matches(&self, password: &[u8], hash: &str) -> Result<bool, AccountError> {
        let hash = PasswordHash::new(hash).map_err(refused)?;
        match self.argon2()?.verify_password(password, &hash) {
            Ok(()) => Ok(true),
            Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
            Err(error) => Err(refused(error)),
        }
    }

    fn is_of_another_cost(&self, hash: &str) -> Result<bool, AccountError> {
        let hash = PasswordHash::new(hash).map_err(refused)?;
        let cost = |params: &Params| (params.m_cost(), params.t_cost(), params.p_cost());
        Ok(cost(&Params::try_from(&hash).map_err(refused)?) != cost(&self.params))
    }
}

fn refused(error: impl std::fmt::Display) -> AccountError {
    AccountError::Hashing(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passwords() -> Passwords {
        let config = config::Accounts { argon2_memory_kib: 8, argon2_iterations: 1, ..config::Accounts::default() };
        Passwords::new(&config, [7; 32]).expect("a cost that argon2 takes")
    }

    async fn matches(passwords: &Passwords, text: &str, hash: Option<&String>) -> bool {
        let verified = passwords.verify(password(text), hash.cloned(), true).await.expect("verified");
        assert!(verified.renewed.is_none(), "its cost is the config's");
        verified.matches
    }

    fn password(text: &str) -> Password {
        Password::any(text.to_owned())
    }

    #[tokio::test]
    async fn only_the_right_password_matches() {
        let passwords = passwords();
        let hash = passwords.hash(password("correct horse")).await.expect("hashed");
        assert!(hash.starts_with("$argon2id$"));
        assert!(matches(&passwords, "correct horse", Some(&hash)).await);
        assert!(!matches(&passwords, "wrong horse", Some(&hash)).await);
        assert!(!matches(&passwords, "correct horse", None).await);
        assert_eq!(passwords.verifications(), 3);
        let other_pepper = Passwords::new(
            &config::Accounts { argon2_memory_kib: 8, argon2_iterations: 1, ..config::Accounts::default() },
            [8; 32],
        )
        .expect("a cost that argon2 takes");
        assert!(!matches(&other_pepper, "correct horse", Some(&hash)).await);
    }

    #[tokio::test]
    async fn a_hash_of_another_cost_is_renewed_for_who_may_sign_in() {
        let hash = passwords().hash(password("correct horse")).await.expect("hashed");
        assert!(hash.contains("m=8,t=1,p=1"), "{hash}");
        let dearer = config::Accounts { argon2_memory_kib: 16, argon2_iterations: 2, ..config::Accounts::default() };
        let dearer = Passwords::new(&dearer, [7; 32]).expect("a cost that argon2 takes");
        for (text, may_renew) in [("wrong horse", true), ("correct horse", false)] {
            let verified = dearer.verify(password(text), Some(hash.clone()), may_renew).await.expect("verified");
            assert_eq!((verified.matches, verified.renewed), (text == "correct horse", None));
        }
        let verified = dearer.verify(password("correct horse"), Some(hash), true).await.expect("verified");
        let renewed = verified.renewed.expect("its cost was another one");
        assert!(verified.matches && renewed.contains("m=16,t=2,p=1"), "{renewed}");
        assert!(matches(&dearer, "correct horse", Some(&renewed)).await);
    }

    #[tokio::test]
    async fn a_queue_that_is_full_is_a_named_error() {
        let passwords = passwords();
        passwords.waiting.store(MAX_WAITING, Ordering::Relaxed);
        assert!(matches!(passwords.hash(password("correct horse")).await, Err(AccountError::Busy)));
        assert_eq!(passwords.waiting.load(Ordering::Relaxed), MAX_WAITING);
    }
}
