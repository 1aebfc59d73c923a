//! Sending what is due: over the socket while it is open, by POST otherwise.

use martlet_protocol::{
    id::{Blob, ConversationId, InvalidText},
    problem::Code,
    rest, wire,
};
use tokio::sync::{mpsc, oneshot};

use super::{Client, FetchError};
use crate::{
    device::{Device, MismatchError, PrepareError, Prepared, SendHalt},
    error::ClientError,
    event::Event,
    refused::Refused,
    trust::{Halt, Need},
};

/// What one message may cause before it goes out: fetching, claiming, encrypting anew.
const MAX_STEPS_PER_MESSAGE: usize = 64;

/// What came of doing what a message needs first.
pub(super) enum Met {
    /// Go on with it.
    Go,
    /// It will never go out.
    Gone,
    /// Hold it.
    Refused(Refused),
}

/// A request on its way through the socket.
pub(crate) enum Submission {
    /// To be stored.
    Send { request: wire::SendRequest, answer: oneshot::Sender<Result<rest::Accepted, ClientError>> },
    /// Not to be stored.
    Ephemeral { request: wire::SendRequest, answer: oneshot::Sender<Result<(), ClientError>> },
}

/// The running connection's end for sending.
pub(crate) type SocketUplink = mpsc::Sender<Submission>;

impl Client {
    /// Sends everything that is due, receipts among it, and returns what became of it: sent, failed or held. Messages that are held or refused for good
    /// don't stop the others.
    ///
    /// # Errors
    /// One that passes: what is left stays in the outbox, unchanged, for the next call.
    pub async fn flush(&self) -> Result<Vec<Event>, ClientError> {
        let _turn = self.inner.sending.lock().await;
        self.device(|device| device.make_receipts(false))?;
        let mut outcomes = Vec::new();
        loop {
            let due: Vec<_> = self.device(|device| device.due());
            let due: Vec<_> = due.into_iter().filter(|(_, conversation)| self.held(*conversation).is_none()).collect();
            if due.is_empty() {
                return Ok(outcomes);
            }
            for (number, conversation) in due {
                let outcome = self.send_one(number, conversation).await?;
                self.emit(outcome.clone()).await;
                outcomes.extend(outcome);
            }
        }
    }

    /// Why sending in a conversation is stopped, if it is.
    #[must_use]
    pub fn held(&self, conversation: ConversationId) -> Option<Refused> {
        self.inner.held.lock().iter().find(|(id, _)| *id == conversation).map(|(_, refused)| *refused)
    }

    /// A human has looked: tries again.
    pub fn release_held(&self, conversation: ConversationId) {
        self.inner.held.lock().retain(|(id, _)| *id != conversation);
        self.wake();
    }

    async fn send_one(&self, number: u64, conversation: ConversationId) -> Result<Option<Event>, ClientError> {
        for _ in 0..MAX_STEPS_PER_MESSAGE {
            let prepared = match self.device(|device| device.prepare(number)) {
                Ok(None) => return Ok(None),
                Ok(Some(prepared)) => prepared,
                Err(PrepareError::Client(error)) => return Err(error),
                Err(PrepareError::Halt(halt)) => match self.meet(halt).await? {
                    Met::Go => continue,
                    Met::Gone => return self.fail(number, &ClientError::NoSuchConversation),
                    Met::Refused(refused) => return Ok(self.hold(number, conversation, refused)),
                },
            };
            match self.submit(&prepared).await {
                Ok(accepted) => {
                    return self.device(|device| device.on_accepted(number, &accepted));
                }
                Err(ClientError::Problem(problem)) if problem.mismatch.is_some() => {
                    let mismatch = problem.mismatch.unwrap_or_default();
                    if let Some(refused) = self.follow(|device| device.on_mismatch(number, &mismatch)).await? {
                        return Ok(self.hold(number, conversation, refused));
                    }
                }
                Err(error) if error.is_passing() || is_about_the_device(&error) => return Err(error),
                Err(error) => return self.fail(number, &error),
            }
        }
        Ok(self.hold(number, conversation, Refused::MismatchUnexplained))
    }

    /// Does what a message needs first.
    pub(super) async fn meet(&self, halt: SendHalt) -> Result<Met, ClientError> {
        match halt {
            SendHalt::Refused(refused) => Ok(Met::Refused(refused)),
            SendHalt::Gone => Ok(Met::Gone),
            SendHalt::Need(need) => Ok(self.fetch_or_refuse(need).await?.map_or(Met::Go, Met::Refused)),
            SendHalt::Claim(request) => {
                let answer = self.inner.api.claim(&request).await?;
                let result = self.device(|device| {
                    let result = device.absorb_claim(&request, &answer);
                    device.commit().map(|()| result)
                })?;
                match result {
                    Ok(events) => {
                        self.emit(events).await;
                        Ok(Met::Go)
                    }
                    Err(refused) => Ok(Met::Refused(refused)),
                }
            }
        }
    }

