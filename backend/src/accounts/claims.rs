//! Bundles for senders: the keys of an account's devices to fork with.
//!
//! A claimer gets one one-time prekey per device and day, and a device gives away only so many per minute whoever asks; past either
//! the bundle has the signed prekey alone, so that nobody can drain a pool and nobody is kept from sending.
//!
//! A claim that gives out one-time prekeys also uses up one of the claimer's own. Otherwise a copy of the store would show, in every
//! conversation, one device whose pool is untouched: the one that wrote.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use martlet_protocol::{
    id::{AccountId, DeviceId},
    rest::{AccountLists, ClaimAccount, ClaimAnswer, DeviceBundle},
};
use martlet_storage::{
    Conn, DeviceKey, accounts,
    devices::{self, DeviceRow, DeviceStatus},
    prekeys::{self, Claimed, Wanted},
};
use parking_lot::Mutex;
use quick_cache::sync::Cache;

use super::{AccountError, Accounts, DeviceIdentity, Inner, tokens::millis};

/// How long a claimer does without another one-time prekey of the same device.
const CLAIM_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// Pairs of claimer and target remembered, 16 bytes each and some. Forgetting one costs its target a prekey.
const REMEMBERED_CLAIMS: usize = 500_000;

/// Who had a one-time prekey of whom within the day, as keyed hashes under a key of this process: a look into the memory does not show
/// who talks to whom.
pub(super) struct ClaimMemory {
    until_ms: Cache<u64, u64>,
    hasher: RandomState,
    /// Two claims of one pair at the same time: one of them gets the key.
    deciding: Mutex<()>,
}

impl ClaimMemory {
    pub(super) fn new() -> Self {
        Self { until_ms: Cache::new(REMEMBERED_CLAIMS), hasher: RandomState::new(), deciding: Mutex::new(()) }
    }

    /// Notes the claim; false if there was one within the day.
    fn note(&self, claimer: DeviceKey, target: DeviceKey, now_ms: u64) -> bool {
        let pair = self.hasher.hash_one((claimer, target));
        let _deciding = self.deciding.lock();
        if self.until_ms.get(&pair).is_some_and(|until_ms| until_ms > now_ms) {
            return false;
        }
        self.until_ms.insert(pair, now_ms + millis(CLAIM_INTERVAL));
        true
    }

    /// The claim noted before got nothing.
    fn forget(&self, claimer: DeviceKey, target: DeviceKey) {
        self.until_ms.remove(&self.hasher.hash_one((claimer, target)));
    }
}

/// What the store has of the accounts that were asked for.
struct Found {
    lists: Vec<AccountLists>,
    targets: Vec<Target>,
    dormant: Vec<DeviceId>,
}

struct Target {
    account: AccountId,
    device: DeviceRow,
}

impl Accounts {
    /// Bundles of the accounts' active devices, the claimer's own device left out, with the lists after those the claimer knows. An account
    /// that is named twice is claimed once.
    ///
    /// # Errors
    /// [`AccountError::NotFound`] if one of the accounts does not exist, [`AccountError::RateLimited`], [`AccountError::TooLarge`].
    pub async fn claim_bundles(
        &self,
        claimer: &DeviceIdentity,
        wanted: &[ClaimAccount],
    ) -> Result<ClaimAnswer, AccountError> {
        let inner = &*self.0;
        let allowed = inner.config.conversations.max_members_group;
        if wanted.len() > allowed {
            return Err(AccountError::TooLarge { what: "accounts", given: wanted.len(), allowed });
        }
        let wanted = merged(wanted);
        inner.limits.claim(&claimer.device_id, wanted.len()).map_err(AccountError::RateLimited)?;
        inner.claim_accounts(claimer, wanted).await
    }

