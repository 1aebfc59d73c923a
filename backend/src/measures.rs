//! What the node measures of itself, for the operator's Prometheus: `GET /metrics` on the internal listener.
//!
//! Names follow Prometheus' conventions, times are in seconds, and no label tells anything of a user. A node has a recorder of its own, not
//! the process's, so that several nodes of one process do not mix.

use std::{sync::Arc, time::Duration};

use metrics::{Histogram, histogram, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::time;

/// The parts of a message's way, by label `part`.
const PARTS: &str = "martlet_message_part_seconds";
/// From 100 µs to 10 s; 5, 25 and 250 ms are promises, so they are edges.
const BUCKETS_S: [f64; 17] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 7.5, 10.0];
/// The exporter keeps single values until they are asked for or this time has passed.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The node's measures. Cheap to clone.
#[derive(Clone)]
pub struct Measures(Arc<Inner>);

struct Inner {
    exporter: PrometheusHandle,
    queue: Histogram,
    commit: Histogram,
    relay: Histogram,
    write: Histogram,
}

impl Measures {
    /// Nothing measured yet.
    #[must_use]
    pub fn new() -> Self {
        let Ok(builder) = PrometheusBuilder::new().set_buckets(&BUCKETS_S) else {
            unreachable!("it refuses no buckets at all, and nothing else");
        };
        let recorder = builder.build_recorder();
        let exporter = recorder.handle();
        let inner = with_local_recorder(&recorder, || {
            metrics::describe_histogram!(
                PARTS,
                metrics::Unit::Seconds,
                "A stored message's way: in the queue, in its transaction, from the commit to the thread that holds the device's socket (on \
                 whatever node), and from there to the socket."
            );
            Inner {
                exporter,
                queue: histogram!(PARTS, "part" => "queue"),
                commit: histogram!(PARTS, "part" => "commit"),
                relay: histogram!(PARTS, "part" => "relay"),
                write: histogram!(PARTS, "part" => "write"),
            }
        });
        Self(Arc::new(inner))
    }

    /// Keeps the exporter's memory bounded for as long as the node lives.
    pub async fn keep(self) {
        let weak = Arc::downgrade(&self.0);
        drop(self);
        loop {
            time::sleep(UPKEEP_INTERVAL).await;
            let Some(inner) = weak.upgrade() else { return };
            inner.exporter.run_upkeep();
        }
    }

    /// A send stood in the commit queue for so long.
    pub fn queued(&self, time: Duration) {
        self.0.queue.record(time);
    }

    /// The transaction that held so many sends took so long, retries included.
    pub fn committed(&self, time: Duration, sends: usize) {
        self.0.commit.record_many(time.as_secs_f64(), sends);
    }

    /// An entry took so long from its commit to the thread that holds its device's socket.
    pub fn relayed(&self, time: Duration) {
        self.0.relay.record(time);
    }

    /// A connection was written to so long after its thread took what waited for it.
    pub fn written(&self, time: Duration) {
        self.0.write.record(time);
    }

    /// In Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.exporter.render()
    }
}

impl Default for Measures {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_histograms_of_seconds_with_the_promises_as_edges() {
        let measures = Measures::new();
        measures.queued(Duration::from_millis(3));
        measures.committed(Duration::from_millis(20), 7);
        measures.relayed(Duration::from_micros(80));
        measures.written(Duration::from_millis(240));
        let text = measures.render();
        for line in [
            "# TYPE martlet_message_part_seconds histogram",
            r#"martlet_message_part_seconds_bucket{part="queue",le="0.0025"} 0"#,
            r#"martlet_message_part_seconds_bucket{part="queue",le="0.005"} 1"#,
            r#"martlet_message_part_seconds_bucket{part="commit",le="0.025"} 7"#,
            r#"martlet_message_part_seconds_bucket{part="write",le="0.25"} 1"#,
            r#"martlet_message_part_seconds_count{part="commit"} 7"#,
            r#"martlet_message_part_seconds_count{part="relay"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is missing:\n{text}");
        }
        let another = Measures::new();
        assert!(!another.render().contains("} 7"), "nodes do not mix");
    }
}
