//! `cargo xtask up`: from a checkout to a node that serves, or to a cluster of three ([`cluster`]).
//!
//! For one node it becomes that node (exec), so that Ctrl-C and a supervisor's SIGTERM reach it as if it had been started by hand.

mod cluster;
mod parts;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{cargo, succeeds};

/// Builds the node and becomes it. Returns only if that fails.
///
/// # Errors
/// The node does not build or can't be started.
pub fn run(release: bool, serve: &[String]) -> Result<bool> {
    let profile = if release { "release" } else { crate::PROFILE };
    let node = build(profile)?;
    println!(
        "Starting it; its data is in ./data (remove that folder to start from nothing). To try it, in another terminal:\n  \
         cargo run --profile {profile} -p martlet-client -- demo      two people, five devices, from nothing\n  \
         cargo run --profile {profile} -p martlet-client -- --help    register, talk, link a device\n"
    );
    let error = Command::new(&node).arg("serve").args(serve).current_dir(crate::root()).exec();
    Err(error).with_context(|| format!("can't start {}", node.display()))
}

/// Builds the node, starts three of them with all they need, and stops them at Ctrl-C.
///
/// # Errors
/// The node does not build, or a part did not start; the message names it, with the last lines of its log.
pub fn run_cluster(release: bool, folder: Option<PathBuf>, serve: &[String]) -> Result<bool> {
    let profile = if release { "release" } else { crate::PROFILE };
    crate::tools::install_for_cluster()?;
    let node = build(profile)?;
    let folder = match folder {
        Some(folder) => folder,
        None => target_folder()?.join("up-cluster"),
    };
    cluster::run(&node, &folder, profile, serve)?;
    Ok(true)
}

/// Builds the node, and tells where it is.
fn build(profile: &str) -> Result<PathBuf> {
    println!("Building the node (profile {profile}); the first time takes a few minutes.");
    if !succeeds(&mut cargo(&["build", "--profile", profile, "--package", "martlet"]))? {
        bail!("the node does not build");
    }
    Ok(target_folder()?.join(profile).join("martlet"))
}

/// Where cargo puts what it builds, which a contributor may have set to elsewhere.
pub(crate) fn target_folder() -> Result<PathBuf> {
    let metadata = cargo(&["metadata", "--format-version", "1", "--no-deps"]).output().context("can't run cargo")?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&metadata.stdout).context("cargo's metadata is unreadable")?;
    Ok(metadata["target_directory"].as_str().context("cargo names no target folder")?.into())
}
