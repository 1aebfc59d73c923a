//! A Redis of its own: a folder, a port, no password, nothing on disk unless asked.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;

use crate::{
    folders, free_port,
    process::{Launch, Process},
    wait,
};

/// A running Redis 7. It ends with its value, and with this process.
pub struct Redis {
    port: u16,
    server: Server,
}

enum Server {
    /// Started here; the process is gone while it is stopped.
    Own { launch: Box<Launch>, process: Option<Process> },
    /// Somebody else's, by its process id.
    Other(i32),
}

impl Redis {
    /// Starts a server on a folder. It keeps everything in memory, and allows `DEBUG` to who is on this machine.
    ///
    /// # Errors
    /// Redis is missing, or does not start; the message holds the last lines of its log.
    pub fn start(folder: &Path) -> Result<Self> {
        Self::start_with(folder, &[])
    }

    /// As [`Self::start`], with arguments such as `["--maxmemory", "2mb"]`; those given here win.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(folder: &Path, extra_arguments: &[&str]) -> Result<Self> {
        Self::launch(folder, extra_arguments, false)
    }

    /// As [`Self::start_with`]; if `remove`, the folder goes when this process ends.
    pub(crate) fn launch(folder: &Path, extra_arguments: &[&str], remove: bool) -> Result<Self> {
        let port = free_port();
        let own = ["--save", "", "--appendonly", "no", "--enable-debug-command", "local"];
        let arguments = own.iter().chain(extra_arguments).map(OsString::from).collect();
        Self::of(folder, port, arguments, remove)
    }

    /// Any process that is `redis-server`, with exactly these arguments beside port and address.
    pub(crate) fn of(folder: &Path, port: u16, mut arguments: Vec<OsString>, remove: bool) -> Result<Self> {
        let folder = folders::make(folder, None)?;
        arguments.extend(["--bind", "127.0.0.1", "--port"].map(OsString::from));
        arguments.push(port.to_string().into());
        let launch = Launch {
            name: "Redis",
            program: folders::program("redis-server", "redis-server")?,
            arguments,
            log: folder.join("redis.log"),
            user: None,
            // It has nothing to write that anyone waits for, and ends in no time.
            end: Signal::KILL,
            remove: remove.then(|| folder.clone()),
            folder,
        };
        let mut redis = Self { port, server: Server::Own { launch: Box::new(launch), process: None } };
        redis.start_again()?;
        Ok(redis)
    }

    /// One that runs already. It can't be stopped through this value, and does not end with it.
    ///
    /// # Errors
    /// It does not answer.
    pub fn running_on(port: u16) -> Result<Self> {
        let mut redis = Self { port, server: Server::Other(0) };
        let info = redis.command(&["INFO", "server"])?;
        let pid =
            info.lines().find_map(|line| line.strip_prefix("process_id:")).context("a server has a process id")?;
        redis.server = Server::Other(pid.trim().parse()?);
        Ok(redis)
    }

    /// Where it listens on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where clients find it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its process id; 0 while it is stopped.
    #[must_use]
    pub fn pid(&self) -> i32 {
        match &self.server {
            Server::Own { process, .. } => process.as_ref().map_or(0, Process::pid),
            Server::Other(pid) => *pid,
        }
    }

    /// Its log, over all starts; none of a server that was not started here.
    #[must_use]
    pub fn log(&self) -> Option<PathBuf> {
        match &self.server {
            Server::Own { launch, .. } => Some(launch.log.clone()),
            Server::Other(_) => None,
        }
    }

    /// Runs one command by `redis-cli`, and returns its answer as that prints it: one line per element.
    ///
    /// # Errors
    /// The server doesn't answer or refuses; the message is its own.
    pub fn command(&self, words: &[&str]) -> Result<String> {
        let output = Command::new(folders::program("redis-cli", "redis-tools")?)
            // -e: an answer that is an error ends it with an error, too.
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-e"])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .context("can't run redis-cli")?;
        let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        ensure!(output.status.success(), "Redis: {text}{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(text)
    }

    /// SIGKILL: gone at once, with everything it held.
    ///
    /// # Errors
    /// It wasn't started here.
    pub fn kill(&mut self) -> Result<()> {
        self.end(Signal::KILL)
    }

    /// SIGTERM: it disconnects its clients and ends.
    ///
    /// # Errors
    /// It wasn't started here, or goes on for two minutes.
    pub fn stop(&mut self) -> Result<()> {
        self.end(Signal::TERM)
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        let Server::Own { process, .. } = &mut self.server else { bail!("this Redis was not started here") };
        if let Some(running) = process.as_mut() {
            running.signal(signal)?;
            running.ended(wait::PATIENCE)?;
        }
        *process = None;
        Ok(())
    }

    /// Starts it again on the same port, and waits until it answers. Nothing to do if it runs.
    ///
    /// # Errors
    /// It wasn't started here, or does not start.
    pub fn start_again(&mut self) -> Result<()> {
        let port = self.port;
        let Server::Own { launch, process } = &mut self.server else { bail!("this Redis was not started here") };
        if let Some(running) = process.as_mut()
            && running.status()?.is_none()
        {
            return Ok(());
        }
        let mut started = Process::start(launch)?;
        let other = Self { port, server: Server::Other(0) };
        // PING is refused while it loads what it had saved, and then the wait goes on.
        started.serves(|| Ok(other.command(&["PING"]).is_ok_and(|answer| answer == "PONG")))?;
        *process = Some(started);
        Ok(())
    }
}
