//! A PostgreSQL of its own: a folder, a port, the superuser `martlet`, no password.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;

use crate::{
    folders::{self, User},
    free_port, last_lines,
    process::{Launch, Process},
    wait,
};

const SUPERUSER: &str = "martlet";

/// What every server gets before a test's own settings. Durability is left as it comes: on.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    // Only TCP: a socket's path may be no longer than 107 bytes, and temporary folders are longer.
    ("unix_socket_directories", ""),
    // In the data folder, so that nothing stays in /dev/shm after a SIGKILL.
    ("dynamic_shared_memory_type", "mmap"),
    ("max_connections", "200"),
    ("shared_buffers", "64MB"),
    ("log_line_prefix", "%m [%p] "),
    ("timezone", "UTC"),
];

/// How to stop a server; the names are PostgreSQL's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Waits until every client has left by itself.
    Smart,
    /// Disconnects clients, rolls back, writes everything.
    Fast,
    /// Stops at once, as in a crash; the next start recovers from the log.
    Immediate,
}

/// A running PostgreSQL 15 or later. It ends with its value, and with this process.
pub struct Postgres {
    port: u16,
    server: Server,
}

enum Server {
    /// Started here; the process is gone while it is stopped.
    Own { folder: PathBuf, user: Option<User>, remove: Option<PathBuf>, process: Option<Process> },
    /// Somebody else's, by its process id.
    Other(i32),
}

impl Postgres {
    /// Starts a server on a folder, new or with a cluster that was made here before.
    ///
    /// # Errors
    /// PostgreSQL is missing, or does not start; the message holds the last lines of its log.
    pub fn start(folder: &Path) -> Result<Self> {
        Self::start_with(folder, &[])
    }

