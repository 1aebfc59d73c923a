//! Arguments of `peers`.

use clap::Args;

use super::NodeArgs;

/// Arguments of `peers`.
#[derive(Debug, Clone, Args)]
pub struct PeersArgs {
    /// Turns of each, one after the other: ours, nchan's, ours, …
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub turns: u32,
    /// Subscribers, each on a socket of its own.
    #[arg(long, value_name = "N", default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub subscribers: u32,
    /// Messages of the burst, all under way at once.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub messages: u32,
    /// Length of a message's content in bytes. It is random, as ciphertext looks to a server.
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub content_bytes: u32,
    /// nginx's workers.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub nchan_workers: u16,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}
