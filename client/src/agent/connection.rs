//! One socket's life: hello, resume, read, acknowledge, send, until it ends.

use std::{collections::HashMap, time::Duration};

use futures_util::FutureExt as _;
use martlet_protocol::{
    problem::{Code, close},
    rest,
    wire::{self, client_frame, node_frame},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior},
};

use super::{Backoff, upkeep::Upkeep};
use crate::{
    Client, ClientError, Refused,
    client::{FetchError, SocketUplink, Submission, problem_from_wire},
    event::Event,
    socket::{FrameSink, FrameStream, SocketError, connect},
    trust::Need,
};

/// Acks are cumulative, so they may wait for more.
const ACK_DELAY: Duration = Duration::from_millis(200);
/// So many entries are acknowledged without waiting.
const ACK_ENTRIES: u64 = 256;
/// Entries that are stored in one transaction when they arrive together.
const MAX_BURST: usize = 64;
/// The node pings every 30 s unless told otherwise; after three missed ones the socket is taken for dead.
const SILENCE: Duration = Duration::from_secs(100);
const HELLO_PATIENCE: Duration = Duration::from_secs(15);
const UPKEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// Sends that may wait for the socket.
const UPLINK_QUEUE: usize = 8;
const RESUME_REF: u64 = 1;
/// What one ephemeral message may cause to be fetched.
const MAX_EPHEMERAL_NEEDS: usize = 4;

/// How a socket's life ended.
pub(super) enum End {
    /// The application wants no more.
    Stopped,
    /// The device is no more, or is open elsewhere.
    Ended(String),
    /// Try again, after this long if the node said so.
    Retry { after: Option<Duration>, why: String },
}

impl From<SocketError> for End {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Unauthenticated => Self::Ended(error.to_string()),
            SocketError::Closed { code: close::REPLACED } => {
                Self::Ended("another program uses this device now".to_owned())
            }
            other => Self::Retry { after: None, why: other.to_string() },
        }
    }
}

impl From<ClientError> for End {
    fn from(error: ClientError) -> Self {
        match &error {
            // A store that failed must be opened anew, which is for the application to do.
            ClientError::Store(_) => Self::Ended(error.to_string()),
            _ if error.code() == Some(Code::Unauthenticated) => Self::Ended(error.to_string()),
            _ => Self::Retry { after: error.retry_after_ms().map(Duration::from_millis), why: error.to_string() },
        }
    }
}

/// Runs one socket to its end.
pub(super) async fn serve(
    client: &Client,
    stopped: &mut watch::Receiver<bool>,
    ready: &watch::Sender<bool>,
    backoff: &mut Backoff,
) -> End {
    let token = client.api().token();
    if token.is_empty() {
        return End::Ended("this device has no token: sign in".to_owned());
    }
    let device_id = client.device(|device| device.device_id());
    let connecting = connect(client.api().base(), &token, device_id);
    let (sink, stream) = tokio::select! {
        connected = connecting => match connected {
            Ok(connected) => connected,
            Err(error) => return error.into(),
        },
        _ = stopped.changed() => return End::Stopped,
    };
    let (uplink, submissions) = mpsc::channel(UPLINK_QUEUE);
    let mut connection = Connection {
        client,
        sink,
        stream,
        submissions,
        answers: HashMap::new(),
        last_ref: RESUME_REF,
        unacked: 0,
        ack_at: None,
        retry_after: None,
        upkeep: Upkeep::default(),
    };
    match connection.run(stopped, ready, backoff, uplink).await {
        Ok(()) => End::Stopped,
        Err(End::Retry { after, why }) => End::Retry { after: connection.retry_after.or(after), why },
        Err(end) => end,
    }
}

/// Who waits for an answer.
enum Waiting {
    Send(oneshot::Sender<Result<rest::Accepted, ClientError>>),
    Ephemeral(oneshot::Sender<Result<(), ClientError>>),
}

struct Connection<'a> {
    client: &'a Client,
    sink: FrameSink,
    stream: FrameStream,
    submissions: mpsc::Receiver<Submission>,
    answers: HashMap<u64, Waiting>,
    last_ref: u64,
    /// Entries stored since the last ack.
    unacked: u64,
    ack_at: Option<Instant>,
    /// From a `Draining` frame.
    retry_after: Option<Duration>,
    upkeep: Upkeep,
}

