//! Group commit: a thread takes what stands in its queue, writes it in one transaction, answers, and hands the entries on.
//!
//! Nothing is answered before its transaction is durable, and nothing is relayed before that either. A device's sends stay with one
//! thread, and its arrival order is commit order. While one batch is written the next one gathers; under load the thread also waits up to
//! `commit_max_delay` for more, alone it never does.

use std::{io, sync::Arc, thread, time::Duration};

use martlet_protocol::wire;
use martlet_storage::{
    Db, DeviceKey, StorageError,
    db::{
        self,
        sends::{EntryBody, MailboxLimits, PreparedSend, SendOutcome},
    },
    planted::{self, Bug},
};
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::mpsc, sync::oneshot};

use super::{
    Reply, SendError,
    answer::{Answers, RequestKey},
    mismatch::Explainer,
    seal::Prepared,
};
use crate::{
    clock::Clock,
    config::Config,
    streams::{LiveEntry, LiveItem, Published, Streams},
    vital,
};

/// Between two tries to reach a store that is away.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What a thread is asked.
pub enum Job {
    Send(Box<SendJob>),
    /// Was this request accepted before? Answered after everything that was queued before it.
    Probe {
        key: RequestKey,
        found: oneshot::Sender<Option<Result<wire::Accepted, SendError>>>,
    },
    Stop,
}

/// A send and who hears of it.
pub struct SendJob {
    pub prepared: Prepared,
    pub reply: Reply,
}

/// What [`Committer::start`] needs.
#[derive(Clone)]
pub struct Parts {
    pub config: Arc<Config>,
    pub clock: Clock,
    pub db: Db,
    pub streams: Streams,
    pub answers: Arc<Answers>,
    pub explainer: Explainer,
    pub runtime: Handle,
}

/// The way to the commit threads.
pub struct Committer {
    queues: Vec<mpsc::Sender<Job>>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

impl Committer {
    pub fn start(parts: &Parts) -> io::Result<Self> {
        let mut started = Self { queues: Vec::new(), threads: Mutex::default() };
        for number in 0..parts.config.commit_writers() {
            let (queue, jobs) = mpsc::channel(parts.config.messages.send_queue);
            let worker = Worker::new(parts, jobs);
            let thread = thread::Builder::new()
                .name(format!("commit-{number}"))
                .spawn(move || vital::run("a commit thread", || worker.run()))?;
            started.queues.push(queue);
            started.threads.lock().push(thread);
        }
        Ok(started)
    }

    /// Puts a job of this device in its queue. If that is full or gone, the asker hears it here and now.
    pub fn enqueue(&self, sender: DeviceKey, job: Job) {
        let queue = &self.queues[sender.0.unsigned_abs() as usize % self.queues.len()];
        let (job, error) = match queue.try_send(job) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(job)) => (job, SendError::Busy),
            Err(mpsc::error::TrySendError::Closed(job)) => (job, SendError::ShuttingDown),
        };
        if let Job::Send(send) = job {
            (send.reply)(Err(error));
        }
    }

    /// Waits until what stands in the queues is committed. Blocks.
    pub fn stop(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        for queue in self.queues.iter().take(threads.len()) {
            // A queue that is closed already means that its thread has ended.
            drop(queue.blocking_send(Job::Stop));
        }
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a commit thread panicked");
            }
        }
    }
}

struct Worker {
    jobs: mpsc::Receiver<Job>,
    max_sends: usize,
    max_delay: Duration,
    give_up_after: Duration,
    limits: MailboxLimits,
    clock: Clock,
    db: Db,
    streams: Streams,
    answers: Arc<Answers>,
    explainer: Explainer,
    runtime: Handle,
}

impl Worker {
    fn new(parts: &Parts, jobs: mpsc::Receiver<Job>) -> Self {
        let Parts { config, clock, db, streams, answers, explainer, runtime } = parts.clone();
        Self {
            jobs,
            max_sends: config.messages.commit_max_sends,
            max_delay: config.messages.commit_max_delay,
            give_up_after: config.storage.timeout,
            limits: MailboxLimits {
                max_bytes: config.mailbox.max_bytes,
                max_entries: config.mailbox.max_entries,
                answer_retention: config.messages.answer_retention,
            },
            clock,
            db,
            streams,
            answers,
            explainer,
            runtime,
        }
    }

