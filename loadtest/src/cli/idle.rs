//! What `idle` takes.

use std::time::Duration;

use clap::Args;

use super::{NodeArgs, time};

/// Arguments of `idle`.
#[derive(Debug, Clone, Args)]
pub struct IdleArgs {
    /// How many connections to hold, step by step, ascending.
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_value = "5000,10000,19000")]
    pub connections: Vec<usize>,
    /// Quiet time at each step before memory is read. Unless given: until the node has pinged every connection once more.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub settle: Option<Duration>,
    /// Connections that may be under way (upgrade, hello, resume) at once.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub at_once: usize,
    /// Measure a node over a PostgreSQL and a Redis of its own, as in a cluster, instead of one on the embedded default.
    #[arg(long, conflicts_with = "server")]
    pub cluster: bool,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}
