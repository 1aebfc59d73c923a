//! A message's way from an authenticated device to the commit: limits → fork → seal → commit → answer → relay. An ephemeral message goes
//! the same way without a commit; one to a large conversation is neither forked nor sealed but appended to its log as it came.
//!
//! [`Messages::submit`] and [`Messages::send_ephemeral`] are these ways, as named steps. [`directory`] knows who the recipients are,
//! [`fork`] compares that with what the sender encrypted for, [`seal`] closes each entry to its device, [`commit`] writes many sends in
//! one transaction, [`answer`] keeps first answers for retries, [`mismatch`] tells a sender what to do differently.
//!
//! It does not read mailboxes (that is `streams`) and never looks into content or headers.

mod answer;
mod batch;
mod commit;
mod directory;
mod error;
mod fork;
mod mismatch;
mod request;
mod seal;

use std::{io, sync::Arc, time::Duration};

use martlet_protocol::wire;
use martlet_storage::{Db, DeviceKey};
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::{sync::oneshot, time};

use crate::{
    accounts::{Accounts, DeviceIdentity},
    clock::Clock,
    config::Config,
    limits::Limits,
    measures::Measures,
    secrets::Secrets,
    streams::Streams,
};

pub use error::SendError;

use answer::{Answers, RequestKey};
use commit::{Committer, Job};
use directory::{Audience, Directory};
use fork::Recipient;
use mismatch::Explainer;
use request::Request;
use seal::Sealer;

/// Between two tries to reach a store that is away.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Hears what became of a send. Called on the commit thread or a worker, so it must not block.
pub type Reply = Box<dyn FnOnce(Result<wire::Accepted, SendError>) + Send>;

/// Accepts messages. Cheap to clone.
#[derive(Clone)]
pub struct Messages(Arc<Inner>);

struct Inner {
    config: Arc<Config>,
    clock: Clock,
    limits: Limits,
    directory: Directory,
    sealer: Sealer,
    answers: Arc<Answers>,
    explainer: Explainer,
    committer: Committer,
    streams: Streams,
}

/// Who gets a message that fits what the node has.
struct Forked {
    request: Request,
    audience: Audience,
    recipients: Vec<Recipient>,
    now_ms: u64,
}

/// What [`Messages::start`] needs.
pub struct Parts {
    /// Limits on messages and mailboxes.
    pub config: Arc<Config>,
    /// When a message is accepted.
    pub clock: Clock,
    /// Keys that must not be in the database.
    pub secrets: Arc<Secrets>,
    /// Rates.
    pub limits: Limits,
    /// Where sends are committed.
    pub db: Db,
    /// Gives out bundles with a mismatch.
    pub accounts: Accounts,
    /// Gets what was committed.
    pub streams: Streams,
    /// How long it took.
    pub measures: Measures,
    /// Seeds ids and seal keys; from the operating system.
    pub seed: [u8; 32],
}