    /// As [`Self::start`], with settings of `postgresql.conf`, such as `("max_connections", "20")`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(folder: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        Self::launch(folder, settings, false)
    }

    /// As [`Self::start_with`]; if `remove`, the folder goes when this process ends.
    pub(crate) fn launch(folder: &Path, settings: &[(&str, &str)], remove: bool) -> Result<Self> {
        let user = folders::unprivileged("postgres")?;
        let folder = folders::make(folder, user)?;
        if !folder.join("data/PG_VERSION").is_file() {
            init(&folder, user)?;
        }
        let port = free_port();
        configure(&folder, port, settings)?;
        let remove = remove.then(|| folder.clone());
        let mut postgres = Self { port, server: Server::Own { folder, user, remove, process: None } };
        postgres.start_again()?;
        Ok(postgres)
    }

    /// A standby of the server on `port` of this machine: a copy of it in a new folder, which follows it until [`Self::promote`].
    ///
    /// # Errors
    /// It can't be copied, or does not start.
    pub fn standby(port: u16, folder: &Path) -> Result<Self> {
        let user = folders::unprivileged("postgres")?;
        let folder = folders::make(folder, user)?;
        let port_of_primary = port.to_string();
        run(
            Command::new(program("pg_basebackup")?)
                .args(["--host", "127.0.0.1", "--port", &port_of_primary, "--username", SUPERUSER, "--no-password"])
                // With what it needs to follow.
                .args(["--write-recovery-conf", "--checkpoint", "fast", "--no-sync", "--pgdata"])
                .arg(folder.join("data")),
            &folder,
            user,
            "pg_basebackup",
        )?;
        let port = free_port();
        configure(&folder, port, &[])?;
        let mut standby = Self { port, server: Server::Own { folder, user, remove: None, process: None } };
        standby.start_again()?;
        Ok(standby)
    }

    /// Waits until this standby has whatever its primary has written by now.
    ///
    /// # Errors
    /// One of them does not answer, or it takes two minutes.
    pub fn catch_up(&self, primary: &Self) -> Result<()> {
        let written = primary.query("postgres", "SELECT pg_current_wal_lsn()")?;
        let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
        wait::until(wait::PATIENCE, "the standby catches up", || {
            Ok((self.query("postgres", &sql)? == "t").then_some(()))
        })
    }

    /// Makes a standby a primary, with what it has.
    ///
    /// # Errors
    /// It is none, or does not become one within a minute.
    pub fn promote(&self) -> Result<()> {
        let promoted = self.query("postgres", "SELECT pg_promote(true, 60)")?;
        ensure!(promoted == "t", "the standby was not promoted within a minute");
        Ok(())
    }

    /// One that runs already, with the same superuser. It can't be stopped through this value, and does not end with it.
    ///
    /// # Errors
    /// It does not answer.
    pub fn running_on(port: u16) -> Result<Self> {
        let mut postgres = Self { port, server: Server::Other(0) };
        let pid = postgres.query("postgres", "SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)")?;
        postgres.server = Server::Other(pid.parse()?);
        Ok(postgres)
    }

    /// Where it listens on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where clients find one of its databases.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}@127.0.0.1:{}/{database}", self.port)
    }

    /// The first process's id; 0 while it is stopped.
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
            Server::Own { folder, .. } => Some(folder.join("postgresql.log")),
            Server::Other(_) => None,
        }
    }

    /// Makes an empty database.
    ///
    /// # Errors
    /// There is one of that name, or the server doesn't answer.
    pub fn create_database(&self, name: &str) -> Result<()> {
        // From template0: template1 may have a visitor, and then can't be copied.
        self.query("postgres", &format!("CREATE DATABASE \"{name}\" TEMPLATE template0")).map(drop)
    }

    /// Drops a database, if it is there, and disconnects who uses it.
    ///
    /// # Errors
    /// The server doesn't answer.
    pub fn drop_database(&self, name: &str) -> Result<()> {
        self.query("postgres", &format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)")).map(drop)
    }

    /// Runs SQL by `psql`: rows as lines, columns parted by `|`.
    ///
    /// # Errors
    /// The server doesn't answer or refuses; the message is its own.
    pub fn query(&self, database: &str, sql: &str) -> Result<String> {
        let output = Command::new(program("psql")?)
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--no-password"])
            .args(["--set", "ON_ERROR_STOP=1", "--dbname", &self.url(database), "--command", sql])
            .env("PGCONNECT_TIMEOUT", "30")
            .output()
            .context("can't run psql")?;
        ensure!(output.status.success(), "PostgreSQL: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Stops it and waits for its end.
    ///
    /// # Errors
    /// It wasn't started here, or goes on for two minutes.
    pub fn stop(&mut self, how: Shutdown) -> Result<()> {
        self.end(match how {
            Shutdown::Smart => Signal::TERM,
            Shutdown::Fast => Signal::INT,
            Shutdown::Immediate => Signal::QUIT,
        })
    }

    /// SIGKILL for the first process; the others see that it is gone, and follow.
    ///
    /// # Errors
    /// As [`Self::stop`].
    pub fn kill(&mut self) -> Result<()> {
        self.end(Signal::KILL)
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        let Server::Own { process, .. } = &mut self.server else { bail!("this PostgreSQL was not started here") };
        if let Some(running) = process.as_mut() {
            running.signal(signal)?;
            running.ended(wait::PATIENCE)?;
        }
        *process = None;
        Ok(())
    }

    /// Starts it again on the same port, and waits until it has recovered and serves. Nothing to do if it runs.
    ///
    /// # Errors
    /// It wasn't started here, or does not start.
    pub fn start_again(&mut self) -> Result<()> {
        let Server::Own { folder, user, remove, process } = &mut self.server else {
            bail!("this PostgreSQL was not started here");
        };
        if let Some(running) = process.as_mut()
            && running.status()?.is_none()
        {
            return Ok(());
        }
        let state = folder.join("data/postmaster.pid");
        let launch = Launch {
            name: "PostgreSQL",
            program: program("postgres")?,
            arguments: vec!["-D".into(), folder.join("data").into()],
            folder: folder.clone(),
            log: folder.join("postgresql.log"),
            user: *user,
            // Its immediate shutdown, which also takes its shared memory away.
            end: Signal::QUIT,
            remove: remove.clone(),
        };
        let mut started = Process::start(&launch)?;
        let pid = started.pid().to_string();
        // The file that PostgreSQL keeps for its own tools: process id first, state in the eighth line. An old one may lie there.
        started.serves(|| {
            let state = fs::read_to_string(&state).unwrap_or_default();
            let mut lines = state.lines();
            // A standby is never "ready".
            let serves = |state: &str| ["ready", "standby"].contains(&state.trim());
            Ok(lines.next() == Some(&pid) && lines.nth(6).is_some_and(serves))
        })?;
        *process = Some(started);
        Ok(())
    }
}

/// Makes a new cluster.
fn init(folder: &Path, user: Option<User>) -> Result<()> {
    run(
        Command::new(program("initdb")?)
            .args(["--username", SUPERUSER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync"])
            .arg("--pgdata")
            .arg(folder.join("data")),
        folder,
        user,
        "initdb",
    )?;
    // So that a setting that is given twice is not an error: the last one counts.
    let own = folder.join("data/postgresql.conf");
    let text = fs::read_to_string(&own)?;
    Ok(fs::write(own, format!("{text}\ninclude 'martlet.conf'\n"))?)
}

/// Runs one of PostgreSQL's programs to its end.
fn run(command: &mut Command, folder: &Path, user: Option<User>, name: &str) -> Result<()> {
    use std::os::unix::process::CommandExt as _;

    let log = folder.join(format!("{name}.log"));
    let output = fs::File::create(&log)?;
    command.current_dir(folder).stdin(std::process::Stdio::null()).stdout(output.try_clone()?).stderr(output);
    if let Some(User { uid, gid }) = user {
        command.uid(uid).gid(gid);
    }
    let status = command.status().with_context(|| format!("can't run {name}"))?;
    ensure!(status.success(), "PostgreSQL's {name} failed:\n{}", last_lines(&log, 20));
    Ok(())
}

/// Writes the settings for the next start.
fn configure(folder: &Path, port: u16, settings: &[(&str, &str)]) -> Result<()> {
    let mut text = format!("port = {port}\n");
    for (name, value) in SETTINGS.iter().chain(settings) {
        writeln!(text, "{name} = '{}'", value.replace('\'', "''"))?;
    }
    Ok(fs::write(folder.join("data/martlet.conf"), text)?)
}

/// One of PostgreSQL's programs, of the newest version installed. Debian keeps them off the path.
fn program(name: &str) -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin").join(name)))
        })
        .filter(|(_, program)| program.is_file())
        .max();
    newest.map_or_else(|| folders::program(name, "postgresql"), |(_, program)| Ok(program))
}
