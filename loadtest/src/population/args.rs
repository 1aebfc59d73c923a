//! What `population` takes.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;

use super::people::People;
use crate::cli::NodeArgs;

/// Who is in the archive. The same three values name the same tokens, wherever they are given.
#[derive(Debug, Clone, Args)]
pub struct PeopleArgs {
    /// Accounts, each with one device.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub accounts: u32,
    /// Large conversations. Each account is a member of one of them, and each has as many members as the others, or one more.
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub logs: u32,
    /// What all keys and tokens are derived from.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
}

impl PeopleArgs {
    /// The same as a rule.
    ///
    /// # Errors
    /// When there are more logs than accounts.
    pub fn people(&self) -> Result<People> {
        ensure!(self.logs <= self.accounts, "a log needs a member: at most as many --logs as --accounts");
        Ok(People { accounts: self.accounts, logs: self.logs, seed: self.seed })
    }
}

/// Arguments of `population`.
#[derive(Debug, Clone, Args)]
pub struct PopulationArgs {
    /// Who is in it.
    #[command(flatten)]
    pub people: PeopleArgs,
    /// The folder to write, for `martlet import`. It must not be there yet.
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
    /// The node that is asked how it stores an account. One is started for it.
    #[command(flatten)]
    pub node: NodeArgs,
}
