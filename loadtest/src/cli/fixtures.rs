//! What `fixtures` takes.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `fixtures`.
#[derive(Debug, Clone, Args)]
pub struct FixturesArgs {
    /// The node's address (http://…). Its limits on registrations and sends must be off (`limits.*=0`), and the accounts stay in it.
    #[arg(long, value_name = "URL")]
    pub server: String,
    /// Members that read the group's log. One more writes.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub members: u32,
    /// Messages to prepare.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub messages: u32,
    /// Length of a message's content in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub content_bytes: u32,
    /// The store's epoch: 1 unless it was restored or failed over.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub epoch: u64,
    /// The file to write. It holds tokens, so only its owner may read it.
    #[arg(long, value_name = "FILE", default_value = "fixtures.json")]
    pub out: PathBuf,
}
