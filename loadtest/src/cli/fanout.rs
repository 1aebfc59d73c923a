//! What `fanout` takes.

use std::time::Duration;

use clap::Args;

use super::{NodeArgs, time};

/// Arguments of `fanout`.
#[derive(Debug, Clone, Args)]
pub struct FanoutArgs {
    /// Members that read, each on a socket of its own. One more writes.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub members: u32,
    /// Messages a second, one step after the other.
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_value = "100", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: Vec<u32>,
    /// How long to measure each rate.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// How long to send before that.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "2s")]
    pub warm_up: Duration,
    /// Length of a message's content in bytes. It is random, as ciphertext looks to the node.
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub content_bytes: u32,
    /// So many of the readers stop reading when the warm-up is over …
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub stop: u32,
    /// … and go on after this time. They must have everything in the end.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "60s")]
    pub stop_for: Duration,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}