    fn run(mut self) {
        let mut jobs = Vec::with_capacity(self.max_sends);
        let mut under_load = false;
        while self.jobs.blocking_recv_many(&mut jobs, self.max_sends) > 0 {
            if under_load {
                self.gather(&mut jobs);
            }
            under_load = jobs.len() > 1;
            self.handle(&mut jobs);
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this thread serves nothing else while it waits for the batch to grow"
    )]
    fn gather(&mut self, jobs: &mut Vec<Job>) {
        if jobs.len() < self.max_sends && !self.max_delay.is_zero() {
            thread::sleep(self.max_delay);
            while jobs.len() < self.max_sends
                && let Ok(job) = self.jobs.try_recv()
            {
                jobs.push(job);
            }
        }
    }

    fn handle(&mut self, jobs: &mut Vec<Job>) {
        let mut sends = Vec::with_capacity(jobs.len());
        let mut waiting = Vec::with_capacity(jobs.len());
        let mut probes = Vec::new();
        for job in jobs.drain(..) {
            match job {
                Job::Send(job) => {
                    let SendJob { prepared: Prepared { send, key, sender, accepted, request, recipients }, reply } =
                        *job;
                    sends.push(send);
                    waiting.push(Waiting { key, sender, accepted, request, recipients, reply });
                }
                Job::Probe { key, found } => probes.push((key, found)),
                Job::Stop => self.jobs.close(),
            }
        }
        if !sends.is_empty() {
            self.commit(sends, waiting);
        }
        for (key, found) in probes {
            self.probe(&key, found);
        }
    }

    fn commit(&self, sends: Vec<PreparedSend>, mut waiting: Vec<Waiting>) {
        let epoch = self.streams.epoch();
        match self.write_whatever_comes(&sends, &mut waiting) {
            Ok(outcomes) => {
                let mut entries = Vec::with_capacity(sends.iter().map(|send| send.entries.len()).sum());
                for ((send, waiting), outcome) in sends.into_iter().zip(waiting).zip(outcomes) {
                    self.conclude(send, waiting, outcome, &mut entries);
                }
                self.streams.publish(entries, epoch);
            }
            Err(error) => {
                tracing::error!(reason = error.reason(), sends = sends.len(), "commit failed");
                for waiting in waiting {
                    (waiting.reply)(Err(SendError::OutcomeUnknown));
                }
            }
        }
    }

    /// A batch whose outcome is unknown is tried again whole: its answers' rows say which of it was committed. A store that is away gets
    /// some time to come back, any other failure one more try.
    #[expect(clippy::disallowed_methods, reason = "this thread serves nothing else while the store is away")]
    fn write_whatever_comes(
        &self,
        sends: &[PreparedSend],
        waiting: &mut [Waiting],
    ) -> Result<Vec<SendOutcome>, StorageError> {
        let began = self.clock.elapsed();
        let mut tries = 0;
        loop {
            let error = match self.write(sends, waiting) {
                Ok(outcomes) => return Ok(outcomes),
                Err(error) => error,
            };
            tries += 1;
            let waits = error.may_pass() && self.clock.elapsed().saturating_sub(began) < self.give_up_after;
            if !waits && tries > 1 {
                return Err(error);
            }
            tracing::warn!(reason = error.reason(), sends = sends.len(), "commit failed, trying the batch again");
            thread::sleep(if matches!(error, StorageError::Unavailable(_)) { RETRY_PAUSE } else { Duration::ZERO });
        }
    }

    fn write(&self, sends: &[PreparedSend], waiting: &mut [Waiting]) -> Result<Vec<SendOutcome>, StorageError> {
        let now_ms = self.clock.now_ms();
        db::sends::planted::before_commit(&self.db, sends)?;
        self.db.write_blocking(|conn| {
            let seal_answer = |send: usize, partial: &[usize]| {
                let waiting = &waiting[send];
                self.answers.seal(&waiting.key, &waiting.accepted_but(partial)).unwrap_or_default()
            };
            let outcomes = db::sends::commit_sends(conn, sends, &self.limits, now_ms, &seal_answer)?;
            self.too_early(sends, waiting, &outcomes);
            Ok(outcomes)
        })
    }

