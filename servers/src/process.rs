//! One server process, and its end: by its value, or with the process that started it, however that ends.
//!
//! Beside each server runs a small shell, its watch, that does nothing but wait for the end of a pipe whose other end this process holds.
//! The system closes that end when this process is gone, by SIGKILL too; then the watch ends the server. (The signal that Linux can send
//! at a parent's death is bound to the thread that started the child, and test threads end before their servers do.) The server itself
//! begins as a shell that waits for a word: it is given after the watch stands, so that there is no moment without.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::{folders::User, last_lines, wait};

/// Becomes the server once it is told to; ends if nobody is left to tell it.
const SERVER: &str = r#"read -r _ && exec "$@" </dev/null"#;

/// Waits until its input ends, or says that the server is gone. Then ends the server's process group with the given signal, and, if that
/// has not helped within ten seconds, with SIGKILL; and removes the folder, if one is given.
const WATCH: &str = r#"
trap '' HUP INT QUIT TERM
read -r _ && exit 0
kill -s "$1" -- "-$2"
kill -s CONT -- "-$2"
tries=0
while kill -s 0 -- "-$2" && [ "$tries" -lt 100 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
kill -s KILL -- "-$2"
[ -z "$3" ] || rm -rf -- "$3"
"#;

/// How long a server may take to end by its own signal before SIGKILL, when its value is dropped.
const FAREWELL: Duration = Duration::from_secs(10);

/// What to start, and how it is ended.
pub struct Launch {
    /// What messages call it.
    pub name: &'static str,
    /// Its program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Where it runs.
    pub folder: PathBuf,
    /// Where its output goes, after what is there.
    pub log: PathBuf,
    /// Who it runs as, if not as this process.
    pub user: Option<User>,
    /// What ends it, with all its processes, in seconds at most.
    pub end: Signal,
    /// A folder that goes when this process ends without having stopped the server.
    pub remove: Option<PathBuf>,
}

/// A running server.
pub struct Process {
    name: &'static str,
    child: Child,
    watch: Child,
    log: PathBuf,
    end: Signal,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts it; that it serves is for the caller to see.
    ///
    /// # Errors
    /// Its log can't be written, or no process started.
    pub fn start(launch: &Launch) -> Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(&launch.log)?;
        let mut server = shell(SERVER);
        server.arg(&launch.program).args(&launch.arguments).current_dir(&launch.folder);
        server.stdout(log.try_clone()?).stderr(log);
        if let Some(User { uid, gid }) = launch.user {
            server.uid(uid).gid(gid);
        }
        let mut child = server.spawn().with_context(|| format!("{} can't be started", launch.name))?;
        let mut watch = shell(WATCH);
        watch.arg(signal_name(launch.end)).arg(child.id().to_string()).arg(launch.remove.clone().unwrap_or_default());
        let watch = watch.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut go = child.stdin.take().context("the input is a pipe")?;
        go.write_all(b"go\n")?;
        Ok(Self { name: launch.name, child, watch, log: launch.log.clone(), end: launch.end, status: None })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// It ended, or does not serve in time; the message holds the last lines of its log.
    pub fn serves(&mut self, mut serves: impl FnMut() -> Result<bool>) -> Result<()> {
        let name = self.name;
        wait::until(wait::PATIENCE, "waiting until it serves", || {
            if let Some(status) = self.status()? {
                bail!("it ended at its start with {status}");
            }
            Ok(serves()?.then_some(()))
        })
        .map_err(|error| anyhow!("{name}: {error:#}; the end of its log:\n{}", last_lines(&self.log, 20)))
    }

    /// Sends it a signal. No error if it has ended.
    ///
    /// # Errors
    /// The system refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.status()?.is_none() {
            kill_process(self.raw()?, signal).with_context(|| format!("{} can't be sent a signal", self.name))?;
        }
        Ok(())
    }

    /// SIGKILL for it and every process of its group; returns once it is gone.
    ///
    /// # Errors
    /// The system refuses.
    pub fn kill(&mut self) -> Result<()> {
        if self.status()?.is_none() {
            kill_process_group(self.raw()?, Signal::KILL)?;
        }
        self.ended(wait::PATIENCE).map(drop)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It goes on.
    pub fn ended(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("waiting until {} ends", self.name);
        let status = wait::until(deadline, &what, || self.status())?;
        // Also when it is told twice: the second time there is nobody to hear it.
        let told = self.watch.stdin.take().map(|mut input| input.write_all(b"gone\n"));
        if told.is_some() {
            self.watch.wait()?;
        }
        Ok(status)
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The system can't say.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status)
    }

    fn raw(&self) -> Result<Pid> {
        Pid::from_raw(self.pid()).context("not a process id")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // There is nobody to tell, and the watch is there for what fails here.
        let asked = self.signal(self.end).and_then(|()| self.signal(Signal::CONT));
        if asked.and_then(|()| self.ended(FAREWELL)).is_err() && self.kill().is_err() {
            drop(self.watch.stdin.take());
        }
    }
}

/// A shell in a process group of its own, so that Ctrl-C in a terminal reaches whoever started it and not the server.
fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "martlet-servers"]).stdin(Stdio::piped()).process_group(0);
    command
}

/// As a shell names it.
fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::QUIT => "QUIT",
        Signal::INT => "INT",
        Signal::TERM => "TERM",
        _ => "KILL",
    }
}
