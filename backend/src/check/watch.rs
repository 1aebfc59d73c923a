//! The same questions while the node runs, every few seconds: does the store answer, is there room, is the control stream followed?
//!
//! It only tells [`Health`]. What a node does about a failing store or a control stream it can't follow is decided where they are used.

use std::sync::Arc;
use std::time::Duration;

use martlet_storage::{Db, NodeLock, ServerFacts, StorageError};
use tokio::task::JoinHandle;
use tokio::{task, time};

use super::{SPACE_NEEDED_BYTES, free_bytes};

use crate::clock::Clock;
use crate::config::Config;
use crate::health::Health;
use crate::streams::Streams;

/// How often it looks. A load balancer asks about as often.
const INTERVAL: Duration = Duration::from_secs(5);
/// A question about the time that takes longer tells nothing.
const SLOW_ANSWER: Duration = Duration::from_millis(500);

/// Questions about the time at the start.
const START_TRIES: usize = 10;

/// What is looked at, and who is told.
pub struct Watch {
    /// Is told.
    pub health: Health,
    /// Where the data is.
    pub config: Arc<Config>,
    /// Must answer.
    pub db: Db,
    /// Must follow the control stream.
    pub streams: Streams,
    /// Must not be far from the database's.
    pub clock: Clock,
    /// The right to this node's id, and the id.
    pub node: (String, Option<NodeLock>),
}

impl Watch {
    /// Looks until the task is aborted. At once only at what is known of the other nodes' side; the rest has just been found to work.
    #[must_use]
    pub fn start(mut self) -> JoinHandle<()> {
        tokio::spawn(async move {
            if self.db.is_shared() {
                self.look_at_cluster().await;
            }
            loop {
                time::sleep(INTERVAL).await;
                self.look().await;
            }
        })
    }

    async fn look(&mut self) {
        let answers = self.db.health().await.map_err(|error| error.reason());
        let reached = answers.is_ok();
        self.tell("store", answers);
        if reached && self.db.is_shared() {
            self.look_at_cluster().await;
        }
        self.tell("disk", self.room());
        let followed = self.streams.may_push();
        self.tell(
            "control stream",
            followed.then_some(()).ok_or_else(|| "not read for a second, so nothing is pushed".into()),
        );
    }

    /// What only nodes that share a database can get wrong.
    async fn look_at_cluster(&mut self) {
        if let Ok(Some(found)) = compare_clocks(&self.clock, &self.db, &self.config).await {
            if let Some(apart_ms) = found.apart_ms {
                let allowed_ms = self.config.cluster.max_clock_difference.as_millis();
                let told = format!(
                    "this machine's clock is {apart_ms} ms from the database's, whose time this node takes; run an NTP client on both"
                );
                self.tell("clock", if u128::from(apart_ms) > allowed_ms { Err(told) } else { Ok(()) });
            }
            let told = "storage.database_url names a standby; name the primary, or promote it".to_owned();
            self.tell("primary", if found.facts.is_standby { Err(told) } else { Ok(()) });
        }
        let id = self.keep_node_id().await;
        self.tell("node id", id);
        let resting = self.streams.resting_replicas();
        let told = || format!("{resting} of storage.replica_urls failed lately; the primary answers in their place");
        self.tell("replicas", if resting == 0 { Ok(()) } else { Err(told()) });
    }

    /// The right to the id goes with its connection; then it is claimed anew.
    async fn keep_node_id(&mut self) -> Result<(), String> {
        let (id, lock) = &mut self.node;
        if let Some(held) = lock.take() {
            let asked = task::spawn_blocking(move || held.is_held().then_some(held));
            *lock = time::timeout(INTERVAL, asked).await.ok().and_then(Result::ok).flatten();
        }
        if lock.is_none() {
            *lock = self.db.claim_node_id(id).await.map_err(|error| error.reason())?;
        }
        let told = || format!("another node runs as {id}; give one of them another cluster.node_id");
        if lock.is_some() { Ok(()) } else { Err(told()) }
    }

    fn room(&self) -> Result<(), String> {
        let free = free_bytes(&self.config.storage.data_dir).map_err(|error| error.to_string())?;
        if free < SPACE_NEEDED_BYTES { Err(format!("{} MiB free where the data is", free >> 20)) } else { Ok(()) }
    }

    fn tell(&self, part: &'static str, state: Result<(), String>) {
        match state {
            Ok(()) => self.health.restore(part),
            Err(reason) => self.health.degrade(part, reason),
        }
    }
}

/// As [`compare_clocks`], for the start: a slow answer is asked for again.
///
/// # Errors
/// As there.
pub async fn set_clock(clock: &Clock, db: &Db, config: &Config) -> Result<(), StorageError> {
    for _ in 0..START_TRIES {
        match compare_clocks(clock, db, config).await? {
            Some(Compared { apart_ms: None, .. }) => {}
            Some(_) | None => break,
        }
    }
    Ok(())
}

/// What [`compare_clocks`] found.
#[derive(Debug, Clone, Copy)]
pub struct Compared {
    /// What the database server said.
    pub facts: ServerFacts,
    /// By how many milliseconds its clock and this node's are apart; `None` if the answer was too slow to tell.
    pub apart_ms: Option<u64>,
}

/// Asks the database server for its time, and has the clock follow it if they are too far apart. `None` for the embedded store, which has
/// no clock of its own.
///
/// # Errors
/// [`StorageError`] if it doesn't answer.
pub async fn compare_clocks(clock: &Clock, db: &Db, config: &Config) -> Result<Option<Compared>, StorageError> {
    let asked = clock.elapsed();
    let Some(facts) = db.server_facts().await? else { return Ok(None) };
    // Its time is of somewhere between question and answer. An answer that was slow says too little to change anything.
    let took = clock.elapsed().saturating_sub(asked);
    let limit = config.cluster.max_clock_difference;
    let right_ms = facts.now_ms.unsigned_abs().saturating_add(u64::try_from(took.as_millis() / 2).unwrap_or(0));
    let apart_ms = (took <= SLOW_ANSWER).then(|| clock.compare(right_ms, limit));
    Ok(Some(Compared { facts, apart_ms }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Status;

    #[tokio::test]
    async fn what_fails_is_told_and_what_works_again_too() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = Config::default();
        config.storage.data_dir = folder.path().to_owned();
        let db = Db::open(&config.db_config()).expect("a store");
        let config = Arc::new(config);
        let streams = Streams::new(db.clone(), config.clone(), Clock::System);
        let (health, node) = (Health::new("n1"), ("n1".to_owned(), None));
        let mut watch = Watch { health, config, db, streams, clock: Clock::System, node };

        watch.look().await;
        let reasons = watch.health.report().reasons;
        assert_eq!(reasons.keys().collect::<Vec<_>>(), [&"control stream"], "it is not followed yet");

        watch.streams.start().await.expect("the streams start");
        time::timeout(Duration::from_secs(10), async {
            while watch.health.status() != Status::Ok {
                watch.look().await;
                time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("all is well soon");

        std::fs::remove_dir_all(folder.path()).expect("removed");
        watch.look().await;
        assert!(watch.health.report().reasons.contains_key("disk"));
        watch.streams.stop().await;
    }
}
