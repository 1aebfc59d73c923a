//! The node that is measured: found beside this program or built, started on free ports in a temporary folder, stopped afterwards; or
//! one that runs already. It is asked nothing that a client or an operator could not ask.

mod cluster;
mod parts;
pub mod proc;

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub use cluster::Cluster;
pub use parts::{PartMean, Parts};

use crate::{ambient, cli::NodeArgs, progress::say};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// What a node under load is given: limits that protect against single addresses are off, since all load comes from one, and password
/// hashes are cheap, since they are not what is measured. All of it is printed.
const SETTINGS: &[(&str, &str)] = &[
    ("accounts.argon2_memory_kib", "8"),
    ("accounts.argon2_iterations", "1"),
    ("limits.sends_per_device_per_second", "0"),
    ("limits.sends_burst", "0"),
    ("limits.sends_per_account_per_second", "0"),
    ("limits.frames_per_socket_per_second", "0"),
    ("limits.frames_per_account_per_second", "0"),
    ("limits.frames_per_address_per_second", "0"),
    ("limits.sign_ins_per_account_per_minute", "0"),
    ("limits.requests_per_account_per_minute", "0"),
    ("limits.requests_per_address_per_second", "0"),
    ("limits.connections_per_address_per_second", "0"),
    ("limits.connections_per_device_per_minute", "0"),
    ("limits.sign_ins_per_address_per_minute", "0"),
    ("limits.registrations_per_address_per_minute", "0"),
    ("limits.claims_per_claimer_per_minute", "0"),
    ("limits.claims_per_target_per_minute", "0"),
    ("limits.lookups_per_device_per_minute", "0"),
    ("limits.requests_per_device_per_minute", "0"),
    ("limits.link_polls_per_address_per_minute", "0"),
    ("limits.connections_per_second", "0"),
    ("server.drain_window", "0s"),
    ("log.filter", "warn"),
];

/// With what a node is started: what every node under load is given, and then what the arguments say.
#[must_use]
pub fn settings(args: &NodeArgs) -> Vec<String> {
    SETTINGS.iter().map(|(key, value)| format!("{key}={value}")).chain(args.settings.iter().cloned()).collect()
}

/// A node to measure.
pub struct Node {
    url: String,
    pid: Option<u32>,
    own: Option<Own>,
    /// Where measurements may write; removed at the end.
    folder: TempDir,
}

/// A node that this program started.
struct Own {
    child: Child,
    internal_port: u16,
    program: PathBuf,
    settings: Vec<String>,
    data: PathBuf,
}

impl Node {
    /// Starts a node, or takes the one that the arguments name.
    ///
    /// # Errors
    /// When there is none, and none can be built or started.
    pub fn start(args: &NodeArgs) -> Result<Self> {
        Self::start_with(args, None)
    }

    /// Starts a node over data that is there already and stays.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_over(args: &NodeArgs, data: &Path) -> Result<Self> {
        Self::start_with(args, Some(data))
    }

    fn start_with(args: &NodeArgs, data: Option<&Path>) -> Result<Self> {
        let folder = match &args.dir {
            Some(dir) => TempDir::with_prefix_in("martlet-load-", dir),
            None => TempDir::with_prefix("martlet-load-"),
        };
        let folder = folder.context("no temporary folder can be made")?;
        if let Some(url) = &args.server {
            let url = url.trim_end_matches('/').to_owned();
            return Ok(Self { url, pid: args.server_pid, own: None, folder });
        }
        let program = match &args.node {
            // It is started in a folder of its own.
            Some(program) => {
                program.canonicalize().with_context(|| format!("{} can't be started", program.display()))?
            }
            None => find_or_build()?,
        };
        let data = data.map_or_else(|| folder.path().join("data"), Path::to_owned);
        let settings = settings(args);
        say(&format!("starting {} with {}", program.display(), settings.join(" ")));
        let (child, url, internal_port) = spawn(&program, &settings, folder.path(), &data)?;
        let pid = Some(child.id());
        let node = Self { url, pid, own: Some(Own { child, internal_port, program, settings, data }), folder };
        Ok(node)
    }

    /// Its public address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process, if it is known.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// A folder on the disk that the node writes to.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has measured of the parts of messages' ways; `None` for a node of somebody else, whose internal listener is not known, and for
    /// an old one.
    ///
    /// # Errors
    /// When it does not tell.
    pub fn parts(&self) -> Result<Option<Parts>> {
        self.own.as_ref().map_or(Ok(None), |own| Parts::ask(own.internal_port))
    }

    /// Whether this program started it.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Stops and starts it over the same data, so that what it did before leaves nothing in its memory. Its address changes. A node of
    /// somebody else is left alone.
    ///
    /// # Errors
    /// When it does not stop or start.
    pub fn restart(&mut self) -> Result<()> {
        let Some(own) = &mut self.own else { return Ok(()) };
        if own.child.try_wait()?.is_none() {
            stop(&mut own.child)?;
        }
        let (child, url, internal_port) = spawn(&own.program, &own.settings, self.folder.path(), &own.data)?;
        own.child = child;
        own.internal_port = internal_port;
        self.pid = Some(own.child.id());
        self.url = url;
        Ok(())
    }

    /// Ends it without warning, as a power cut does; [`Self::restart`] starts it again. A node of somebody else is left alone.
    ///
    /// # Errors
    /// When it can't be ended.
    pub fn kill(&mut self) -> Result<()> {
        let Some(own) = &mut self.own else { return Ok(()) };
        own.child.kill()?;
        own.child.wait()?;
        Ok(())
    }

    /// Stops it, if this program started it.
    ///
    /// # Errors
    /// When it does not stop by itself, or says that something went wrong.
    pub fn stop(mut self) -> Result<()> {
        match &mut self.own {
            Some(own) => stop(&mut own.child),
            None => Ok(()),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(own) = &mut self.own
            && matches!(own.child.try_wait(), Ok(None))
        {
            // On the way out of an error; nothing is left to be told.
            let _ = own.child.kill();
            let _ = own.child.wait();
        }
    }
}

