//! A further device: offering itself, and being let in by one that is listed already.

use martlet_protocol::{
    chain::devices::DeviceChain,
    crypto::{DhSecret, KNOWN_SUITES},
    id::{AccountId, Blob, Hash},
    link::{CheckedOffer, LinkCode, LinkError, check_offer, open_answer, seal_answer},
    problem::Code,
    rest::{self, DeviceLabel, SignedDeviceList},
    wire,
};
use prost::Message as _;

use super::{Client, Options};
use crate::{
    api::Api,
    device::{Device, Founding},
    error::ClientError,
    identity::{DeviceKeys, PrekeyRing},
    refused::Refused,
};

/// A device that waits to be let into an account.
pub struct NewDevice {
    options: Options,
    api: Api,
    keys: DeviceKeys,
    ephemeral: DhSecret,
    label: DeviceLabel,
    code: LinkCode,
    poll_secret: String,
    expires_at_ms: u64,
}

/// What both screens show, to be compared by people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmation {
    /// The account's name.
    pub username: String,
    /// SHA-256 of its list 1.
    pub fingerprint: Hash,
    /// Number of the list with the new device.
    pub list_n: u64,
    /// Its hash.
    pub list_hash: Hash,
}

impl NewDevice {
    /// Makes keys and offers them to the server; show [`Self::code`] to an existing device.
    ///
    /// # Errors
    /// [`ClientError::DeviceExists`], a problem.
    pub async fn offer(mut options: Options, label: DeviceLabel) -> Result<Self, ClientError> {
        if Device::exists(&options.store)? {
            return Err(ClientError::DeviceExists);
        }
        let api = Api::new(&options.server)?;
        // Which account it will belong to is told by the answer.
        let keys = DeviceKeys::generate(AccountId::new([0; AccountId::LEN]), &mut options.rng);
        let ephemeral = DhSecret::generate(&mut options.rng);
        let offer = wire::LinkOffer {
            device_id: keys.device_id.to_wire(),
            signing_key: keys.signing.public().to_wire(),
            mailbox_key: keys.mailbox.public().to_wire(),
            suites: KNOWN_SUITES.to_vec(),
            ephemeral_key: ephemeral.public().to_wire(),
            name: label.name.clone(),
            platform: label.platform.clone(),
        }
        .encode_to_vec();
        let started = api.start_link(&rest::LinkStart { offer: offer.clone().into() }).await?;
        let code = LinkCode::new(&mut options.rng, started.link_id, &offer);
        let rest::LinkStarted { poll_secret, expires_at_ms, .. } = started;
        Ok(Self { options, api, keys, ephemeral, label, code, poll_secret, expires_at_ms })
    }

    /// What people carry to an existing device. It lets whoever reads it first answer, so show it to nobody else.
    #[must_use]
    pub fn code(&self) -> String {
        self.code.to_text().to_string()
    }

    /// Asks once whether an existing device has answered.
    ///
    /// # Errors
    /// [`ClientError::LinkExpired`], [`ClientError::Refused`] for an answer that wasn't made under the code, a problem.
    pub async fn poll(&self) -> Result<Option<Answered>, ClientError> {
        let poll = rest::LinkPoll { poll_secret: self.poll_secret.clone() };
        let polled = match self.api.poll_link(self.code.link_id, &poll).await {
            Err(error) if matches!(error.code(), Some(Code::LinkInvalid | Code::NotFound)) => {
                return Err(ClientError::LinkExpired);
            }
            other => other?,
        };
        let Some(Blob(sealed)) = polled.answer else { return Ok(None) };
        let answer = open_answer(&self.code, &self.ephemeral, &sealed).map_err(|_| Refused::LinkAnswerForged)?;
        check_answer(&self.keys, &answer).map(Some)
    }

    /// Asks every `every` until somebody has answered.
    ///
    /// # Errors
    /// As [`Self::poll`].
    pub async fn wait(&self, every: std::time::Duration) -> Result<Answered, ClientError> {
        loop {
            match self.poll().await {
                Ok(Some(answered)) => return Ok(answered),
                Ok(None) => {}
                Err(error) if error.is_passing() => {}
                Err(error) => return Err(error),
            }
            if self.options.clock.now_ms() > self.expires_at_ms {
                return Err(ClientError::LinkExpired);
            }
            tokio::time::sleep(every).await;
        }
    }

    /// Signs the list that adds this device, stores its keys and completes the link.
    ///
    /// # Errors
    /// A problem; if it is `device_list_conflict`, another device changed the list meanwhile: start again.
    pub async fn complete(self, answered: Answered) -> Result<Client, ClientError> {
        let Self { options, api, mut keys, label, code, poll_secret, .. } = self;
        let Options { store, clock, mut rng, .. } = options;
        let Answered { account_id, username, lists, chain, proposed } = answered;
        keys.account_id = account_id;
        let device_list = chain.countersign(&proposed, &keys.device_id, &keys.signing).map_err(Refused::from)?;
        let head = chain.extend(&device_list).map_err(Refused::from)?.head();
        let mut prekeys = PrekeyRing::default();
        let upload = prekeys.first_upload(&keys, &head, crate::device::ONE_TIME_TARGET, clock.now_ms(), &mut rng);
        let lists = lists.into_iter().chain([device_list.clone()]).collect();
        let founding = Founding { keys, prekeys, lists, username, server: api.base().to_owned() };
        let client = Client::new(Device::found(store, founding, clock, rng)?, api);
        let complete = rest::LinkComplete { poll_secret, device_list, label, prekeys: upload.clone() };
        match client.inner.api.complete_link(code.link_id, &complete).await {
            Ok(session) => {
                client.take_session(&session)?;
                client.inner.device.lock().on_prekeys_uploaded(&upload)?;
                Ok(client)
            }
            Err(error) => Err(client.abandon_if_refused(error)),
        }
    }
}

