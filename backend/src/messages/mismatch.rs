//! The mismatch answer: one shape, with everything a sender needs to try again — bundles for missing devices, the signed lists and
//! membership links after what it named.

use martlet_protocol::{
    rest::{ClaimAccount, ClaimAnswer},
    wire,
};
use martlet_storage::{Db, StorageError, db};

use super::{
    SendError,
    directory::{Audience, Directory},
    fork::{self, Differences},
    request::Request,
};
use crate::{
    accounts::{Accounts, DeviceIdentity},
    clock::Clock,
};

/// Explains refusals from the store, not from caches. Cheap to clone.
#[derive(Clone)]
pub struct Explainer {
    directory: Directory,
    accounts: Accounts,
    db: Db,
    clock: Clock,
}

impl Explainer {
    pub fn new(directory: Directory, accounts: Accounts, db: Db, clock: Clock) -> Self {
        Self { directory, accounts, db, clock }
    }

    /// What to tell a sender whose request did not fit what was cached or locked. If it fits what the store has now, the mismatch is
    /// empty: the sender tries again unchanged.
    pub async fn explain(&self, sender: &DeviceIdentity, request: &Request) -> SendError {
        match self.mismatch(sender, request).await {
            Ok(mismatch) => SendError::Mismatch(Box::new(mismatch)),
            Err(error) => error,
        }
    }

    /// The same for a message to a log: a link that is not the newest is answered with those after it. A sender who named none, or the newest,
    /// had the bad luck of a change between the look at the membership and the commit, and tries again unchanged.
    pub async fn explain_log(&self, sender: &DeviceIdentity, request: &Request) -> SendError {
        let log = match self.directory.fresh_log(sender, &request.conversation_id, self.clock.now_ms()).await {
            Ok(Some(log)) => log,
            Ok(None) => return SendError::NotFound,
            Err(error) => return error,
        };
        let named = request.membership_m;
        if named == 0 || named == log.m {
            return SendError::Busy;
        }
        let links = self.db.read(move |conn| db::conversations::links_after(conn, log.key, named)).await;
        match links {
            Ok(links) => {
                let membership = links.iter().map(Into::into).collect();
                SendError::Mismatch(Box::new(wire::Mismatch { membership, ..wire::Mismatch::default() }))
            }
            Err(error) => error.into(),
        }
    }

    async fn mismatch(&self, sender: &DeviceIdentity, request: &Request) -> Result<wire::Mismatch, SendError> {
        let now_ms = self.clock.now_ms();
        let audience = self.directory.fresh_audience(sender, &request.conversation_id, now_ms).await?;
        let Err(differences) = fork::fork(request, &audience, sender, now_ms) else {
            return Ok(wire::Mismatch::default());
        };
        let claimed = self.claim(sender, request, &differences).await?;
        let membership = self.membership_links(&audience, &differences).await?;
        Ok(wire::Mismatch {
            missing: claimed.bundles.iter().map(Into::into).collect(),
            extra_device_ids: differences.extra.iter().map(|id| id.to_wire()).collect(),
            stale: stale_heads(&audience, &differences),
            lists: claimed.lists.iter().filter(|lists| !lists.lists.is_empty()).map(Into::into).collect(),
            membership,
        })
    }

    /// Bundles of missing devices and lists of stale accounts, as one claim: so the claim limits count them. More accounts than the rate
    /// allows at this moment don't spoil the answer: the first ones come with their bundles, the others with their lists if those are stale,
    /// and the next answer begins with them. Only a sender who may claim nothing at all is told to wait.
    async fn claim(
        &self,
        sender: &DeviceIdentity,
        request: &Request,
        differences: &Differences,
    ) -> Result<ClaimAnswer, SendError> {
        let mut claims: Vec<ClaimAccount> = Vec::new();
        for (account_id, device_id) in &differences.missing {
            match claims.iter_mut().find(|claim| claim.account_id == *account_id) {
                Some(claim) => claim.device_ids.push(*device_id),
                None => claims.push(ClaimAccount {
                    account_id: *account_id,
                    known_n: request.lists.get(account_id).copied().unwrap_or(0),
                    device_ids: vec![*device_id],
                }),
            }
        }
        let mut answer = match claims.as_slice() {
            [] => ClaimAnswer { bundles: Vec::new(), lists: Vec::new(), dormant: Vec::new() },
            claims => self.accounts.claim_allowed(sender, claims).await?,
        };
        for (account_id, named) in &differences.stale {
            if answer.lists.iter().all(|lists| lists.account_id != *account_id) {
                answer.lists.push(self.accounts.lists_after(*account_id, *named).await?);
            }
        }
        Ok(answer)
    }

    async fn membership_links(
        &self,
        audience: &Audience,
        differences: &Differences,
    ) -> Result<Vec<wire::SignedMembershipLink>, StorageError> {
        let Some(named) = differences.membership_after else { return Ok(Vec::new()) };
        let key = audience.conversation.key;
        let links = self.db.read(move |conn| db::conversations::links_after(conn, key, named)).await?;
        Ok(links.iter().map(Into::into).collect())
    }
}

fn stale_heads(audience: &Audience, differences: &Differences) -> Vec<wire::ListHead> {
    let stale = |id| differences.stale.iter().any(|(account_id, _)| *account_id == id);
    let accounts = audience.accounts.iter().filter(|account| stale(account.account_id));
    accounts
        .map(|account| wire::ListHead {
            account_id: account.account_id.to_wire(),
            n: account.n,
            hash: account.hash.to_wire(),
        })
        .collect()
}
