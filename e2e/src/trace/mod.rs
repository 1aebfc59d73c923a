//! A node under `strace`, and the proof that no answer left before what it promises was on disk.
//!
//! The tracer writes a line when a thread enters a system call and, if other threads came between, another when it leaves. A thread is
//! stopped at both points, so the order of lines is an order of time: a call whose end stands above another's start was over before
//! that one began. [`calls`] reads lines, [`proof`] judges what they mean for SQLite's write-ahead log and for sockets.

pub mod calls;
pub mod proof;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::scene::Scene;

/// What has to be seen: everything that writes to the log file or to a socket, and everything that syncs.
const CALLS: &str = "trace=fdatasync,fsync,write,pwrite64,sendto,writev,sendmsg";
/// Bytes of each write that are kept: more than any write has, or what a busy node sends in one call would be missing.
const BYTES_KEPT: &str = "16777216";

/// How a traced node is run, and where its trace goes.
#[derive(Debug, Clone)]
pub struct Tracer {
    /// The trace.
    pub output: PathBuf,
    /// For [`crate::node::NodeOptions::under`].
    pub wrapper: Vec<OsString>,
}

impl Tracer {
    /// A tracer that leaves the node's process id to the node.
    ///
    /// # Errors
    /// There is no strace on this machine.
    pub fn new(scene: &Scene, name: &str) -> Result<Self> {
        std::process::Command::new("strace").arg("-V").output().context(
            "this test needs strace, which shows the system calls of a process: apt-get install strace (package strace)",
        )?;
        let output = scene.folder().join(format!("{name}.strace"));
        let fixed = ["strace", "-D", "-f", "--seccomp-bpf", "-y", "-xx", "-s", BYTES_KEPT, "-e", CALLS, "-o"];
        let mut wrapper: Vec<OsString> = fixed.iter().map(OsString::from).collect();
        wrapper.push(output.clone().into());
        Ok(Self { output, wrapper })
    }

    /// Reads the trace, once the node has ended and the tracer has written its last line.
    ///
    /// # Errors
    /// No trace, or one that does not end.
    pub async fn read(&self) -> Result<proof::Trace> {
        let output = self.output.clone();
        crate::scene::until("the trace ends with the node", || async { Ok(has_ended(&output)) }).await?;
        let text = std::fs::read_to_string(&self.output)?;
        Ok(proof::Trace::new(&calls::parse(&text)?))
    }
}

/// The tracer's last line says how the traced process ended; a line without its end is still being written.
fn has_ended(output: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(output) else { return false };
    let first_pid = text.split_whitespace().next();
    let last = text.lines().rev().find(|line| line.split_whitespace().next() == first_pid);
    text.ends_with('\n') && last.is_some_and(|line| line.contains("+++ exited with") || line.contains("+++ killed by"))
}
