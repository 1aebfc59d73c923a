//! `cargo xtask nemesis`: a cluster under load with everything going wrong, and a checker that knows what may have happened.
//!
//! The run itself is a program of the package `martlet-e2e`; here it is built, with the nodes that it starts, and begun.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{
    PROFILE,
    process::{cargo, succeeds},
    tools,
    up::target_folder,
};

/// Builds nodes and nemesis, and runs it with these arguments; true if nothing was wrong.
///
/// # Errors
/// Something does not build, or a program is missing.
pub fn run(arguments: &[String]) -> Result<bool> {
    tools::install()?;
    if arguments.iter().any(|argument| argument.starts_with("--planted")) {
        build(&["--package", "martlet", "--bin", "martlet-planted", "--features", "planted"])?;
    }
    build(&["--package", "martlet", "--bin", "martlet", "--package", "martlet-e2e", "--bin", "nemesis"])?;
    start(arguments)
}

/// Runs what is built.
///
/// # Errors
/// It can't be started.
pub fn start(arguments: &[String]) -> Result<bool> {
    succeeds(Command::new(target_folder()?.join(PROFILE).join("nemesis")).args(arguments).current_dir(crate::root()))
}

fn build(what: &[&str]) -> Result<()> {
    if !succeeds(&mut cargo(&[&["build", "--profile", PROFILE], what].concat()))? {
        bail!("the nemesis does not build");
    }
    Ok(())
}
