//! `cargo xtask`: the command line of the project's own commands.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Commands for working on Martlet.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build and start a node on the embedded default, with its data in ./data. Stop it with Ctrl-C.
    Up {
        /// Three nodes behind nginx, over PostgreSQL and Redis, all of them started here.
        #[arg(long)]
        cluster: bool,
        /// Where the cluster keeps its data and logs, instead of target/up-cluster.
        #[arg(long, requires = "cluster", value_name = "FOLDER")]
        folder: Option<PathBuf>,
        /// Build as a release is built: slower to build, as fast as it gets.
        #[arg(long)]
        release: bool,
        /// Passed on to `martlet serve`, like `--listen 0.0.0.0:8080`.
        #[arg(last = true)]
        serve: Vec<String>,
    },
    /// Install what the tests need, run all of them and all checks, and sum up.
    Test {
        /// The inner loop: unit tests in the development profile; no end-to-end tests, nothing installed.
        #[arg(long)]
        quick: bool,
    },
    /// Three nodes over PostgreSQL and Redis, every fault there is, and a checker: exits 1 unless nothing was lost, repeated, out of
    /// order, or delivered to a revoked device. See docs/RELIABILITY.md.
    Nemesis {
        /// `--seconds N`, `--seed S`, `--planted NAME` or `--planted all`, `--embedded`, `--quiet`; `--help` explains them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure, in a release build, and write the tables into docs/PERFORMANCE.md. Everything takes about an hour.
    Bench {
        /// Which measurements (criterion, idle, fanout, …); all if none is named.
        names: Vec<String>,
        /// Small and short, to see that everything works. Its figures mean nothing, so the document stays as it is.
        #[arg(long)]
        quick: bool,
        /// Leave the document as it is: the tables are only in target/bench.
        #[arg(long)]
        keep: bool,
    },
    /// Check the rules that no compiler knows: sizes, import directions, words, links, licences.
    Tidy,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Up { cluster: true, folder, release, serve } => xtask::up::run_cluster(release, folder, &serve),
        Command::Up { release, serve, .. } => xtask::up::run(release, &serve),
        Command::Test { quick } => xtask::test::run(quick),
        Command::Nemesis { arguments } => xtask::nemesis::run(&arguments),
        Command::Bench { names, quick, keep } => xtask::bench::run(&xtask::bench::Options { names, quick, keep }),
        Command::Tidy => xtask::tidy::run(),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
