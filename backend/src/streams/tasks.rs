//! The background tasks: the control follower, the writer of acks, the sweeper, the repair of logs and the comparison of their heads. Each is a loop that ends when the node stops; none holds
//! anything that a killed process would lose beyond unwritten acks.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use martlet_storage::{StorageError, control::Position, logs, mailbox, sweep};
use tokio::{sync::watch, time};

use super::Inner;

/// How often the control stream's head is looked at without being told (promise 5 of the design).
const CONTROL_INTERVAL: Duration = Duration::from_millis(250);
/// Rows that one sweep transaction deletes at most, so that sends never wait long for it.
const SWEEP_LIMIT: u32 = 1000;
/// Between two transactions of one sweep.
const SWEEP_PAUSE: Duration = Duration::from_millis(20);

/// Ends when the node stops.
pub(super) type Stop = watch::Receiver<bool>;

pub(super) async fn follow_control(inner: Arc<Inner>, mut position: Position, mut stop: Stop) {
    loop {
        tokio::select! {
            () = inner.control_changed.notified() => {}
            () = inner.control_hint.notified() => {}
            () = time::sleep(CONTROL_INTERVAL) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        match inner.follow_control(position).await {
            Ok(reached) => position = reached,
            // The gate stays closed until it works again; entries seen twice do no harm.
            Err(error) => tracing::warn!(%error, "the control stream could not be followed"),
        }
    }
}

pub(super) async fn write_acks(inner: Arc<Inner>, mut stop: Stop) {
    let interval = inner.config.mailbox.ack_flush_interval;
    loop {
        tokio::select! {
            () = inner.acks.enough.notified() => {}
            () = time::sleep(interval) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        if let Err(error) = inner.acks.flush(&inner.db).await {
            tracing::warn!(%error, "acks could not be written; they wait");
        }
    }
}

/// Logs that are repaired side by side.
const REPAIRS_AT_ONCE: usize = 4;
/// After a store that is busy or failing.
const LOG_RETRY: Duration = Duration::from_millis(300);

/// What is missing in a log may be under way: it gets as long as an entry of a mailbox gets.
pub(super) async fn repair_logs(inner: Arc<Inner>, mut stop: Stop) {
    let logs = inner.subscribers.logs();
    loop {
        tokio::select! {
            () = logs.holed() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        time::sleep(inner.config.socket.hold_out_of_order).await;
        let mut holed = logs.take_holed();
        while !holed.is_empty() {
            let repairs = stream::iter(holed)
                .map(|log| async {
                    let is_done = inner.logs.repair(&log).await;
                    (!is_done).then_some(log)
                })
                .buffer_unordered(REPAIRS_AT_ONCE)
                .filter_map(|left| async { left })
                .collect::<Vec<_>>();
            tokio::select! {
                left = repairs => holed = left,
                _ = stop.wait_for(|stop| *stop) => return,
            }
            if !holed.is_empty() {
                time::sleep(LOG_RETRY).await;
            }
        }
    }
}

/// Compares the heads of the logs that are read here: of all of them once in an interval, of those in doubt at once.
pub(super) async fn compare_logs(inner: Arc<Inner>, mut stop: Stop) {
    let logs = inner.subscribers.logs();
    loop {
        let interval = inner.head_check_interval();
        let mut doubtful = tokio::select! {
            () = logs.doubtful() => logs.take_doubtful(),
            () = time::sleep(interval) => logs.all(),
            _ = stop.wait_for(|stop| *stop) => return,
        };
        while !inner.logs.compare(&doubtful).await {
            time::sleep(LOG_RETRY).await;
            if *stop.borrow() {
                return;
            }
            doubtful.extend(logs.take_doubtful());
        }
    }
}

pub(super) async fn sweep(inner: Arc<Inner>, mut stop: Stop) {
    // The first sweep comes at once: it prepares the store for contents that are sent today.
    let mut pause = std::time::Duration::ZERO;
    loop {
        tokio::select! {
            () = time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        pause = inner.config.mailbox.sweep_interval;
        tokio::select! {
            result = sweep_once(&inner) => {
                if let Err(error) = result {
                    tracing::warn!(%error, "what has expired could not be swept; it is tried again");
                }
            }
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Small transactions with pauses between them, until nothing is left.
async fn sweep_once(inner: &Inner) -> Result<(), StorageError> {
    let (now_s, ahead_s) = (inner.clock.earliest_s(), inner.config.mailbox.retention.as_secs());
    if let Err(error) = inner.db.write(move |conn| mailbox::keep_parts(conn, now_s, ahead_s)).await {
        // What has expired must go all the same.
        tracing::warn!(reason = error.reason(), "the table of contents could not be made ready; it is tried again");
    }
    loop {
        let now_s = inner.clock.earliest_s();
        let expired = inner.db.write(move |conn| mailbox::expire(conn, now_s, SWEEP_LIMIT)).await?;
        let trimmed = inner.db.write(move |conn| logs::expire(conn, now_s, SWEEP_LIMIT)).await?;
        let now_ms = inner.clock.earliest_ms();
        let swept = inner.db.write(move |conn| sweep::sweep(conn, now_ms, SWEEP_LIMIT)).await?;
        let most = [swept.answers, swept.tokens, swept.tickets, swept.links, swept.control, swept.prekeys];
        if most.into_iter().chain([expired, trimmed]).all(|rows| rows < SWEEP_LIMIT as usize) {
            return Ok(());
        }
        time::sleep(SWEEP_PAUSE).await;
    }
}
