//! What can be asked for on the command line: this file has what all commands share, each file below what one of them takes.

mod comeback;
mod fanout;
mod fixtures;
mod idle;
mod mixed;
mod peers;
mod report;
mod send;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

pub use comeback::{JitterArgs, StormArgs};
pub use fanout::FanoutArgs;
pub use fixtures::FixturesArgs;
pub use idle::IdleArgs;
pub use mixed::MixedArgs;
pub use peers::PeersArgs;
pub use report::ReportArgs;
pub use send::SendArgs;

use crate::{hold::HoldArgs, population::PopulationArgs};

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
    /// Everything at once: direct messages, messages to large groups, typing and presence, each at its own rate.
    Mixed(MixedArgs),
    /// A node beside nchan (nginx's publish-subscribe module), in turns: memory per connection, and a burst to one channel.
    Peers(PeersArgs),
    /// Very many connections: accounts of a population, each subscribed to a log of 100,000 members, and one message through every log.
    Hold(HoldArgs),
    /// An archive of very many accounts and large conversations, for `martlet import`; `hold` connects them.
    Population(PopulationArgs),
    /// Accounts, a group and encrypted messages for the k6 checks in loadtest/k6/, made on a running node.
    Fixtures(FixturesArgs),
    /// An HTML page of results, those of one measurement laid over each other.
    Report(ReportArgs),
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
    /// Also write the result as JSON, with where and how it was taken and its latency histograms.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also write it as a page of its own, as `report` makes it of JSON.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Reads `500ms`, `3s`, `2m`.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
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
