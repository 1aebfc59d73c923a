//! `martlet-load`: see [`martlet_loadtest::cli`] for what it takes.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;
use martlet_loadtest::{
    cli::{Cli, Command},
    comeback, fanout, fixtures, hold, idle, mixed, peers, population,
    report::{self, conclude},
    send,
};

/// The generator makes and drops many small buffers, and shares its cores with what it measures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("martlet-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command, and tells whether its result is clean.
fn run(cli: &Cli) -> Result<bool> {
    match &cli.command {
        Command::Idle(args) => conclude(&args.node, &idle::run(args)?),
        Command::Send(args) => conclude(&args.node, &send::run(args)?),
        Command::Fanout(args) => conclude(&args.node, &fanout::run(args)?),
        Command::Jitter(args) => conclude(&args.node, &comeback::jitter(args)?),
        Command::Storm(args) => conclude(&args.node, &comeback::storm(args)?),
        Command::Mixed(args) => conclude(&args.node, &mixed::run(args)?),
        Command::Peers(args) => conclude(&args.node, &peers::run(args)?),
        Command::Hold(args) => conclude(&args.node, &hold::run(args)?),
        Command::Population(args) => population::run(args).map(|()| true),
        Command::Fixtures(args) => fixtures::run(args).map(|()| true),
        Command::Report(args) => report::run(args).map(|()| true),
    }
}
