//! Rates: how often an address, a device or a target may do what costs the node or drains somebody.
//!
//! Every table is bounded: idle keys are forgotten, and a table that is full of busy ones refuses rather than grows. No key joins a
//! sender with a message or a recipient. Sizes and counts are checked where the thing is parsed, not here.

mod keyed;
mod network;

use std::{net::IpAddr, num::NonZeroU32, sync::Arc};

use governor::{
    Quota, RateLimiter,
    state::{InMemoryState, NotKeyed},
};
use martlet_protocol::id::{AccountId, DeviceId, Hash as Digest};

pub use network::{Network, address};

use self::keyed::{Keyed, Limiter, retry_after_ms};
use crate::{clock::Clock, config};

/// Milliseconds after which to come back.
pub type RetryAfterMs = u32;

/// The node's rate limits. Cheap to clone; clones share their tables.
#[derive(Clone)]
pub struct Limits(Arc<Inner>);

struct Inner {
    sends: Keyed<DeviceId>,
    sends_of_account: Keyed<AccountId>,
    ephemerals: Keyed<DeviceId>,
    ephemerals_of_account: Keyed<AccountId>,
    frames_of_account: Keyed<AccountId>,
    frames_from: Keyed<Network>,
    requests: Keyed<DeviceId>,
    requests_of_account: Keyed<AccountId>,
    requests_from: Keyed<Network>,
    connections_of: Keyed<DeviceId>,
    connections_from: Keyed<Network>,
    lookups: Keyed<DeviceId>,
    claims_by_claimer: Keyed<DeviceId>,
    claims_of_target: Keyed<DeviceId>,
    sign_ins: Keyed<Network>,
    /// By the hash of what was given as the username.
    sign_ins_to: Keyed<Digest>,
    registrations: Keyed<Network>,
    link_polls: Keyed<Network>,
    connections: Option<Limiter<NotKeyed, InMemoryState>>,
    clock: Clock,
}

impl Limits {
    /// Empty tables with the config's rates. A rate of 0 means no limit.
    #[must_use]
    pub fn new(rates: &config::Limits, clock: Clock) -> Self {
        let minute = |n: u32| NonZeroU32::new(n).map(Quota::per_minute);
        let second = |n: u32, burst: u32| {
            NonZeroU32::new(n).map(|n| Quota::per_second(n).allow_burst(NonZeroU32::new(burst).unwrap_or(n)))
        };
        let sends = second(rates.sends_per_device_per_second, rates.sends_burst);
        let sends_of_account = second(rates.sends_per_account_per_second, rates.sends_per_account_burst);
        let requests_from = second(rates.requests_per_address_per_second, rates.requests_per_address_burst);
        let connections_from = second(rates.connections_per_address_per_second, rates.connections_per_address_burst);
        let ephemerals = second(rates.ephemeral_per_device_per_second, rates.ephemeral_burst);
        let ephemerals_of_account = second(rates.ephemeral_per_account_per_second, rates.ephemeral_per_account_burst);
        let frames_of_account = second(rates.frames_per_account_per_second, rates.frames_per_account_burst);
        let frames_from = second(rates.frames_per_address_per_second, rates.frames_per_address_burst);
        let connections = NonZeroU32::new(rates.connections_per_second).map(Quota::per_second);
        Self(Arc::new(Inner {
            sends: Keyed::new(sends, &clock),
            sends_of_account: Keyed::new(sends_of_account, &clock),
            requests_of_account: Keyed::new(minute(rates.requests_per_account_per_minute), &clock),
            requests_from: Keyed::new(requests_from, &clock),
            connections_of: Keyed::new(minute(rates.connections_per_device_per_minute), &clock),
            connections_from: Keyed::new(connections_from, &clock),
            sign_ins_to: Keyed::new(minute(rates.sign_ins_per_account_per_minute), &clock),
            ephemerals: Keyed::new(ephemerals, &clock),
            ephemerals_of_account: Keyed::new(ephemerals_of_account, &clock),
            frames_of_account: Keyed::new(frames_of_account, &clock),
            frames_from: Keyed::new(frames_from, &clock),
            requests: Keyed::new(minute(rates.requests_per_device_per_minute), &clock),
            lookups: Keyed::new(minute(rates.lookups_per_device_per_minute), &clock),
            claims_by_claimer: Keyed::new(minute(rates.claims_per_claimer_per_minute), &clock),
            claims_of_target: Keyed::new(minute(rates.claims_per_target_per_minute), &clock),
            sign_ins: Keyed::new(minute(rates.sign_ins_per_address_per_minute), &clock),
            registrations: Keyed::new(minute(rates.registrations_per_address_per_minute), &clock),
            link_polls: Keyed::new(minute(rates.link_polls_per_address_per_minute), &clock),
            connections: connections.map(|quota| RateLimiter::direct_with_clock(quota, clock.clone())),
            clock,
        }))
    }

    /// One message sent by a device of the account.
    ///
    /// # Errors
    /// When to come back, as for all of these.
    pub fn send(&self, account: &AccountId, device: &DeviceId) -> Result<(), RetryAfterMs> {
        self.0.sends.check(*device)?;
        self.0.sends_of_account.check(*account)
    }

