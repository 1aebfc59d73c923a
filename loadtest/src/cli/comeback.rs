//! What `jitter` and `storm` take.

use std::time::Duration;

use clap::Args;

use super::{NodeArgs, time};

/// Arguments of `jitter`.
#[derive(Debug, Clone, Args)]
pub struct JitterArgs {
    /// Clients that follow one group's log.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub clients: u32,
    /// Messages to that group …
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..))]
    pub messages: u32,
    /// … evenly over this time.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "60s")]
    pub over: Duration,
    /// A socket is cut after about this time (a third more or less) …
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "15s")]
    pub every: Duration,
    /// … and its client is away for about this time.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "2s")]
    pub away: Duration,
    /// Length of a message's content in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub content_bytes: u32,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of `storm`.
#[derive(Debug, Clone, Args)]
pub struct StormArgs {
    /// Clients that follow one group's log.
    #[arg(long, value_name = "N", default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub clients: u32,
    /// Messages to that group, from the moment the node is there again …
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub messages: u32,
    /// … evenly over this time.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10s")]
    pub over: Duration,
    /// Length of a message's content in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub content_bytes: u32,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}