impl Messages {
    /// Starts the commit thread. Must be called within a tokio runtime, on which mismatches found by the commit are explained.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn start(parts: Parts) -> io::Result<Self> {
        let answers = Arc::new(Answers::new(parts.secrets));
        let directory = Directory::new(parts.db.clone(), parts.config.storage.timeout);
        let explainer = Explainer::new(directory.clone(), parts.accounts, parts.db.clone(), parts.clock.clone());
        let committer = Committer::start(&commit::Parts {
            config: parts.config.clone(),
            clock: parts.clock.clone(),
            db: parts.db,
            streams: parts.streams.clone(),
            answers: answers.clone(),
            explainer: explainer.clone(),
            measures: parts.measures,
            runtime: tokio::runtime::Handle::current(),
        })?;
        let sealer = Sealer::new(&parts.config, StdRng::from_seed(parts.seed));
        Ok(Self(Arc::new(Inner {
            config: parts.config,
            clock: parts.clock,
            limits: parts.limits,
            directory,
            sealer,
            answers,
            explainer,
            committer,
            streams: parts.streams,
        })))
    }

    /// Takes one message on its way. Returns once it stands in the commit queue or was refused; `reply` hears of the outcome after the
    /// commit. To keep a device's order, submit its sends one after the other.
    pub async fn submit(&self, sender: DeviceIdentity, request: wire::SendRequest, reply: Reply) {
        let inner = &*self.0;
        let key = inner.answers.request_key(&sender.device_id, &request);
        match inner.prepare(sender, request, &key).await {
            Ok(prepared) => inner.committer.send(sender.device_key, prepared, reply),
            Err(refused) => reply(inner.first_answer_or(refused, sender.device_key, key).await),
        }
    }

    /// [`Self::submit`] and its outcome, for callers that handle one send at a time.
    ///
    /// # Errors
    /// See [`SendError`]; unless it says otherwise nothing was stored.
    pub async fn send(&self, sender: DeviceIdentity, request: wire::SendRequest) -> Result<wire::Accepted, SendError> {
        let (tx, rx) = oneshot::channel();
        // A caller that went away doesn't hear; its retry will.
        let submitted = async {
            self.submit(sender, request, Box::new(move |outcome| drop(tx.send(outcome)))).await;
            rx.await.unwrap_or(Err(SendError::ShuttingDown))
        };
        // The commit itself goes on, so that a retry finds its answer. Twice: a batch may wait behind one that waits for the store.
        let patience = 2 * self.0.config.storage.timeout;
        time::timeout(patience, submitted).await.unwrap_or(Err(SendError::OutcomeUnknown))
    }

    /// Takes an ephemeral message all the way: sealed to each device and handed to those that are connected. Nothing is stored.
    ///
    /// Who gets it is decided by the caches, which follow the control stream. So a node that could not follow it refuses.
    ///
    /// # Errors
    /// See [`SendError`]; nobody got anything then.
    pub async fn send_ephemeral(
        &self,
        sender: DeviceIdentity,
        request: wire::SendRequest,
    ) -> Result<wire::AcceptedEphemeral, SendError> {
        let inner = &*self.0;
        inner.limits.ephemeral(&sender.account_id, &sender.device_id).map_err(SendError::RateLimited)?;
        let request = Request::parse_ephemeral(request, &inner.config)?;
        let forked = inner.fork(&sender, request).await?;
        if !inner.streams.may_push() {
            return Err(SendError::Busy);
        }
        let (accepted, whispers) = inner.sealer.seal_ephemeral(sender, forked).await?;
        inner.streams.whisper(whispers);
        Ok(accepted)
    }

    /// Forgets what a control entry made untrue.
    pub fn on_control(&self, entry: &wire::ControlEntry) {
        self.0.directory.on_control(entry);
    }

    /// Forgets everything that control entries could have made untrue: some were missed.
    pub fn forget_all(&self) {
        self.0.directory.forget_all();
    }

    /// Commits what stands in the queue, answers it, and ends the commit thread. Later sends are refused.
    pub fn stop(&self) {
        self.0.committer.stop();
    }
}

impl Inner {
    /// limits → fork → seal.
    async fn prepare(
        &self,
        sender: DeviceIdentity,
        request: wire::SendRequest,
        key: &RequestKey,
    ) -> Result<seal::Prepared, SendError> {
        self.limits.send(&sender.account_id, &sender.device_id).map_err(SendError::RateLimited)?;
        let request = Request::parse(request, &self.config)?;
        let now_ms = self.clock.now_ms();
        if let Some(log) = self.directory.log(&sender, &request.conversation_id, now_ms).await? {
            request.check_appended(&self.config)?;
            if request.membership_m != 0 && request.membership_m != log.m {
                return Err(self.explainer.explain_log(&sender, &request).await);
            }
            return Ok(self.sealer.append(sender, request, log, *key, now_ms));
        }
        request.check_forked(&self.config)?;
        let forked = self.fork(&sender, request).await?;
        self.sealer.seal(sender, forked, *key).await
    }

    /// Who gets it, if that is exactly whom the sender encrypted for.
    async fn fork(&self, sender: &DeviceIdentity, request: Request) -> Result<Forked, SendError> {
        let now_ms = self.clock.now_ms();
        let audience = self.directory.audience(sender, &request.conversation_id, now_ms).await?;
        if !audience.speaks(request.suite) {
            return Err(SendError::SuiteUnknown(request.suite));
        }
        match fork::fork(&request, &audience, sender, now_ms) {
            Ok(recipients) => Ok(Forked { request, audience, recipients, now_ms }),
            // What is cached may be older than what the sender knows; only the store may contradict it.
            Err(_) => Err(self.explainer.explain(sender, &request).await),
        }
    }

    /// A retry gets the first answer even if it would be refused now. The question goes through the commit queue, so that a first
    /// attempt which still stands in it is answered before "not committed" is said.
    async fn first_answer_or(
        &self,
        refused: SendError,
        sender: DeviceKey,
        key: RequestKey,
    ) -> Result<wire::Accepted, SendError> {
        if !refused.may_have_been_accepted_before() {
            return Err(refused);
        }
        let (tx, rx) = oneshot::channel();
        self.committer.enqueue(sender, Job::Probe { key, found: tx });
        match rx.await {
            Ok(Some(first)) => first,
            Ok(None) => Err(refused),
            // The queue is full or the store is gone: not known, so nothing may be said about it.
            Err(_) => Err(SendError::Busy),
        }
    }
}
