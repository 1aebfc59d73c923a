//! What all devices of a run share: where the nodes are, who talks with whom, what happened, and what phase the run is in.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Result;
use martlet_protocol::{
    id::{AccountId, DeviceId},
    rest::ListHead,
};
use parking_lot::{Mutex, RwLock};
use rand::{Rng, RngExt as _};
use tokio::sync::watch;

use super::{calm::Calm, history::History};
use crate::{
    clock::Stopwatch,
    wire::{Account, Circle, Rest},
};

/// What all are doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Writing, reading, vanishing, being interrupted.
    Busy,
    /// The last fault is healed: nobody stays away any more, and everybody's next message is to show that all is well.
    Healed,
    /// No new messages: what is unanswered is sent until it is answered.
    Settling,
}

/// What clients do to the system, counted like faults.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ClientFaults {
    /// TCP connections cut without a goodbye.
    pub vanished: u64,
    /// Connections left open and never read again.
    pub ghosts: u64,
    /// Devices revoked.
    pub revoked: u64,
    /// Answered messages asked about once more under the same id.
    pub asked_again: u64,
}

/// See the module.
pub struct World {
    /// The nodes' public addresses.
    pub nodes: Vec<Rest>,
    /// What happened.
    pub history: Mutex<History>,
    /// What clients did.
    pub client_faults: Mutex<ClientFaults>,
    /// Refusals of sends by code.
    pub refusals: Mutex<BTreeMap<String, u64>>,
    /// How long each node has been left alone.
    pub calm: Calm,
    /// Told to all.
    pub phase: watch::Sender<Phase>,
    people: RwLock<People>,
    since: Stopwatch,
}

#[derive(Default)]
struct People {
    /// Every account's newest list, and who is on it, the first device first.
    accounts: BTreeMap<AccountId, (ListHead, Vec<DeviceId>)>,
    talks: Vec<Talk>,
}

/// A conversation, and how often a member's device writes to it.
struct Talk {
    circle: Arc<Circle>,
    weight: u32,
}

impl World {
    /// A world without accounts; its time begins now. A request that is not answered within the deadline counts as lost.
    ///
    /// # Errors
    /// The HTTP clients can't be made.
    pub fn new(nodes: &[String], answer_deadline: Duration) -> Result<Self> {
        let rest = |base: &String| Rest::with_deadline(base.clone(), answer_deadline);
        Ok(Self {
            nodes: nodes.iter().map(rest).collect::<Result<_>>()?,
            history: Mutex::default(),
            client_faults: Mutex::default(),
            refusals: Mutex::default(),
            calm: Calm::new(nodes.len()),
            phase: watch::channel(Phase::Busy).0,
            people: RwLock::default(),
            since: Stopwatch::start(),
        })
    }

    /// Milliseconds since the run began.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// One of the nodes.
    pub fn any_node(&self, rng: &mut impl Rng) -> usize {
        rng.random_range(0..self.nodes.len())
    }

    /// An account as it is now. Senders learn here of a change, as they would from a mismatch's answer.
    pub fn know(&self, account: &Account) {
        let mut people = self.people.write();
        let devices = account.devices.iter().map(|device| device.device_id).collect();
        people.accounts.insert(account.account_id, (account.chain.head(), devices));
        let People { accounts, talks } = &mut *people;
        for talk in talks.iter_mut().filter(|talk| talk.has(&account.account_id)) {
            let members = talk.circle.members.iter().filter_map(|head| accounts.get(&head.account_id));
            let (heads, devices): (Vec<_>, Vec<_>) = members.cloned().unzip();
            let Circle { conversation_id, membership_m, .. } = &*talk.circle;
            talk.circle = Arc::new(Circle::of(*conversation_id, *membership_m, heads, devices.concat()));
        }
    }

    /// Takes a conversation in that has just been created between known accounts. Devices of a member write to it, the more often the
    /// greater its weight; 0: never by chance.
    pub fn add_circle(&self, circle: Circle, weight: u32) {
        self.people.write().talks.push(Talk { circle: Arc::new(circle), weight });
    }

    /// Nobody writes to it by chance any more.
    pub fn retire(&self, circle: &Circle) {
        let mut people = self.people.write();
        let talk = people.talks.iter_mut().find(|talk| talk.circle.conversation_id == circle.conversation_id);
        if let Some(talk) = talk {
            talk.weight = 0;
        }
    }

    /// A conversation for a device of this account to write to; none if it has no part in any.
    pub fn any_circle(&self, account: &AccountId, rng: &mut impl Rng) -> Option<Arc<Circle>> {
        let people = self.people.read();
        let own = || people.talks.iter().filter(|talk| talk.has(account));
        let total: u32 = own().map(|talk| talk.weight).sum();
        let drawn = if total == 0 { return None } else { rng.random_range(0..total) };
        let mut reached = 0;
        own()
            .find(|talk| {
                reached += talk.weight;
                drawn < reached
            })
            .map(|talk| talk.circle.clone())
    }

    /// Every conversation that this device is the appointed first writer of: by them all devices are reached.
    #[must_use]
    pub fn led_by(&self, device: &DeviceId) -> Vec<Arc<Circle>> {
        let people = self.people.read();
        let leader = |talk: &Talk| {
            let (_, devices) = people.accounts.get(&talk.circle.members.first()?.account_id)?;
            devices.first().copied()
        };
        people.talks.iter().filter(|talk| leader(talk) == Some(*device)).map(|talk| talk.circle.clone()).collect()
    }

    /// Devices that are not revoked.
    #[must_use]
    pub fn active_devices(&self) -> Vec<DeviceId> {
        self.people.read().accounts.values().flat_map(|(_, devices)| devices.clone()).collect()
    }
}

impl Talk {
    fn has(&self, account: &AccountId) -> bool {
        self.circle.members.iter().any(|head| head.account_id == *account)
    }
}