    /// As [`Self::claim_bundles`], for as many of the accounts as the claimer's rate and a claim's size allow; those after them are left out.
    ///
    /// # Errors
    /// [`AccountError::RateLimited`] if the rate allows none, otherwise as [`Self::claim_bundles`].
    pub async fn claim_allowed(
        &self,
        claimer: &DeviceIdentity,
        wanted: &[ClaimAccount],
    ) -> Result<ClaimAnswer, AccountError> {
        let inner = &*self.0;
        let mut wanted = merged(wanted);
        wanted.truncate(inner.config.conversations.max_members_group);
        for within in 0..wanted.len() {
            match inner.limits.claim(&claimer.device_id, 1) {
                Ok(()) => {}
                Err(retry_after_ms) if within == 0 => return Err(AccountError::RateLimited(retry_after_ms)),
                Err(_) => {
                    wanted.truncate(within);
                    break;
                }
            }
        }
        inner.claim_accounts(claimer, wanted).await
    }
}

/// Each account once, with all of the devices asked for and the lists after the oldest that was named. Claimed twice, the second answer about
/// a device would be without the one-time prekey that the first one took.
fn merged(wanted: &[ClaimAccount]) -> Vec<ClaimAccount> {
    let mut at: HashMap<AccountId, usize> = HashMap::with_capacity(wanted.len());
    let mut merged: Vec<ClaimAccount> = Vec::with_capacity(wanted.len());
    for account in wanted {
        let Some(index) = at.get(&account.account_id).copied() else {
            at.insert(account.account_id, merged.len());
            merged.push(account.clone());
            continue;
        };
        let first = &mut merged[index];
        first.known_n = first.known_n.min(account.known_n);
        if first.device_ids.is_empty() || account.device_ids.is_empty() {
            // None named means all of them.
            first.device_ids.clear();
        } else {
            first.device_ids.extend_from_slice(&account.device_ids);
        }
    }
    merged
}

impl Inner {
    /// Claims what the limits have let pass.
    async fn claim_accounts(
        &self,
        claimer: &DeviceIdentity,
        accounts: Vec<ClaimAccount>,
    ) -> Result<ClaimAnswer, AccountError> {
        let (own, now_ms) = (claimer.device_id, self.clock.now_ms());
        let found = self.db.read(move |conn| find(conn, &own, &accounts, now_ms)).await?;
        let wanted = self.wanted(claimer.device_key, &found.targets, now_ms);
        let claimed = self.claim(claimer.device_key, wanted, now_ms).await?;
        Ok(ClaimAnswer { bundles: bundles(&found.targets, claimed), lists: found.lists, dormant: found.dormant })
    }

    /// Decides per device whether a one-time prekey is given.
    fn wanted(&self, claimer: DeviceKey, targets: &[Target], now_ms: u64) -> Vec<Wanted> {
        // The pair first: whoever asks again and again must not use up what the target gives others.
        let one_time = |device: &DeviceRow| {
            let target = device.device_key;
            let first_today = self.claims.note(claimer, target, now_ms);
            let within_rate = first_today && self.limits.claim_of(&device.device_id).is_ok();
            if first_today && !within_rate {
                self.claims.forget(claimer, target);
            }
            within_rate
        };
        targets
            .iter()
            .map(|target| Wanted { device_key: target.device.device_key, one_time: one_time(&target.device) })
            .collect()
    }

    async fn claim(
        &self,
        claimer: DeviceKey,
        mut wanted: Vec<Wanted>,
        now_ms: u64,
    ) -> Result<Vec<Claimed>, AccountError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let noted: Vec<DeviceKey> = wanted.iter().filter(|want| want.one_time).map(|want| want.device_key).collect();
        if !noted.is_empty() {
            wanted.push(Wanted { device_key: claimer, one_time: true });
        }
        let low_water = self.config.prekeys.low_water;
        let claimed = self.db.write(move |conn| claim(conn, &wanted, low_water, now_ms)).await;
        let (claimed, low) = claimed.inspect_err(|_| noted.iter().for_each(|key| self.claims.forget(claimer, *key)))?;
        for device_key in noted {
            let got = claimed.iter().any(|got| got.device_key == device_key && got.one_time_prekey.is_some());
            if !got {
                self.claims.forget(claimer, device_key);
            }
        }
        low.into_iter().for_each(|device_key| self.streams.hello_changed(device_key));
        Ok(claimed)
    }
}