    /// Does nothing but in a build with planted bugs: answers or relays while the transaction is still open.
    fn too_early(&self, sends: &[PreparedSend], waiting: &mut [Waiting], outcomes: &[SendOutcome]) {
        let (answers, relays) = (planted::is(Bug::AnswerBeforeCommit), planted::is(Bug::RelayBeforeCommit));
        if !answers && !relays {
            return;
        }
        let mut entries = Vec::new();
        for ((send, waiting), outcome) in sends.iter().zip(waiting).zip(outcomes) {
            let SendOutcome::Committed { seqs, partial } = outcome else { continue };
            if answers {
                let reply = std::mem::replace(&mut waiting.reply, Box::new(drop));
                reply(Ok(waiting.accepted_but(partial)));
            }
            if relays {
                collect_entries(send.clone(), seqs, partial, &mut entries);
            }
        }
        if !entries.is_empty() {
            self.streams.publish(entries, self.streams.epoch());
        }
    }

    /// Answers one send and collects what its devices get.
    fn conclude(&self, send: PreparedSend, waiting: Waiting, outcome: SendOutcome, entries: &mut Vec<Published>) {
        match outcome {
            SendOutcome::Committed { seqs, partial } => {
                let accepted = waiting.accepted_but(&partial);
                (waiting.reply)(Ok(accepted));
                collect_entries(send, &seqs, &partial, entries);
            }
            SendOutcome::Repeat { answer, same_request: true } => {
                let first = self.answers.open(&waiting.key, &answer);
                (waiting.reply)(first.ok_or(SendError::OutcomeUnknown));
            }
            SendOutcome::Repeat { same_request: false, .. } => (waiting.reply)(Err(SendError::MessageIdReused)),
            SendOutcome::Mismatch => {
                let explainer = self.explainer.clone();
                self.runtime.spawn(async move {
                    (waiting.reply)(Err(explainer.explain(&waiting.sender, &waiting.request).await));
                });
            }
        }
    }

    fn probe(&self, key: &RequestKey, found: oneshot::Sender<Option<Result<wire::Accepted, SendError>>>) {
        let stored = self.db.write_blocking(|conn| db::sends::find_answer(conn, &key.row));
        let first = match stored {
            Ok(None) => None,
            Ok(Some(stored)) if key.same_request(&stored.request_mac) => {
                Some(self.answers.open(key, &stored.answer).ok_or(SendError::OutcomeUnknown))
            }
            Ok(Some(_)) => Some(Err(SendError::MessageIdReused)),
            Err(error) => Some(Err(SendError::Storage(error))),
        };
        // An asker that went away asks again.
        drop(found.send(first));
    }
}

/// A send in the transaction and who hears of it.
struct Waiting {
    key: RequestKey,
    sender: crate::accounts::DeviceIdentity,
    accepted: wire::Accepted,
    request: super::request::Request,
    recipients: Vec<super::fork::Recipient>,
    reply: Reply,
}

impl Waiting {
    fn accepted_but(&self, partial: &[usize]) -> wire::Accepted {
        let partial_device_ids = partial.iter().map(|entry| self.recipients[*entry].device_id.to_wire()).collect();
        wire::Accepted { partial_device_ids, ..self.accepted.clone() }
    }
}

fn collect_entries(send: PreparedSend, seqs: &[u64], partial: &[usize], entries: &mut Vec<Published>) {
    let content = send.content.unwrap_or_default();
    for (index, (entry, seq)) in send.entries.into_iter().zip(seqs).enumerate() {
        let seq = *seq;
        let gap = |reason: wire::GapReason| {
            LiveItem::Gap(wire::Gap { from_seq: seq, to_seq: seq, count: 1, reason: reason.into() })
        };
        let item = match entry.body {
            EntryBody::Dormant => gap(wire::GapReason::Dormant),
            EntryBody::Sealed(_) if partial.contains(&index) => gap(wire::GapReason::Quota),
            EntryBody::Sealed(sealed) => LiveItem::Entry(wire::MailboxEntry {
                seq,
                entry_id: entry.entry_id.to_wire(),
                sealed,
                content: content.clone(),
            }),
        };
        let device_key = entry.device;
        entries.push(Published { device_key, entry: Arc::new(LiveEntry { device_key, seq, item }) });
    }
}
