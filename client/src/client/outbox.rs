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

/// What one message may cause before it goes out: fetching, claiming, encrypting anew. What members may cause comes on top.
const STEPS_PER_MESSAGE: usize = 64;
/// What each member may cause: its lists are fetched one by one, and now and then a second time, because they changed meanwhile.
const STEPS_PER_MEMBER: usize = 2;
/// How long a conversation waits at least after a refusal that passes, in milliseconds.
const SHORTEST_WAIT_MS: u64 = 1_000;
/// How long it waits if the server doesn't say, in milliseconds.
const UNTOLD_WAIT_MS: u64 = 10_000;
/// So many conversations are refused one after the other before the others are left for later: it is likely the whole device then that
/// has to wait.
const REFUSALS_IN_A_ROW: usize = 32;

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
    /// don't stop the others, and neither does a conversation that has to wait.
    ///
    /// # Errors
    /// One that passes: what is left stays in the outbox, unchanged, for the next call.
    pub async fn flush(&self) -> Result<Vec<Event>, ClientError> {
        self.inner.waiting.lock().clear();
        self.flush_due().await
    }

    /// The same without the conversations whose time has not come yet.
    pub(crate) async fn flush_due(&self) -> Result<Vec<Event>, ClientError> {
        let _turn = self.inner.sending.lock().await;
        self.device(|device| device.make_receipts(false))?;
        let mut outcomes = Vec::new();
        let (mut first_wait, mut refusals) = (None, 0);
        loop {
            self.end_waits();
            let due: Vec<_> = self.device(|device| device.due());
            let due: Vec<_> = due.into_iter().filter(|(_, conversation)| self.may_send(*conversation)).collect();
            if due.is_empty() {
                return first_wait.map_or(Ok(outcomes), Err);
            }
            for (number, conversation) in due {
                match self.send_one(number, conversation).await {
                    Ok(outcome) => {
                        self.emit(outcome.clone()).await;
                        outcomes.extend(outcome);
                        refusals = 0;
                    }
                    Err(error) if is_about_one_conversation(&error) => {
                        self.put_off(conversation, error.retry_after_ms());
                        refusals += 1;
                        if refusals == REFUSALS_IN_A_ROW {
                            return Err(error);
                        }
                        first_wait = first_wait.or(Some(error));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }

    fn may_send(&self, conversation: ConversationId) -> bool {
        let waits = self.inner.waiting.lock().iter().any(|(id, _)| *id == conversation);
        !waits && self.held(conversation).is_none()
    }

    /// Its messages wait, in their order, while others' go out.
    fn put_off(&self, conversation: ConversationId, retry_after_ms: Option<u64>) {
        let pause_ms = retry_after_ms.unwrap_or(UNTOLD_WAIT_MS).max(SHORTEST_WAIT_MS);
        let until_ms = self.device(|device| device.now_ms()).saturating_add(pause_ms);
        self.inner.waiting.lock().push((conversation, until_ms));
    }

    fn end_waits(&self) {
        let now_ms = self.device(|device| device.now_ms());
        self.inner.waiting.lock().retain(|(_, until_ms)| *until_ms > now_ms);
    }

    /// When the first conversation that waits is to be tried again, in Unix milliseconds; none if none waits.
    pub(crate) fn wait_ends_at_ms(&self) -> Option<u64> {
        self.inner.waiting.lock().iter().map(|(_, until_ms)| *until_ms).min()
    }

    /// How many steps something for a conversation may take: so many, and some for each member. A server that always names one thing
    /// more to do is left at that.
    pub(super) fn steps_allowed(&self, conversation: ConversationId, own: usize) -> usize {
        let members = self
            .device(|device| device.trust().conversation(&conversation).map_or(0, |known| known.head().members.len()));
        own.saturating_add(members.saturating_mul(STEPS_PER_MEMBER))
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
        let mut steps = 0;
        while steps < self.steps_allowed(conversation, STEPS_PER_MESSAGE) {
            steps += 1;
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

/// What the server says of this conversation's claims, lookups or messages. Others may go out all the same, which they may not while
/// the token is not good or the node can't serve.
pub(crate) fn is_about_one_conversation(error: &ClientError) -> bool {
    error.code().is_some_and(|code| !matches!(code, Code::Unauthenticated | Code::Busy | Code::Unavailable))
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
        group_epoch: None,
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
        group_epoch: (problem.group_epoch > 0).then_some(problem.group_epoch),
    }))
}