impl Connection<'_> {
    async fn run(
        &mut self,
        stopped: &mut watch::Receiver<bool>,
        ready: &watch::Sender<bool>,
        backoff: &mut Backoff,
        uplink: SocketUplink,
    ) -> Result<(), End> {
        let hello = tokio::time::timeout(HELLO_PATIENCE, self.stream.next(SILENCE))
            .await
            .map_err(|_| SocketError::Failed("no hello in time".into()))??;
        let Some(node_frame::Frame::Hello(hello)) = hello.frame else { return Err(SocketError::Unreadable.into()) };
        self.take_hello(&hello).await?;
        self.resume().await?;
        self.client.set_uplink(Some(uplink));
        self.client.emit([Event::Connected { node_id: hello.node_id }]).await;
        let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (ack_at, upkeep_at) = (self.ack_at, self.upkeep.again_at());
            tokio::select! {
                frame = self.stream.next(SILENCE) => {
                    if self.take_burst(frame?, ready).await? {
                        backoff.reset();
                    }
                }
                Some(submission) = self.submissions.recv() => self.submit(submission).await?,
                () = sleep_until(ack_at) => self.ack().await?,
                _ = upkeep.tick() => self.upkeep.run(self.client).await?,
                () = sleep_until(upkeep_at) => self.upkeep.run(self.client).await?,
                _ = stopped.changed() => {
                    self.ack().await?;
                    self.sink.close().await;
                    return Ok(());
                }
            }
            if self.upkeep.is_due() {
                self.upkeep.run(self.client).await?;
            }
        }
    }

    async fn resume(&mut self) -> Result<(), End> {
        let mailbox = self.client.device(|device| device.cursor());
        let resume = client_frame::Frame::Resume(wire::Resume { mailbox });
        Ok(self.sink.send(&wire::ClientFrame { r#ref: RESUME_REF, frame: Some(resume) }).await?)
    }

    async fn take_hello(&mut self, hello: &wire::Hello) -> Result<(), End> {
        let advice = self.client.device(|device| device.on_hello(hello)).map_err(ClientError::from)?;
        self.client.emit(advice.events).await;
        for need in advice.needs {
            match self.client.fetch(need).await {
                Ok(()) => {}
                Err(FetchError::Refused(refused)) => {
                    self.client.emit([Event::Refused { refused, seq: 0, sender_device: None }]).await;
                }
                Err(FetchError::Client(error)) => return Err(error.into()),
            }
        }
        self.upkeep.counted(advice.one_time_stock);
        Ok(())
    }

    /// Takes a frame and those that are there already, stores them together, then tells and acknowledges. Returns whether the backlog is
    /// read.
    async fn take_burst(&mut self, first: wire::NodeFrame, ready: &watch::Sender<bool>) -> Result<bool, End> {
        let mut events = Vec::new();
        let mut is_caught_up = false;
        let mut next = Some(first);
        let mut taken = 0;
        let mut end: Option<End> = None;
        while let Some(frame) = next.take() {
            match self.take_frame(frame, &mut events).await {
                Ok(caught_up) => is_caught_up |= caught_up,
                Err(error) => end = Some(error),
            }
            taken += 1;
            if end.is_none() && taken < MAX_BURST {
                match self.stream.next(SILENCE).now_or_never() {
                    Some(Ok(frame)) => next = Some(frame),
                    Some(Err(error)) => end = Some(error.into()),
                    None => {}
                }
            }
        }
        // Whatever ended the burst, what came before it is stored and told.
        self.client.device(|device| device.commit()).map_err(ClientError::from)?;
        self.client.emit(events).await;
        // What was read may have made messages (a resend request, for one).
        self.client.wake();
        if is_caught_up {
            self.client.emit([Event::CaughtUp]).await;
            // The sender of the outbox may be gone already.
            let _ = ready.send(true);
        }
        if let Some(end) = end {
            return Err(end);
        }
        if self.unacked >= ACK_ENTRIES {
            self.ack().await?;
        }
        Ok(is_caught_up)
    }

    /// Returns whether the backlog is read.
    async fn take_frame(&mut self, frame: wire::NodeFrame, events: &mut Vec<Event>) -> Result<bool, End> {
        match frame.frame {
            Some(node_frame::Frame::Entry(entry)) => self.take_entry(&entry, events).await?,
            Some(node_frame::Frame::Gap(gap)) => {
                events.extend(self.client.device(|device| device.receive_gap(&gap)));
                self.ack_soon();
            }
            Some(node_frame::Frame::Accepted(accepted)) => {
                let accepted = rest::Accepted::try_from(&accepted).map_err(|e| ClientError::BadAnswer(e.to_string()));
                self.answer(frame.r#ref, accepted.map(Some));
            }
            Some(node_frame::Frame::AcceptedEphemeral(_)) => self.answer(frame.r#ref, Ok(None)),
            Some(node_frame::Frame::Ephemeral(ephemeral)) => {
                events.extend(take_ephemeral(self.client, &ephemeral).await);
            }
            Some(node_frame::Frame::Problem(problem)) if frame.r#ref == RESUME_REF => {
                return Err(self.resume_refused(&problem));
            }
            Some(node_frame::Frame::Problem(problem)) => self.answer(frame.r#ref, Err(problem_from_wire(&problem))),
            Some(node_frame::Frame::Hello(hello)) => self.take_hello(&hello).await?,
            Some(node_frame::Frame::Draining(draining)) => {
                self.retry_after = Some(Duration::from_millis(u64::from(draining.retry_after_ms)));
            }
            Some(node_frame::Frame::CaughtUp(_)) => return Ok(true),
            // Of logs, which this client does not subscribe to, or of a newer server: nothing that this version has to know.
            Some(
                node_frame::Frame::Subscribed(_)
                | node_frame::Frame::Unsubscribed(_)
                | node_frame::Frame::LogItems(_)
                | node_frame::Frame::LogEnded(_),
            )
            | None => {}
        }
        Ok(false)
    }

    fn resume_refused(&self, problem: &wire::Problem) -> End {
        if matches!(Code::parse(&problem.code), Some(Code::CursorAhead | Code::CursorEpoch)) {
            // The server went back in time: read all it has; repeats are recognised.
            self.client.device(|device| device.restart_stream());
        }
        problem_from_wire(problem).into()
    }

    async fn take_entry(&mut self, entry: &wire::MailboxEntry, events: &mut Vec<Event>) -> Result<(), End> {
        let mut met: Vec<Need> = Vec::new();
        loop {
            let need = match self.client.device(|device| device.receive(entry)) {
                Ok(news) => {
                    events.extend(news);
                    break;
                }
                Err(need) => need,
            };
            let fetched = if met.contains(&need) {
                Err(FetchError::Refused(Refused::ChainWithheld))
            } else {
                met.push(need);
                self.client.fetch(need).await
            };
            match fetched {
                Ok(()) => {}
                Err(FetchError::Refused(refused)) => {
                    events.extend(self.client.device(|device| device.refuse_entry(entry, refused)));
                    break;
                }
                Err(FetchError::Client(error)) => return Err(error.into()),
            }
        }
        self.ack_soon();
        Ok(())
    }

    fn ack_soon(&mut self) {
        self.unacked += 1;
        self.ack_at.get_or_insert_with(|| deadline(ACK_DELAY));
    }

    async fn ack(&mut self) -> Result<(), End> {
        self.ack_at = None;
        if self.unacked == 0 {
            return Ok(());
        }
        self.unacked = 0;
        let mailbox = self.client.device(|device| device.cursor());
        let ack = client_frame::Frame::Ack(wire::Ack { mailbox });
        Ok(self.sink.send(&wire::ClientFrame { r#ref: 0, frame: Some(ack) }).await?)
    }

    async fn submit(&mut self, submission: Submission) -> Result<(), End> {
        self.last_ref += 1;
        let (send, waiting) = match submission {
            Submission::Send { request, answer } => (client_frame::Frame::Send(request), Waiting::Send(answer)),
            Submission::Ephemeral { request, answer } => {
                (client_frame::Frame::SendEphemeral(request), Waiting::Ephemeral(answer))
            }
        };
        self.answers.insert(self.last_ref, waiting);
        Ok(self.sink.send(&wire::ClientFrame { r#ref: self.last_ref, frame: Some(send) }).await?)
    }

    /// Only an acceptance of what is stored says more than that.
    fn answer(&mut self, r#ref: u64, result: Result<Option<rest::Accepted>, ClientError>) {
        let other_kind = || ClientError::BadAnswer("it accepts another kind of message".to_owned());
        // Who asked may be gone; what is stored has its answer in the echo too.
        match self.answers.remove(&r#ref) {
            Some(Waiting::Send(answer)) => drop(answer.send(result.and_then(|sent| sent.ok_or_else(other_kind)))),
            Some(Waiting::Ephemeral(answer)) => drop(answer.send(result.map(drop))),
            None => {}
        }
    }
}

/// What is ephemeral is not worth much trouble: a chain that it names is fetched once, and if it still can't be judged it is dropped.
async fn take_ephemeral(client: &Client, ephemeral: &wire::Ephemeral) -> Vec<Event> {
    for _ in 0..MAX_EPHEMERAL_NEEDS {
        match client.device(|device| device.receive_ephemeral(ephemeral)) {
            Ok(events) => return events,
            Err(need) => match client.fetch(need).await {
                Ok(()) => {}
                Err(FetchError::Refused(refused)) => {
                    return vec![Event::Refused { refused, seq: 0, sender_device: None }];
                }
                Err(FetchError::Client(error)) => {
                    tracing::debug!(%error, "an ephemeral message is dropped");
                    return Vec::new();
                }
            },
        }
    }
    Vec::new()
}

fn deadline(after: Duration) -> Instant {
    Instant::now() + after
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