    async fn fetch_or_refuse(&self, need: Need) -> Result<Option<Refused>, ClientError> {
        match self.fetch(need).await {
            Ok(()) => Ok(None),
            Err(FetchError::Refused(refused)) => Ok(Some(refused)),
            Err(FetchError::Client(error)) => Err(error),
        }
    }

    /// Follows a mismatch as far as it is signed; returns what it was refused for.
    pub(super) async fn follow(
        &self,
        absorb: impl Fn(&mut Device) -> Result<Vec<Event>, MismatchError>,
    ) -> Result<Option<Refused>, ClientError> {
        let mut met: Vec<Need> = Vec::new();
        loop {
            match self.device(|device| absorb(device)) {
                Ok(events) => {
                    self.emit(events).await;
                    return Ok(None);
                }
                Err(MismatchError::Client(error)) => return Err(error),
                Err(MismatchError::Halt(Halt::Refused(refused))) => {
                    // What was learned before the refusal stays: it was signed.
                    self.device(|device| device.commit())?;
                    return Ok(Some(refused));
                }
                Err(MismatchError::Halt(Halt::Need(need))) if met.contains(&need) => {
                    return Ok(Some(Refused::ChainWithheld));
                }
                Err(MismatchError::Halt(Halt::Need(need))) => {
                    met.push(need);
                    if let Some(refused) = self.fetch_or_refuse(need).await? {
                        return Ok(Some(refused));
                    }
                }
            }
        }
    }

    fn hold(&self, number: u64, conversation: ConversationId, refused: Refused) -> Option<Event> {
        let client_message_id = self.device(|device| device.outgoing_id(number))?;
        self.inner.held.lock().push((conversation, refused));
        Some(Event::SendHeld { client_message_id, refused })
    }

    fn fail(&self, number: u64, error: &ClientError) -> Result<Option<Event>, ClientError> {
        self.device(|device| device.on_failed(number, error.code(), error.to_string()))
    }

    async fn submit(&self, prepared: &Prepared) -> Result<rest::Accepted, ClientError> {
        let uplink = self.inner.uplink.read().clone();
        if let Some(uplink) = uplink {
            let (answer, answered) = oneshot::channel();
            let submission = Submission::Send { request: prepared.request.clone(), answer };
            if uplink.send(submission).await.is_ok() {
                return match answered.await {
                    Ok(result) => result,
                    Err(_) => Err(ClientError::Unreachable("the socket closed before the answer".into())),
                };
            }
        }
        let (conversation, request) = to_rest(&prepared.request)
            .map_err(|_| ClientError::Store(crate::store::StoreError::Unreadable(crate::store::Table::Outbox)))?;
        self.inner.api.send(conversation, &request).await
    }
}

/// The token or the device is the trouble, not the message, which stays in the outbox.
fn is_about_the_device(error: &ClientError) -> bool {
    matches!(error.code(), Some(Code::Unauthenticated))
        || matches!(error, ClientError::Store(_) | ClientError::BadAnswer(_) | ClientError::Ended(_))
}

fn to_rest(request: &wire::SendRequest) -> Result<(ConversationId, rest::SendRequest), InvalidText> {
    let lists = request
        .lists
        .iter()
        .map(|list| Ok(rest::NamedList { account_id: list.account_id.as_ref().try_into()?, n: list.n }))
        .collect::<Result<_, InvalidText>>()?;
    let forks = request
        .forks
        .iter()
        .map(|fork| {
            Ok(rest::Fork { device_id: fork.device_id.as_ref().try_into()?, header: Blob(fork.header.clone()) })
        })
        .collect::<Result<_, InvalidText>>()?;
    let body = rest::SendRequest {
        client_message_id: request.client_message_id.as_ref().try_into()?,
        suite: request.suite,
        membership_m: request.membership_m,
        lists,
        content: Blob(request.content.clone()),
        forks,
        lifetime_seconds: request.lifetime_seconds,
    };
    Ok((request.conversation_id.as_ref().try_into()?, body))
}

/// What the socket answered with, as REST would have said it.
pub(crate) fn problem_from_wire(problem: &wire::Problem) -> ClientError {
    let mismatch = match problem.mismatch.as_ref().map(rest::Mismatch::try_from).transpose() {
        Ok(mismatch) => mismatch,
        Err(error) => return ClientError::BadAnswer(error.to_string()),
    };
    ClientError::Problem(Box::new(rest::Problem {
        kind: format!("urn:martlet:problem:{}", problem.code),
        code: problem.code.clone(),
        title: problem.title.clone(),
        status: u16::try_from(problem.status).unwrap_or(500),
        detail: problem.detail.clone(),
        request_id: String::new(),
        retry_after_ms: (problem.retry_after_ms != 0).then_some(problem.retry_after_ms),
        mismatch,
        lists: Vec::new(),
        membership: Vec::new(),
        conversation_id: None,
    }))
}
