//! Getting chains that something named, and believing them only as far as they verify.

use martlet_protocol::problem::Code;

use super::Client;
use crate::{
    error::ClientError,
    event::Event,
    refused::Refused,
    trust::{Halt, Need},
};

/// Chains name each other (a link names its signer's list), but never in long rows. A link that verified starts the count anew: a
/// membership may have as many signers as it has links.
const MAX_STEPS: usize = 64;

/// Why something could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// What the server shows is not acceptable, or not there.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The server or the store failed.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl From<FetchError> for ClientError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Refused(refused) => Self::Refused(refused),
            FetchError::Client(error) => error,
        }
    }
}

impl Client {
    /// Gets what is needed, and what that needs in turn.
    pub(crate) async fn fetch(&self, need: Need) -> Result<(), FetchError> {
        let mut stack = vec![need];
        let (mut steps, mut verified) = (0, None);
        while steps < MAX_STEPS {
            steps += 1;
            let Some(need) = stack.last().copied() else { return Ok(()) };
            if let Need::Membership { conversation_id, .. } = need {
                let stands = Some(self.device(|device| device.membership_need(conversation_id)));
                if verified != stands {
                    (steps, verified) = (0, stands);
                }
            }
            match self.fetch_one(need).await? {
                Some(deeper) if stack.contains(&deeper) => return Err(Refused::ChainWithheld.into()),
                Some(deeper) => stack.push(deeper),
                None => drop(stack.pop()),
            }
        }
        Err(Refused::ChainWithheld.into())
    }

    async fn fetch_one(&self, need: Need) -> Result<Option<Need>, FetchError> {
        match need {
            Need::Lists { account_id, after } => {
                let lists = self.inner.api.lists(account_id, after).await.map_err(withheld)?;
                let (change, known_n) = self.device(|device| -> Result<_, FetchError> {
                    let change = device.absorb_lists(&account_id, &lists.lists);
                    device.commit().map_err(ClientError::from)?;
                    let known_n = device.trust().account(&account_id).map_or(0, |account| account.chain().n());
                    Ok((change?, known_n))
                })?;
                // Another task may have fetched the same meanwhile, so what counts is where the chain stands.
                if known_n <= after {
                    return Err(Refused::ChainWithheld.into());
                }
                if !change.first_contact && !change.is_empty() {
                    let event = Event::DevicesChanged { account_id, added: change.added, removed: change.removed };
                    self.emit([event]).await;
                }
                Ok(None)
            }
            Need::Membership { conversation_id, .. } => {
                // Part of it may have been taken before a deeper need came up.
                let Need::Membership { after, .. } = self.device(|device| device.membership_need(conversation_id))
                else {
                    return Ok(None);
                };
                let links = self.inner.api.membership(conversation_id, after).await.map_err(withheld)?;
                let result = self.device(|device| -> Result<_, FetchError> {
                    let result = device.absorb_membership(&conversation_id, &links.links);
                    device.commit().map_err(ClientError::from)?;
                    Ok(result)
                })?;
                match result {
                    Ok(_) => {
                        self.emit([Event::MembershipChanged { conversation_id }]).await;
                        Ok(None)
                    }
                    Err(Halt::Need(deeper)) => Ok(Some(deeper)),
                    Err(Halt::Refused(refused)) => Err(refused.into()),
                }
            }
        }
    }
}

/// An object that a signed message names and the server says is not there is kept back, as far as a client can tell.
fn withheld(error: ClientError) -> FetchError {
    if error.code() == Some(Code::NotFound) { Refused::ChainWithheld.into() } else { error.into() }
}