    /// One ephemeral message sent by a device of the account.
    ///
    /// # Errors
    /// When to come back.
    pub fn ephemeral(&self, account: &AccountId, device: &DeviceId) -> Result<(), RetryAfterMs> {
        self.0.ephemerals.check(*device)?;
        self.0.ephemerals_of_account.check(*account)
    }

    /// One frame of any kind on a socket of the account, from this network. Sockets count their own frames beside it.
    ///
    /// # Errors
    /// When to come back.
    pub fn frame(&self, account: &AccountId, network: Network) -> Result<(), RetryAfterMs> {
        self.0.frames_of_account.check(*account)?;
        self.0.frames_from.check(network)
    }

    /// One request by a device of the account that is no message, claim or look-up.
    ///
    /// # Errors
    /// When to come back.
    pub fn request(&self, account: &AccountId, device: &DeviceId) -> Result<(), RetryAfterMs> {
        self.0.requests.check(*device)?;
        self.0.requests_of_account.check(*account)
    }

    /// One request of any kind, whoever it is from.
    ///
    /// # Errors
    /// When to come back.
    pub fn request_from(&self, address: IpAddr) -> Result<(), RetryAfterMs> {
        self.0.requests_from.check(Network::of(address))
    }

    /// One look-up of another account by a device of the account.
    ///
    /// # Errors
    /// When to come back.
    pub fn lookup(&self, account: &AccountId, device: &DeviceId) -> Result<(), RetryAfterMs> {
        self.0.lookups.check(*device)?;
        self.0.requests_of_account.check(*account)
    }

    /// One request to claim prekeys by a device of the account, however many it names: [`Self::claim`] counts those.
    ///
    /// # Errors
    /// When to come back.
    pub fn claim_request(&self, account: &AccountId) -> Result<(), RetryAfterMs> {
        self.0.requests_of_account.check(*account)
    }

    /// So many accounts named in a claim by the device: all of them or none, so that a claim that is refused costs nothing and the wait
    /// named is enough for all.
    ///
    /// # Errors
    /// When to come back.
    pub fn claim(&self, claimer: &DeviceId, accounts: usize) -> Result<(), RetryAfterMs> {
        self.0.claims_by_claimer.check_all(*claimer, accounts)
    }

    /// One one-time prekey of the device given away, whoever claims.
    ///
    /// # Errors
    /// When to come back.
    pub fn claim_of(&self, target: &DeviceId) -> Result<(), RetryAfterMs> {
        self.0.claims_of_target.check(*target)
    }

    /// One attempt to sign in, to the account of this name, which need not exist.
    ///
    /// # Errors
    /// When to come back.
    pub fn sign_in(&self, address: IpAddr, username: &str) -> Result<(), RetryAfterMs> {
        self.0.sign_ins.check(Network::of(address))?;
        self.0.sign_ins_to.check(Digest::of(username.to_lowercase().as_bytes()))
    }

    /// One account registered or link begun.
    ///
    /// # Errors
    /// When to come back.
    pub fn register(&self, address: IpAddr) -> Result<(), RetryAfterMs> {
        self.0.registrations.check(Network::of(address))
    }

    /// One question whether a link was answered.
    ///
    /// # Errors
    /// When to come back.
    pub fn poll_link(&self, address: IpAddr) -> Result<(), RetryAfterMs> {
        self.0.link_polls.check(Network::of(address))
    }

    /// One socket, from anywhere.
    ///
    /// # Errors
    /// When to come back.
    pub fn connect(&self) -> Result<(), RetryAfterMs> {
        let Some(connections) = &self.0.connections else { return Ok(()) };
        connections.check().map_err(|early| retry_after_ms(&early, &self.0.clock))
    }

    /// One socket from this address.
    ///
    /// # Errors
    /// When to come back.
    pub fn connect_from(&self, address: IpAddr) -> Result<(), RetryAfterMs> {
        self.0.connections_from.check(Network::of(address))
    }

