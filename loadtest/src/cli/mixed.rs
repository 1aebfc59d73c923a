//! What `mixed` takes.

use std::time::Duration;

use clap::Args;

use super::{NodeArgs, time};

/// Arguments of `mixed`.
#[derive(Debug, Clone, Args)]
pub struct MixedArgs {
    /// Accounts, two by two in a direct conversation. The first of each two writes to it.
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(2..))]
    pub accounts: u32,
    /// So many of a hundred accounts have a second device.
    #[arg(long, value_name = "PERCENT", default_value_t = 25, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub second_devices: u32,
    /// Large groups. Every account is in one of them, and all its devices follow the group's log.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub groups: u32,
    /// Direct messages a second, by all accounts together. 0: none.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub direct_rate: u32,
    /// Messages to groups a second, by all groups together. 0: none.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub group_rate: u32,
    /// Typing and presence a second, by all accounts together, each to the devices of its direct conversation. 0: none.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub presence_rate: u32,
    /// How long to measure.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// How long to send before that.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "3s")]
    pub warm_up: Duration,
    /// Length of a direct message's text in bytes, before padding and encryption.
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(40..=60_000))]
    pub text_bytes: u32,
    /// Length of a group message's content in bytes. It is random, as ciphertext looks to the node.
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub content_bytes: u32,
    /// Of so many forks, one is opened whole and compared with what was sent. Every fork's seal is opened in any case. Done after the
    /// clock has stopped.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub sample: u32,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}
