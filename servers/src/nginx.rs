//! An nginx of its own, with the configuration that it is given.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use crate::{
    folders,
    process::{Launch, Process},
    wait,
};

/// What is said on the command line, and so must not stand in the configuration.
const GLOBAL: &str = "daemon off; pid nginx.pid;";

/// A running nginx. It ends with its value, and with this process.
pub struct Nginx {
    folder: PathBuf,
    process: Option<Process>,
    /// Goes with the value, after the process.
    temporary: Option<TempDir>,
}

impl Nginx {
    /// Starts it on a folder with a main configuration (`events { … } http { … }`). Relative paths in it are in that folder. It must not
    /// say `daemon` or `pid`.
    ///
    /// # Errors
    /// nginx is missing or does not start, or the configuration is wrong; the message is its own.
    pub fn start(folder: &Path, config: &str) -> Result<Self> {
        Self::launch(folder, None, config)
    }

    /// A main configuration for what stands inside `http { … }`. All it writes is in the folder, so that a user's own nginx can do it. As
    /// root, its workers stay root, who owns that folder.
    #[must_use]
    pub fn config(workers: usize, connections: usize, http: &str) -> String {
        let user = if geteuid().is_root() { "user root;\n" } else { "" };
        let own =
            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {kind};\n"));
        let events = format!("worker_processes {workers};\nevents {{ worker_connections {connections}; }}\n");
        format!("{user}{events}http {{\n{}{http}\n}}\n", own.concat())
    }

    /// As [`Self::start`], in a temporary folder that goes with the value, and with this process.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_temporary(config: &str) -> Result<Self> {
        let temporary = tempfile::Builder::new().prefix("martlet-nginx-").tempdir()?;
        let folder = temporary.path().to_owned();
        Self::launch(&folder, Some(temporary), config)
    }

    fn launch(folder: &Path, temporary: Option<TempDir>, config: &str) -> Result<Self> {
        let folder = folders::make(folder, None)?;
        if geteuid().is_root() {
            // Its workers are another user's, and keep large bodies in files below this folder.
            folders::open_the_way(&folder.join("below"))?;
        }
        let mut nginx = Self { folder, process: None, temporary };
        nginx.configure(config)?;
        nginx.start_again()?;
        Ok(nginx)
    }

    /// Writes another configuration, for the next [`Self::reload`] or [`Self::start_again`].
    ///
    /// # Errors
    /// It is wrong, and the one before stays; the message is nginx's own.
    pub fn configure(&self, config: &str) -> Result<()> {
        let (candidate, kept) = (self.folder.join("candidate.conf"), self.folder.join("nginx.conf"));
        fs::write(&candidate, config)?;
        let output = Command::new(program()?)
            .args(self.arguments("candidate.conf", "pid checked.pid;"))
            .arg("-t")
            .stdin(Stdio::null())
            .output()
            .context("can't run nginx")?;
        ensure!(output.status.success(), "nginx refuses: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(fs::rename(candidate, kept)?)
    }

    /// Takes the configuration anew, without closing a connection; returns once there is a worker that has it.
    ///
    /// # Errors
    /// It isn't running, or no new worker came.
    pub fn reload(&mut self) -> Result<()> {
        let before = self.workers()?;
        self.process.as_mut().context("nginx is stopped")?.signal(Signal::HUP)?;
        wait::until(wait::PATIENCE, "waiting until nginx has reloaded", || {
            Ok(self.workers()?.difference(&before).next().map(drop))
        })
    }

    /// The first process's id; 0 while it is stopped.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.as_ref().map_or(0, Process::pid)
    }

    /// The first process and its workers.
    ///
    /// # Errors
    /// It isn't running.
    pub fn processes(&self) -> Result<Vec<i32>> {
        Ok([self.pid()].into_iter().chain(self.workers()?).collect())
    }

    /// Its log of errors, unless the configuration names another.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("error.log")
    }

    /// Closes every connection and ends.
    ///
    /// # Errors
    /// It goes on for two minutes.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(running) = self.process.as_mut() {
            running.signal(Signal::TERM)?;
            running.ended(wait::PATIENCE)?;
        }
        self.process = None;
        Ok(())
    }

    /// Starts it again. Nothing to do if it runs.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_again(&mut self) -> Result<()> {
        if let Some(running) = self.process.as_mut()
            && running.status()?.is_none()
        {
            return Ok(());
        }
        let launch = Launch {
            name: "nginx",
            program: program()?,
            arguments: self.arguments("nginx.conf", GLOBAL).into_iter().map(Into::into).collect(),
            folder: self.folder.clone(),
            log: self.log(),
            user: None,
            end: Signal::TERM,
            remove: self.temporary.as_ref().map(|_| self.folder.clone()),
        };
        let mut started = Process::start(&launch)?;
        let (file, pid) = (self.folder.join("nginx.pid"), started.pid().to_string());
        // It writes the file once its listeners are open.
        started.serves(|| Ok(fs::read_to_string(&file).is_ok_and(|text| text.trim() == pid)))?;
        self.process = Some(started);
        Ok(())
    }

    fn arguments(&self, config: &str, global: &str) -> Vec<String> {
        let inside = |file: &str| self.folder.join(file).display().to_string();
        let prefix = format!("{}/", self.folder.display());
        let flags = [("-p", prefix), ("-e", inside("error.log")), ("-c", inside(config)), ("-g", global.to_owned())];
        flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }

    /// The processes that the first one has started.
    fn workers(&self) -> Result<BTreeSet<i32>> {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        Ok(children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
    }
}

fn program() -> Result<PathBuf> {
    folders::program("nginx", "nginx")
}
