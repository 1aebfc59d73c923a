//! What can be asked for on the command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

/// Measures a Martlet node: what connections cost at rest, and what it carries under load.
///
/// Without --server it finds `martlet` beside its own executable, or builds it, starts it on free ports in a temporary folder and
/// stops it afterwards. Results go to standard output, progress to standard error. The exit code is 0 only if nothing was refused,
/// lost or repeated.
#[derive(Debug, Parser)]
#[command(name = "martlet-load", version, max_term_width = 120)]
pub struct Cli {
    /// What to measure.
    #[command(subcommand)]
    pub command: Command,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Memory per connection: authenticated devices with a mailbox subscription that have nothing to say.
    Idle(IdleArgs),
    /// Throughput and latency: devices that send encrypted messages, and all who get them.
    Send(SendArgs),
    /// One group, many readers: members of a large conversation that follow its log, and messages to it at given rates.
    Fanout(FanoutArgs),
    /// Bad networks: sockets that are cut again and again, and whether their clients get everything, and how soon.
    Jitter(JitterArgs),
    /// A node that is restarted under all its clients: how soon they are back and have caught up.
    Storm(StormArgs),
    /// Accounts, a group and encrypted messages for the k6 checks in loadtest/k6/, made on a running node.
    Fixtures(FixturesArgs),
}

/// Which node.
#[derive(Debug, Clone, Default, Args)]
pub struct NodeArgs {
    /// Measure the node that runs at this address (http://…) instead of starting one. Its limits on registrations and sends must be
    /// off (`limits.*=0`), and accounts of this test stay in it.
    #[arg(long, value_name = "URL", help_heading = "Node")]
    pub server: Option<String>,
    /// Process id of that node, if it runs on this machine: for its memory and processor time.
    #[arg(long, value_name = "PID", requires = "server", help_heading = "Node")]
    pub server_pid: Option<u32>,
    /// The `martlet` to start.
    #[arg(long, value_name = "FILE", conflicts_with = "server", help_heading = "Node")]
    pub node: Option<PathBuf>,
    /// A setting for the node that is started, as `section.key=value`; may be given often.
    #[arg(long = "set", value_name = "KEY=VALUE", conflicts_with = "server", help_heading = "Node")]
    pub settings: Vec<String>,
    /// Folder in which the node's data (and the comparison) are written; a temporary folder is made in it and removed afterwards.
    /// It decides which disk is measured.
    #[arg(long, value_name = "FOLDER", help_heading = "Node")]
    pub dir: Option<PathBuf>,
    /// Also write the result as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

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
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}

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

/// Reads `500ms`, `3s`, `2m`.
fn time(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number: u64 = number.parse().map_err(|_| "give a time such as 500ms, 3s or 2m".to_owned())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => Err("give a time such as 500ms, 3s or 2m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("3s"), Ok(Duration::from_secs(3)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "3", "s", "1h", "-1s"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_issue_s_own_lines_are_read() {
        let idle = Cli::parse_from(["martlet-load", "idle", "--connections", "5000,10000,19000"]);
        assert!(matches!(idle.command, Command::Idle(args) if args.connections == [5000, 10_000, 19_000]));
        let fanout = ["martlet-load", "fanout", "--members", "10000", "--rate", "100", "--seconds", "30"];
        let fanout = Cli::parse_from(fanout);
        assert!(matches!(fanout.command, Command::Fanout(args) if (args.members, args.seconds) == (10_000, 30)));
        let cluster = Cli::parse_from(["martlet-load", "send", "--cluster", "3", "--stop-redis", "30s"]);
        assert!(matches!(cluster.command, Command::Send(args) if args.cluster == Some(3)));
        let send = Cli::parse_from(["martlet-load", "send", "--senders", "200", "--devices", "5", "--seconds", "20"]);
        assert!(
            matches!(send.command, Command::Send(args) if (args.senders, args.devices, args.seconds) == (200, 5, 20))
        );
    }
}
