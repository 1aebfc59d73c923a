//! What `send` takes.

use std::time::Duration;

use clap::Args;

use super::{NodeArgs, time};

/// Arguments of `send`.
#[derive(Debug, Clone, Args)]
pub struct SendArgs {
    /// Devices that send, each in a direct conversation of its own.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub senders: u32,
    /// Other devices that each message reaches: half of them (rounded down) of the sender's account, the rest of its peer's.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=19))]
    pub devices: u32,
    /// How long to measure.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// How long to send before that, so that caches are full.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "3s")]
    pub warm_up: Duration,
    /// Open loop: so many sends a second, all senders together in turn, whatever the node does; latencies count from the moment a send was
    /// due. Unless given, the loop is closed: every sender keeps --window sends unanswered, and the rate is what the node takes.
    #[arg(long, value_name = "N", conflicts_with_all = ["window", "stop_redis"], value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Option<u32>,
    /// Sends of one device that may be unanswered at once.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub window: u32,
    /// Length of a message's text in bytes, before padding and encryption.
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(40..=60_000))]
    pub text_bytes: u32,
    /// Messages to encrypt per sender before the clock starts. Unless given: half as many again as a short trial run says are needed.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub prepare: Option<u32>,
    /// Of so many forks, one is opened whole (seal, header, content, signature) and compared with what was sent. Every fork's seal is
    /// opened in any case. Done after the clock has stopped.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub sample: u32,
    /// A device acknowledges after so many entries …
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub ack_entries: u32,
    /// … or after this time.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "500ms")]
    pub ack_delay: Duration,
    /// Longest time for the comparison (the same forks written row by row, one SQLite transaction each). If it does not suffice, its
    /// rate is that of what was written, and the result says so.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "20s")]
    pub compare: Duration,
    /// Start so many nodes over a PostgreSQL and a Redis of their own, and spread every circle's devices over them. The comparison is then
    /// `pgbench` with eight clients that write one row per transaction.
    #[arg(long, value_name = "NODES", conflicts_with = "server", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub cluster: Option<u16>,
    /// Kill Redis in the middle of the measurement and start it again after so long.
    #[arg(long, value_name = "TIME", value_parser = time, requires = "cluster")]
    pub stop_redis: Option<Duration>,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}
