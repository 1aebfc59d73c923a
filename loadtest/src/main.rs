//! `martlet-load`: see [`martlet_loadtest::cli`] for what it takes.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use martlet_loadtest::{
    cli::{Cli, Command},
    comeback, fanout, fixtures, idle, send,
};
use serde::Serialize;

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

/// Prints the result, and tells whether it is clean.
fn run(cli: &Cli) -> Result<bool> {
    match &cli.command {
        Command::Idle(args) => {
            let result = idle::run(args)?;
            print!("{}", result.text());
            write_json(args.node.json.as_ref(), &result)?;
            Ok(result.is_clean())
        }
        Command::Fanout(args) => {
            let result = fanout::run(args)?;
            print!("{}", result.text());
            write_json(args.node.json.as_ref(), &result)?;
            Ok(result.is_clean())
        }
        Command::Fixtures(args) => fixtures::run(args).map(|()| true),
        Command::Jitter(args) => {
            let result = comeback::jitter(args)?;
            print!("{}", result.text());
            write_json(args.node.json.as_ref(), &result)?;
            Ok(result.is_clean())
        }
        Command::Storm(args) => {
            let result = comeback::storm(args)?;
            print!("{}", result.text());
            write_json(args.node.json.as_ref(), &result)?;
            Ok(result.is_clean())
        }
        Command::Send(args) => {
            let result = send::run(args)?;
            print!("{}", result.text());
            write_json(args.node.json.as_ref(), &result)?;
            Ok(result.is_clean())
        }
    }
}

fn write_json(file: Option<&PathBuf>, result: &impl Serialize) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let text = serde_json::to_string_pretty(result)? + "\n";
    fs::write(file, text).with_context(|| format!("{} can't be written", file.display()))
}
