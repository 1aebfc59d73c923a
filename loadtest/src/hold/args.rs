//! What `hold` takes.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use crate::{
    cli::{NodeArgs, time},
    population::PeopleArgs,
};

/// Arguments of `hold`.
#[derive(Debug, Clone, Args)]
pub struct HoldArgs {
    /// Who connects: the same values as for `population`.
    #[command(flatten)]
    pub people: PeopleArgs,
    /// How many connections to hold, step by step, ascending; memory is read at each step. Unless given: all accounts at once.
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    pub connections: Vec<u32>,
    /// Connections that may be under way (upgrade, hello, resume) at once.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub at_once: usize,
    /// Quiet time before memory is read.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "5s")]
    pub settle: Duration,
    /// Nothing moves for so long: what is missing then does not come.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "60s")]
    pub patience: Duration,
    /// Length of a message's content in bytes. It is random, as ciphertext looks to the node.
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub content_bytes: u32,
    /// Start a node over this folder, which `martlet import` has made of the population's archive (its `storage.data_dir`).
    #[arg(long, value_name = "FOLDER", conflicts_with = "server", required_unless_present = "server")]
    pub data: Option<PathBuf>,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}