fn find(conn: &mut Conn, own: &DeviceId, accounts: &[ClaimAccount], now_ms: u64) -> Result<Found, AccountError> {
    let mut found = Found { lists: Vec::new(), targets: Vec::new(), dormant: Vec::new() };
    for wanted in accounts {
        let account = accounts::by_id(conn, &wanted.account_id)?.ok_or(AccountError::NotFound)?;
        let lists = accounts::lists_after(conn, account.account_key, wanted.known_n)?;
        if !lists.is_empty() {
            found.lists.push(AccountLists { account_id: wanted.account_id, lists });
        }
        for device in devices::by_account(conn, account.account_key)? {
            let asked = wanted.device_ids.is_empty() || wanted.device_ids.contains(&device.device_id);
            if !asked || device.status != DeviceStatus::Active || device.device_id == *own {
                continue;
            }
            if device.prekey_not_after_ms <= now_ms {
                found.dormant.push(device.device_id);
            } else {
                found.targets.push(Target { account: wanted.account_id, device });
            }
        }
    }
    Ok(found)
}

/// Claims, and says whose pool has just fallen below the mark: once, not with every claim after it.
fn claim(
    conn: &mut Conn,
    wanted: &[Wanted],
    low_water: usize,
    now_ms: u64,
) -> Result<(Vec<Claimed>, Vec<DeviceKey>), AccountError> {
    let claimed = prekeys::claim(conn, wanted, now_ms)?;
    let mut low = Vec::new();
    for got in claimed.iter().filter(|got| got.one_time_prekey.is_some()) {
        if prekeys::stock(conn, got.device_key, now_ms)?.one_time as usize + 1 == low_water {
            low.push(got.device_key);
        }
    }
    Ok((claimed, low))
}

fn bundles(targets: &[Target], claimed: Vec<Claimed>) -> Vec<DeviceBundle> {
    let mut by_device: HashMap<DeviceKey, Claimed> = claimed.into_iter().map(|got| (got.device_key, got)).collect();
    let bundle = |target: &Target| {
        let got = by_device.remove(&target.device.device_key)?;
        Some(DeviceBundle {
            account_id: target.account,
            device_id: target.device.device_id,
            signed_prekey: got.signed_prekey,
            one_time_prekey: got.one_time_prekey,
        })
    };
    targets.iter().filter_map(bundle).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_that_is_named_twice_is_claimed_once() {
        let claim = |account: u8, known_n, devices: &[u8]| ClaimAccount {
            account_id: AccountId::new([account; 16]),
            known_n,
            device_ids: devices.iter().map(|device| DeviceId::new([*device; 16])).collect(),
        };
        let merged = merged(&[claim(1, 4, &[1]), claim(2, 1, &[3]), claim(1, 2, &[2]), claim(2, 1, &[])]);
        assert_eq!(merged.len(), 2);
        assert_eq!((merged[0].account_id, merged[0].known_n), (AccountId::new([1; 16]), 2));
        assert_eq!(merged[0].device_ids, [DeviceId::new([1; 16]), DeviceId::new([2; 16])]);
        assert!(merged[1].device_ids.is_empty(), "all of them");
    }

    #[test]
    fn one_claim_per_pair_and_day() {
        let memory = ClaimMemory::new();
        let day_ms = millis(CLAIM_INTERVAL);
        let (one, two) = (DeviceKey(1), DeviceKey(2));
        assert!(memory.note(one, two, 1_000));
        assert!(!memory.note(one, two, 1_000 + day_ms - 1));
        assert!(memory.note(two, one, 1_000), "the other direction is another pair");
        assert!(memory.note(one, two, 1_000 + day_ms));
        memory.forget(one, two);
        assert!(memory.note(one, two, 1_000 + day_ms));
    }
}
