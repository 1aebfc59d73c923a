//! Fork: who gets an entry, and whether the sender encrypted for exactly those.
//!
//! Pure: it compares a request with an [`Audience`]. The commit makes sure that the audience still holds when the entries are written.

use bytes::Bytes;
use martlet_protocol::id::{AccountId, DeviceId, PublicKey};
use martlet_storage::DeviceKey;

use super::{
    directory::{AccountView, Audience, DeviceState},
    request::Request,
};
use crate::accounts::DeviceIdentity;

/// One device that gets an entry.
pub struct Recipient {
    pub device_key: DeviceKey,
    pub device_id: DeviceId,
    pub mailbox_key: PublicKey,
    /// The list that the commit checks its mailbox head for.
    pub list_n: u64,
    pub gets: Gets,
}

/// What a device gets.
pub enum Gets {
    /// The sender's header for it.
    Fork(Bytes),
    /// The sending device itself: proof of acceptance and order.
    Echo,
    /// Its signed prekey has expired and the sender left it out: a gap marker.
    Dormant,
}

/// What the sender must do differently.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Differences {
    /// Active devices without a fork.
    pub missing: Vec<(AccountId, DeviceId)>,
    /// Forks for devices that must not get one.
    pub extra: Vec<DeviceId>,
    /// Accounts by the list that was named for them (0: none), where it isn't the current one.
    pub stale: Vec<(AccountId, u64)>,
    /// The membership link named, if it isn't the current one.
    pub membership_after: Option<u64>,
}

impl Differences {
    fn none(&self) -> bool {
        *self == Self::default()
    }
}

/// Compares what the sender encrypted for with the audience.
///
/// # Errors
/// The differences, in the audience's order.
pub fn fork(
    request: &Request,
    audience: &Audience,
    sender: &DeviceIdentity,
    now_ms: u64,
) -> Result<Vec<Recipient>, Differences> {
    let mut differences = Differences::default();
    if request.membership_m != audience.conversation.m {
        differences.membership_after = Some(request.membership_m);
    }
    let mut recipients = Vec::with_capacity(request.forks.len() + 1);
    let mut used = 0;
    for account in &audience.accounts {
        let named = request.lists.get(&account.account_id).copied().unwrap_or(0);
        if named != account.n {
            differences.stale.push((account.account_id, named));
        }
        used += fork_account(request, account, sender, now_ms, &mut recipients, &mut differences.missing);
    }
    if used < request.forks.len() {
        differences.extra = extra(request, audience, sender);
    }
    if differences.none() { Ok(recipients) } else { Err(differences) }
}

/// Adds an account's recipients; tells how many of the request's forks they took.
fn fork_account(
    request: &Request,
    account: &AccountView,
    sender: &DeviceIdentity,
    now_ms: u64,
    recipients: &mut Vec<Recipient>,
    missing: &mut Vec<(AccountId, DeviceId)>,
) -> usize {
    let mut used = 0;
    for device in &account.devices {
        let header = request.forks.get(&device.device_id);
        let gets = if device.device_id == sender.device_id {
            Gets::Echo
        } else if device.state == DeviceState::Suspended {
            // It stays in the signed list, so senders encrypt for it; the node does not serve it.
            used += usize::from(header.is_some());
            continue;
        } else if let Some(header) = header {
            used += 1;
            Gets::Fork(header.clone())
        } else if device.prekey_not_after_ms <= now_ms {
            Gets::Dormant
        } else {
            missing.push((account.account_id, device.device_id));
            continue;
        };
        recipients.push(Recipient {
            device_key: device.device_key,
            device_id: device.device_id,
            mailbox_key: device.mailbox_key,
            list_n: account.n,
            gets,
        });
    }
    used
}