    /// One socket of this device of the account.
    ///
    /// # Errors
    /// When to come back.
    pub fn connect_device(&self, account: &AccountId, device: &DeviceId) -> Result<(), RetryAfterMs> {
        self.0.connections_of.check(*device)?;
        self.0.requests_of_account.check(*account)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{keyed::OVER_BURST_RETRY_MS, *};

    fn limits(change: impl FnOnce(&mut config::Limits)) -> (Limits, Clock) {
        let clock = Clock::manual(1_000_000);
        let mut rates = config::Limits::default();
        change(&mut rates);
        (Limits::new(&rates, clock.clone()), clock)
    }

    #[test]
    fn a_burst_passes_and_the_wait_named_is_enough() {
        let (limits, clock) = limits(|rates| (rates.sends_per_device_per_second, rates.sends_burst) = (2, 3));
        let (account, device) = (AccountId::new([1; 16]), DeviceId::new([1; 16]));
        for _ in 0..3 {
            assert_eq!(limits.send(&account, &device), Ok(()));
        }
        let wait = limits.send(&account, &device).expect_err("the burst is spent");
        assert_eq!(limits.send(&account, &DeviceId::new([2; 16])), Ok(()), "another device is not held up");
        clock.advance(Duration::from_millis(wait.into()));
        assert_eq!(limits.send(&account, &device), Ok(()));
    }

    #[test]
    fn more_devices_do_not_let_an_account_send_more() {
        let (limits, _) = limits(|rates| (rates.sends_per_account_per_second, rates.sends_per_account_burst) = (1, 5));
        let sent = |account: u8| {
            let send = |device: u8| limits.send(&AccountId::new([account; 16]), &DeviceId::new([device; 16])).is_ok();
            (0..10).filter(|device| send(*device)).count()
        };
        assert_eq!((sent(1), sent(2)), (5, 5), "each account has its own");
    }

    #[test]
    fn guessing_from_many_addresses_is_counted_by_the_name() {
        let (limits, _) = limits(|rates| rates.sign_ins_per_account_per_minute = 3);
        let attempt = |last: u8, name: &str| limits.sign_in(IpAddr::from([192, 0, 2, last]), name).is_ok();
        assert_eq!((0..10).filter(|last| attempt(*last, "Ada")).count(), 3);
        assert!(!attempt(20, "ada"), "however it is written");
        assert!(attempt(20, "bob"));
    }

    #[test]
    fn zero_means_no_limit() {
        let (limits, _) = limits(|rates| {
            (rates.sign_ins_per_address_per_minute, rates.sign_ins_per_account_per_minute) = (0, 0);
        });
        assert!((0..10_000).all(|_| limits.sign_in(IpAddr::from([127, 0, 0, 1]), "").is_ok()));
    }

    #[test]
    fn a_claim_for_many_passes_whole_or_costs_nothing() {
        let (limits, clock) = limits(|rates| rates.claims_per_claimer_per_minute = 6);
        let device = DeviceId::new([1; 16]);
        assert_eq!(limits.claim(&device, 4), Ok(()));
        let wait = limits.claim(&device, 5).expect_err("two are left");
        assert_eq!(limits.claim(&device, 0), Ok(()));
        assert_eq!(limits.claim(&device, 2), Ok(()), "the refused claim took none of them");
        clock.advance(Duration::from_millis(wait.into()) + Duration::from_secs(20));
        assert_eq!(limits.claim(&device, 5), Ok(()));
        assert_eq!(limits.claim(&device, 7), Err(OVER_BURST_RETRY_MS));
    }

    #[test]
    fn one_ipv6_network_is_one_address() {
        let (limits, _) = limits(|rates| rates.sign_ins_per_address_per_minute = 1);
        assert!(limits.sign_in("2001:db8::1".parse().expect("an address"), "ada").is_ok());
        assert!(limits.sign_in("2001:db8::ffff".parse().expect("an address"), "ada").is_err());
        assert!(limits.sign_in("2001:db8:0:1::1".parse().expect("an address"), "ada").is_ok());
    }

    #[test]
    fn an_account_has_one_rate_for_whatever_its_devices_ask() {
        let (limits, _) = limits(|rates| rates.requests_per_account_per_minute = 4);
        let (account, other) = (AccountId::new([1; 16]), AccountId::new([2; 16]));
        let device = |number: u8| DeviceId::new([number; 16]);
        assert_eq!(limits.request(&account, &device(1)), Ok(()));
        assert_eq!(limits.lookup(&account, &device(2)), Ok(()));
        assert_eq!(limits.claim_request(&account), Ok(()));
        assert_eq!(limits.connect_device(&account, &device(3)), Ok(()));
        assert!(limits.request(&account, &device(4)).is_err());
        assert!(limits.lookup(&account, &device(5)).is_err());
        assert!(limits.claim_request(&account).is_err());
        assert!(limits.connect_device(&account, &device(6)).is_err());
        assert_eq!(limits.lookup(&other, &device(7)), Ok(()), "another account is not held up");
    }

    #[test]
    fn frames_and_whispers_are_counted_by_account_and_frames_by_network() {
        let (limits, _) = limits(|rates| {
            (rates.frames_per_account_per_second, rates.frames_per_account_burst) = (1, 3);
            (rates.frames_per_address_per_second, rates.frames_per_address_burst) = (1, 5);
            (rates.ephemeral_per_account_per_second, rates.ephemeral_per_account_burst) = (1, 2);
        });
        let network = |last: u8| Network::of(IpAddr::from([192, 0, 2, last]));
        let frames = |account: u8, last: u8| {
            (0..10).filter(|_| limits.frame(&AccountId::new([account; 16]), network(last)).is_ok()).count()
        };
        assert_eq!((frames(1, 1), frames(2, 1), frames(3, 1)), (3, 2, 0), "five from one network");
        assert_eq!(frames(4, 2), 3);
        let whisper = |device: u8| limits.ephemeral(&AccountId::new([1; 16]), &DeviceId::new([device; 16])).is_ok();
        assert_eq!((1..10).filter(|device| whisper(*device)).count(), 2, "more devices don't help");
    }
}
