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
        sends::{MailboxLimits, PreparedSend, SendOutcome},
    },
    planted::{self, Bug},
};
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::mpsc, sync::oneshot};

use super::{
    RETRY_PAUSE, Reply, SendError,
    answer::{Answers, RequestKey},
    batch::{Batch, Committed, SendJob, Space, Waiting},
    mismatch::Explainer,
    seal::Prepared,
};
use crate::{clock::Clock, config::Config, measures::Measures, streams::Streams, vital};

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

impl Job {
    /// Rows that it adds to a transaction.
    fn entries(&self) -> usize {
        match self {
            Self::Send(job) => job.prepared.send.entries.len(),
            Self::Probe { .. } | Self::Stop => 0,
        }
    }
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
    pub measures: Measures,
    pub runtime: Handle,
}

/// The way to the commit threads.
pub struct Committer {
    clock: Clock,
    space: Space,
    queues: Vec<mpsc::Sender<Job>>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

impl Committer {
    pub fn start(parts: &Parts) -> io::Result<Self> {
        let space = Space::new(parts.config.messages.send_queue_bytes);
        let mut started = Self { clock: parts.clock.clone(), space, queues: Vec::new(), threads: Mutex::default() };
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

    /// Puts a send of this device in its queue. If there is no room, the sender hears it here and now.
    pub fn send(&self, sender: DeviceKey, prepared: Prepared, reply: Reply) {
        match self.space.take(&prepared) {
            Some(room) => self.enqueue(
                sender,
                Job::Send(Box::new(SendJob { prepared, reply, room, queued_at: self.clock.elapsed() })),
            ),
            None => reply(Err(SendError::Busy)),
        }
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
    max_entries: usize,
    max_delay: Duration,
    give_up_after: Duration,
    limits: MailboxLimits,
    clock: Clock,
    db: Db,
    streams: Streams,
    answers: Arc<Answers>,
    explainer: Explainer,
    measures: Measures,
    runtime: Handle,
}

impl Worker {
    fn new(parts: &Parts, jobs: mpsc::Receiver<Job>) -> Self {
        let Parts { config, clock, db, streams, answers, explainer, measures, runtime } = parts.clone();
        Self {
            jobs,
            max_sends: config.messages.commit_max_sends,
            max_entries: config.messages.commit_max_entries,
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
            measures,
            runtime,
        }
    }

    fn run(mut self) {
        let mut jobs = Vec::with_capacity(self.max_sends);
        let mut under_load = false;
        while let Some(first) = self.jobs.blocking_recv() {
            jobs.push(first);
            self.fill(&mut jobs);
            if under_load {
                self.gather(&mut jobs);
            }
            under_load = jobs.len() > 1;
            self.handle(&mut jobs);
        }
    }

    /// Takes what stands in the queue, up to what one transaction may hold. One send's entries stay together.
    fn fill(&mut self, jobs: &mut Vec<Job>) {
        let mut entries: usize = jobs.iter().map(Job::entries).sum();
        while jobs.len() < self.max_sends
            && entries < self.max_entries
            && let Ok(job) = self.jobs.try_recv()
        {
            entries += job.entries();
            jobs.push(job);
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this thread serves nothing else while it waits for the batch to grow"
    )]
    fn gather(&mut self, jobs: &mut Vec<Job>) {
        if jobs.len() < self.max_sends && !self.max_delay.is_zero() {
            thread::sleep(self.max_delay);
            self.fill(jobs);
        }
    }

    fn handle(&mut self, jobs: &mut Vec<Job>) {
        let mut batch = Batch::default();
        let mut probes = Vec::new();
        let now = self.clock.elapsed();
        for job in jobs.drain(..) {
            match job {
                Job::Send(job) => {
                    self.measures.queued(now.saturating_sub(job.queued_at));
                    batch.push(*job);
                }
                Job::Probe { key, found } => probes.push((key, found)),
                Job::Stop => self.jobs.close(),
            }
        }
        if !batch.sends.is_empty() {
            self.commit(batch);
        }
        for (key, found) in probes {
            self.probe(&key, found);
        }
    }

    fn commit(&self, batch: Batch) {
        let epoch = self.streams.epoch();
        let mut batch = Arc::new(batch);
        let began = self.clock.elapsed();
        let (result, tries) = self.write_whatever_comes(&batch);
        let at = self.clock.elapsed();
        self.measures.committed(at.saturating_sub(began), batch.sends.len());
        match result {
            Ok(outcomes) => {
                // A try that was given up may still hold the batch.
                let sends = match Arc::get_mut(&mut batch) {
                    Some(batch) => std::mem::take(&mut batch.sends),
                    None => batch.sends.clone(),
                };
                let entries = Vec::with_capacity(sends.iter().map(|send| send.entries.len()).sum());
                let mut committed = Committed { at, entries, ..Committed::default() };
                for ((index, send), outcome) in sends.into_iter().enumerate().zip(outcomes) {
                    self.conclude(send, &batch, index, outcome, &mut committed);
                }
                self.streams.publish(committed.entries, committed.to_logs, epoch);
            }
            Err(error) => {
                tracing::error!(reason = error.reason(), sends = batch.sends.len(), "commit failed");
                for waiting in &batch.waiting {
                    waiting.answer(Err(SendError::OutcomeUnknown));
                }
            }
        }
        if tries > 1 {
            // An earlier try may have committed what nobody was told of.
            self.streams.in_doubt(batch.devices(), batch.logs());
        }
    }

    /// A batch whose outcome is unknown is tried again whole: its answers' rows say which of it was committed. A store that is away gets
    /// some time to come back, any other failure one more try.
    /// Also tells how often it was tried.
    #[expect(clippy::disallowed_methods, reason = "this thread serves nothing else while the store is away")]
    fn write_whatever_comes(&self, batch: &Arc<Batch>) -> (Result<Vec<SendOutcome>, StorageError>, usize) {
        let began = self.clock.elapsed();
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.write(batch) {
                Ok(outcomes) => return (Ok(outcomes), tries),
                Err(error) => error,
            };
            let waits = error.may_pass() && self.clock.elapsed().saturating_sub(began) < self.give_up_after;
            if !waits && tries > 1 {
                return (Err(error), tries);
            }
            tracing::warn!(reason = error.reason(), sends = batch.sends.len(), "commit failed, trying the batch again");
            thread::sleep(if matches!(error, StorageError::Unavailable(_)) { RETRY_PAUSE } else { Duration::ZERO });
        }
    }

    fn write(&self, batch: &Arc<Batch>) -> Result<Vec<SendOutcome>, StorageError> {
        let (now_ms, limits) = (self.clock.now_ms(), self.limits);
        let (batch, answers, streams) = (batch.clone(), self.answers.clone(), self.streams.clone());
        db::sends::planted::before_commit(&self.db, &batch.sends)?;
        self.db.write_in_time(move |conn| {
            let seal_answer = |send: usize, seqs: &[u64], partial: &[usize]| {
                let waiting = &batch.waiting[send];
                answers.seal(&waiting.key, &waiting.accepted(seqs, partial)).unwrap_or_default()
            };
            let outcomes = db::sends::commit_sends(conn, &batch.sends, &limits, now_ms, &seal_answer)?;
            too_early(&streams, &batch, &outcomes);
            Ok(outcomes)
        })
    }

    /// Answers one send and collects what its readers get.
    fn conclude(
        &self,
        send: PreparedSend,
        batch: &Arc<Batch>,
        index: usize,
        outcome: SendOutcome,
        committed: &mut Committed,
    ) {
        let waiting = &batch.waiting[index];
        match outcome {
            SendOutcome::Committed { seqs, partial } => {
                waiting.answer(Ok(waiting.accepted(&seqs, &partial)));
                committed.add(send, &seqs, &partial);
            }
            SendOutcome::Appended { seq, group_epoch } => {
                waiting.answer(Ok(waiting.accepted(&[seq], &[])));
                committed.add_to_log(send, seq, group_epoch);
            }
            SendOutcome::Repeat { answer, same_request: true } => {
                let first = self.answers.open(&waiting.key, &answer);
                waiting.answer(first.ok_or(SendError::OutcomeUnknown));
            }
            SendOutcome::Repeat { same_request: false, .. } => waiting.answer(Err(SendError::MessageIdReused)),
            SendOutcome::EpochConflict { current } => waiting.answer(Err(SendError::EpochConflict { current })),
            SendOutcome::Mismatch => {
                let (explainer, batch) = (self.explainer.clone(), batch.clone());
                let to_log = send.log.is_some();
                self.runtime.spawn(async move {
                    let Waiting { sender, request, .. } = &batch.waiting[index];
                    let problem = match to_log {
                        true => explainer.explain_log(sender, request).await,
                        false => explainer.explain(sender, request).await,
                    };
                    batch.waiting[index].answer(Err(problem));
                });
            }
        }
    }

    fn probe(&self, key: &RequestKey, found: oneshot::Sender<Option<Result<wire::Accepted, SendError>>>) {
        let row = key.row;
        let stored = self.db.write_in_time(move |conn| db::sends::find_answer(conn, &row));
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

/// Does nothing but in a build with planted bugs: answers or relays while the transaction is still open.
fn too_early(streams: &Streams, batch: &Batch, outcomes: &[SendOutcome]) {
    let (answers, relays) = (planted::is(Bug::AnswerBeforeCommit), planted::is(Bug::RelayBeforeCommit));
    if !answers && !relays {
        return;
    }
    let mut committed = Committed::default();
    for ((send, waiting), outcome) in batch.sends.iter().zip(&batch.waiting).zip(outcomes) {
        let SendOutcome::Committed { seqs, partial } = outcome else { continue };
        if answers {
            waiting.answer(Ok(waiting.accepted(seqs, partial)));
        }
        if relays {
            committed.add(send.clone(), seqs, partial);
        }
    }
    if !committed.entries.is_empty() {
        streams.publish(committed.entries, Vec::new(), streams.epoch());
    }
}