/// Forks for devices of nobody here, and one for the sending device itself.
fn extra(request: &Request, audience: &Audience, sender: &DeviceIdentity) -> Vec<DeviceId> {
    let listed = |id: &DeviceId| {
        *id != sender.device_id && audience.accounts.iter().any(|a| a.devices.iter().any(|d| d.device_id == *id))
    };
    let mut extra: Vec<_> = request.forks.keys().filter(|id| !listed(id)).copied().collect();
    extra.sort_unstable();
    extra
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc};

    use martlet_protocol::id::{ClientMessageId, ConversationId, Hash};
    use martlet_storage::{AccountKey, ConversationKey};

    use super::*;
    use crate::messages::directory::{ConversationView, DeviceView};

    const NOW_MS: u64 = 1_000;

    fn device_id(n: u8) -> DeviceId {
        DeviceId::new([n; 16])
    }

    fn account(n: u8, list_n: u64, devices: &[(u8, DeviceState, u64)]) -> Arc<AccountView> {
        let device = |(id, state, prekey_not_after_ms): &(u8, DeviceState, u64)| DeviceView {
            device_key: DeviceKey(i64::from(*id)),
            device_id: device_id(*id),
            mailbox_key: PublicKey::new([*id; 32]),
            state: *state,
            prekey_not_after_ms: *prekey_not_after_ms,
        };
        Arc::new(AccountView {
            account_key: AccountKey(i64::from(n)),
            account_id: AccountId::new([n; 16]),
            n: list_n,
            hash: Hash::new([n; 32]),
            suites: vec![1],
            devices: devices.iter().map(device).collect(),
            reread_at_ms: u64::MAX,
        })
    }

    /// Account 1 has devices 11 (the sender) and 12, account 2 has 21, 22 dormant and 23 suspended.
    fn audience() -> Audience {
        let (active, suspended) = (DeviceState::Active, DeviceState::Suspended);
        let first = account(1, 2, &[(11, active, 2_000), (12, active, 2_000)]);
        let second = account(2, 3, &[(21, active, 2_000), (22, active, 500), (23, suspended, 2_000)]);
        let members = vec![(first.account_key, first.account_id), (second.account_key, second.account_id)];
        let conversation = Arc::new(ConversationView { key: ConversationKey(1), m: 4, members });
        Audience { conversation, accounts: vec![first, second] }
    }

    fn sender() -> DeviceIdentity {
        DeviceIdentity {
            device_key: DeviceKey(11),
            device_id: device_id(11),
            account_key: AccountKey(1),
            account_id: AccountId::new([1; 16]),
        }
    }

    fn request(forks: &[u8]) -> Request {
        Request {
            client_message_id: ClientMessageId::new([9; 16]),
            conversation_id: ConversationId::new([8; 32]),
            suite: 1,
            membership_m: 4,
            lists: HashMap::from([(AccountId::new([1; 16]), 2), (AccountId::new([2; 16]), 3)]),
            content: Bytes::from_static(b"c"),
            forks: forks.iter().map(|n| (device_id(*n), Bytes::from(vec![1, *n]))).collect(),
            lifetime_s: None,
            group_epoch: None,
        }
    }

    fn kinds(recipients: &[Recipient]) -> Vec<(i64, &'static str)> {
        let kind = |gets: &Gets| match gets {
            Gets::Fork(_) => "fork",
            Gets::Echo => "echo",
            Gets::Dormant => "dormant",
        };
        recipients.iter().map(|recipient| (recipient.device_key.0, kind(&recipient.gets))).collect()
    }

    #[test]
    fn everybody_active_gets_a_fork_and_the_sender_an_echo() {
        let recipients = fork(&request(&[12, 21]), &audience(), &sender(), NOW_MS).ok();
        let kinds = recipients.as_deref().map(kinds);
        assert_eq!(kinds, Some(vec![(11, "echo"), (12, "fork"), (21, "fork"), (22, "dormant")]));
    }

    #[test]
    fn a_dormant_device_may_get_a_fork_and_a_suspended_one_is_left_out() {
        let recipients = fork(&request(&[12, 21, 22, 23]), &audience(), &sender(), NOW_MS).ok();
        let kinds = recipients.as_deref().map(kinds);
        assert_eq!(kinds, Some(vec![(11, "echo"), (12, "fork"), (21, "fork"), (22, "fork")]));
    }

    #[test]
    fn every_difference_is_told_at_once() {
        let mut request = request(&[11, 12, 99]);
        request.membership_m = 3;
        request.lists.remove(&AccountId::new([2; 16]));
        let differences = fork(&request, &audience(), &sender(), NOW_MS).err();
        let expected = Differences {
            missing: vec![(AccountId::new([2; 16]), device_id(21))],
            extra: vec![device_id(11), device_id(99)],
            stale: vec![(AccountId::new([2; 16]), 0)],
            membership_after: Some(3),
        };
        assert_eq!(differences, Some(expected));
    }
}