fn spawn(program: &Path, settings: &[String], folder: &Path, data: &Path) -> Result<(Child, String, u16)> {
    // Free a moment ago is as good as can be had from outside; a port taken meanwhile shows as a failed start.
    let (public, internal) = (free_port()?, free_port()?);
    let log = folder.join("node.log");
    let output = File::options().create(true).append(true).open(&log).context("the node's log can't be written")?;
    let mut command = Command::new(program);
    command.arg("serve").args(["--listen", &format!("127.0.0.1:{public}")]);
    command.args(["--internal-listen", &format!("127.0.0.1:{internal}")]);
    command.arg("--data-dir").arg(data);
    for setting in settings {
        command.args(["--set", setting]);
    }
    command.current_dir(folder).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let mut child = command.spawn().with_context(|| format!("{} can't be started", program.display()))?;
    let since = ambient::now();
    loop {
        if let Some(status) = child.try_wait()? {
            bail!("the node ended at once ({status}):\n{}", tail(&log));
        }
        if is_healthy(public) {
            return Ok((child, format!("http://127.0.0.1:{public}"), internal));
        }
        if since.elapsed() > START_TIMEOUT {
            let _ = child.kill();
            let _ = child.wait();
            bail!("the node did not begin to serve within {START_TIMEOUT:?}:\n{}", tail(&log));
        }
        ambient::rest(Duration::from_millis(20));
    }
}

fn stop(child: &mut Child) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| anyhow!("no such process"))?;
    kill_process(pid, Signal::TERM).context("the node can't be stopped")?;
    let since = ambient::now();
    while since.elapsed() < STOP_TIMEOUT {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("the node ended with {status}"),
            None => ambient::rest(Duration::from_millis(10)),
        }
    }
    child.kill()?;
    child.wait()?;
    bail!("the node did not stop within {STOP_TIMEOUT:?} and was killed");
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0)).context("no free port")?.local_addr()?.port())
}

fn is_healthy(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer.ends_with(b"200"))
    };
    ask().unwrap_or(false)
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// `martlet` beside this program (tests live one folder below), or freshly built.
fn find_or_build() -> Result<PathBuf> {
    let own = std::env::current_exe().context("this program does not know where it is")?;
    let name = format!("martlet{}", std::env::consts::EXE_SUFFIX);
    if let Some(found) = own.ancestors().skip(1).take(2).map(|folder| folder.join(&name)).find(|path| path.is_file()) {
        return Ok(found);
    }
    build(profile(&own))
}

/// The Cargo profile that a program was built with, by the folder it lies in.
fn profile(program: &Path) -> &str {
    let mut folders = program.ancestors().skip(1).filter_map(|folder| folder.file_name()?.to_str());
    match folders.find(|name| !matches!(*name, "deps" | "examples")) {
        Some("debug") | None => "dev",
        Some(name) => name,
    }
}

/// Builds the node with Cargo and tells where it is.
fn build(profile: &str) -> Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or_else(|| anyhow!("no workspace"))?;
    if !workspace.join("Cargo.toml").is_file() {
        bail!("there is no `martlet` beside this program and no source to build it from; give it with --node");
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["build", "--profile", profile, "-p", "martlet", "--bin", "martlet"];
    say(&format!("building the node: cargo {}", arguments.join(" ")));
    let mut command = Command::new(cargo);
    command.args(arguments).args(["--quiet", "--message-format=json-render-diagnostics"]);
    let output = command.current_dir(workspace).stderr(Stdio::inherit()).output().context("cargo")?;
    if !output.status.success() {
        bail!("the node does not build");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let built = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let program = built.filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from)).next_back();
    program.ok_or_else(|| anyhow!("cargo did not say where it put the node"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_read_from_the_folder() {
        for (program, expected) in [
            ("/w/target/debug/martlet-load", "dev"),
            ("/w/target/debug/deps/small-0123", "dev"),
            ("/w/target/release/martlet-load", "release"),
            ("/w/target/checked/deps/small-0123", "checked"),
        ] {
            assert_eq!(profile(Path::new(program)), expected, "{program}");
        }
    }
}