/// An answer that was opened under the code and whose chain holds.
pub struct Answered {
    account_id: AccountId,
    username: String,
    lists: Vec<SignedDeviceList>,
    chain: DeviceChain,
    proposed: SignedDeviceList,
}

impl Answered {
    /// What both screens show.
    #[must_use]
    pub fn confirmation(&self) -> Confirmation {
        Confirmation {
            username: self.username.clone(),
            fingerprint: self.chain.fingerprint(),
            list_n: self.chain.n() + 1,
            list_hash: Hash::of(&self.proposed.list.0),
        }
    }
}

fn check_answer(keys: &DeviceKeys, answer: &wire::LinkAnswer) -> Result<Answered, ClientError> {
    let forged = |_| Refused::LinkAnswerForged;
    let lists: Vec<SignedDeviceList> =
        answer.lists.iter().map(TryInto::try_into).collect::<Result<_, _>>().map_err(forged)?;
    let proposed = answer.proposed.as_ref().ok_or(Refused::LinkAnswerForged)?;
    let proposed = SignedDeviceList::try_from(proposed).map_err(forged)?;
    let account_id = AccountId::try_from(answer.account_id.as_ref()).map_err(forged)?;
    let chain = DeviceChain::replay(&lists).map_err(Refused::from)?;
    if *chain.account_id() != account_id {
        return Err(Refused::LinkAnswerForged.into());
    }
    chain.countersign(&proposed, &keys.device_id, &keys.signing).map_err(Refused::from)?;
    Ok(Answered { account_id, username: answer.username.clone(), lists, chain, proposed })
}

impl Client {
    /// Lets a new device into this device's account, if `confirm` says so after seeing what the new device calls itself.
    ///
    /// # Errors
    /// [`ClientError::BadLinkCode`], [`ClientError::LinkNotConfirmed`], [`ClientError::Refused`] for another offer than the code's.
    pub async fn accept_link(
        &self,
        code: &str,
        confirm: impl FnOnce(&CheckedOffer) -> bool,
    ) -> Result<Confirmation, ClientError> {
        let code = LinkCode::from_text(code).map_err(|error| ClientError::BadLinkCode(error.to_string()))?;
        let offered = self.inner.api.link(code.link_id).await.map_err(|error| match error.code() {
            Some(Code::NotFound | Code::LinkInvalid) => ClientError::LinkExpired,
            _ => error,
        })?;
        let offer = check_offer(&code, &offered.offer.0).map_err(|error| match error {
            LinkError::OfferMismatch => ClientError::Refused(Refused::LinkOfferSwapped),
            other => ClientError::BadLinkCode(other.to_string()),
        })?;
        if !confirm(&offer) {
            return Err(ClientError::LinkNotConfirmed);
        }
        self.refresh_own_list().await?;
        let (sealed, confirmation) = self.device(|device| make_answer(device, &code, &offer))?;
        self.inner.api.answer_link(code.link_id, &rest::LinkAnswered { answer: Blob(sealed) }).await?;
        Ok(confirmation)
    }

    /// Waits until the list that a link proposed is there.
    ///
    /// # Errors
    /// [`ClientError::LinkExpired`] after `patience`; [`ClientError::Refused`] if another list came in its place.
    pub async fn wait_for_list(
        &self,
        confirmation: &Confirmation,
        patience: std::time::Duration,
    ) -> Result<(), ClientError> {
        let waiting = async {
            loop {
                self.refresh_own_list().await?;
                let head = self.device(|device| device.own_head());
                if head.n >= confirmation.list_n {
                    return Ok(());
                }
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            }
        };
        tokio::time::timeout(patience, waiting).await.unwrap_or(Err(ClientError::LinkExpired))
    }
}

fn make_answer(
    device: &mut Device,
    code: &LinkCode,
    offer: &CheckedOffer,
) -> Result<(bytes::Bytes, Confirmation), ClientError> {
    let now_ms = device.now_ms();
    let next = device.own_list()?.with_device(offer.listed(now_ms), now_ms);
    let keys = device.keys().clone();
    let proposed = SignedDeviceList::sign(&next, &keys.device_id, &keys.signing);
    let account = device.trust().account(&keys.account_id).ok_or(ClientError::NoDevice)?;
    let confirmation = Confirmation {
        username: device.username().to_owned(),
        fingerprint: account.chain().fingerprint(),
        list_n: next.n,
        list_hash: next.hash(),
    };
    let answer = wire::LinkAnswer {
        account_id: keys.account_id.to_wire(),
        username: device.username().to_owned(),
        lists: account.lists().iter().map(Into::into).collect(),
        proposed: Some((&proposed).into()),
    };
    let sealed =
        seal_answer(device.rng(), code, offer, &answer).map_err(|error| ClientError::BadLinkCode(error.to_string()))?;
    Ok((sealed, confirmation))
}
