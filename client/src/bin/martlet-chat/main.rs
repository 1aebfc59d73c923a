//! `martlet-chat`: the command-line messenger, and the demo. It reads the command line, opens the device's folder, calls the SDK and
//! prints; what a device does is in the library.

mod args;
mod commands;
mod demo;
mod home;
mod show;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Arguments, Command};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("MARTLET_LOG"))
        .with_writer(std::io::stderr)
        .init();
    let Arguments { place, command } = Arguments::parse();
    let outcome = match command {
        Command::Demo(options) => demo::run(options, &place).await,
        command => commands::run(place, command).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("martlet-chat: {error:#}");
            ExitCode::FAILURE
        }
    }
}
