//! A node as an operator runs it: the real binary, on ports and data of its own, killed and started again at will.
//!
//! Whatever a [`Node`] starts it also stops, when it is dropped at the latest.

pub mod binary;
mod ports;

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

pub use ports::Ports;

use crate::{clock::Stopwatch, scene::Scene};

/// Start-up in debug, behind a tracer, on a machine whose disk is busy: a sync was seen to take half a minute.
const START_DEADLINE: Duration = Duration::from_secs(180);

/// Settings that suit tests: cheap passwords, no rates and patience with a busy disk, since what is tested here is not those.
const TEST_SETTINGS: &[&str] = &[
    "accounts.argon2_memory_kib=64",
    "accounts.argon2_iterations=1",
    "storage.wait=1m",
    "limits.sends_per_device_per_second=0",
    "limits.sends_burst=0",
    "limits.sends_per_account_per_second=0",
    "limits.frames_per_socket_per_second=0",
    "limits.frames_per_account_per_second=0",
    "limits.frames_per_address_per_second=0",
    "limits.sign_ins_per_account_per_minute=0",
    "limits.requests_per_account_per_minute=0",
    "limits.requests_per_address_per_second=0",
    "limits.connections_per_address_per_second=0",
    "limits.connections_per_device_per_minute=0",
    "limits.sign_ins_per_address_per_minute=0",
    "limits.registrations_per_address_per_minute=0",
    "limits.claims_per_claimer_per_minute=0",
    "limits.claims_per_target_per_minute=0",
    "limits.lookups_per_device_per_minute=0",
    "limits.requests_per_device_per_minute=0",
    "limits.link_polls_per_address_per_minute=0",
    "limits.connections_per_second=0",
];

/// How a node is to be run.
#[derive(Debug, Clone, Default)]
pub struct NodeOptions {
    settings: Vec<String>,
    /// Program and arguments to run the node under, such as a tracer that becomes the node's own process.
    wrapper: Vec<OsString>,
    /// Another build of the node than `martlet`.
    program: Option<&'static str>,
    environment: Vec<(&'static str, &'static str)>,
}

impl NodeOptions {
    /// Sets `section.key=value`.
    #[must_use]
    pub fn set(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    /// Runs the node under another program. That program must keep the process id for the node (as `strace -D` does), since
    /// signals go there.
    #[must_use]
    pub fn under(mut self, wrapper: impl IntoIterator<Item = OsString>) -> Self {
        self.wrapper = wrapper.into_iter().collect();
        self
    }

    /// Runs another build of the node; one of those that [`binary::path`] knows.
    #[must_use]
    pub fn program(mut self, program: &'static str) -> Self {
        self.program = Some(program);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn environment(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }
}

/// One node and its data. Dropping it kills the process.
pub struct Node {
    options: NodeOptions,
    ports: Ports,
    data_dir: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// Starts a node on new data and waits until it serves.
    ///
    /// # Errors
    /// It could not be built or started; its log says why.
    pub async fn start(scene: &Scene, options: NodeOptions) -> Result<Self> {
        let mut node = Self::prepare(scene, options)?;
        node.restart().await?;
        Ok(node)
    }

    /// A node that is yet to be started.
    ///
    /// # Errors
    /// No ports, no folder.
    pub fn prepare(scene: &Scene, options: NodeOptions) -> Result<Self> {
        Ok(Self::prepare_on(scene, options, Ports::take()?))
    }

    /// As [`Self::prepare`], on addresses that the test chose.
    #[must_use]
    pub fn prepare_on(scene: &Scene, options: NodeOptions, ports: Ports) -> Self {
        let data_dir = scene.folder().join(format!("data-{}", ports.public).replace(':', "-"));
        Self { options, ports, data_dir, log: scene.log_file("node"), child: None }
    }

    /// Where clients reach it, such as `http://127.0.0.1:20000`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.ports.public)
    }

    /// The address of its public listener.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.ports.public
    }

    /// Where the operator reaches it.
    #[must_use]
    pub fn internal_url(&self) -> String {
        format!("http://{}", self.ports.internal)
    }

    /// Where its database and secret rest.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// What it has written to its standard output and error, over all starts.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned())
    }

    /// Changes how it will be run at the next start.
    pub fn options_mut(&mut self) -> &mut NodeOptions {
        &mut self.options
    }

    /// Its command line: program and arguments.
    ///
    /// # Errors
    /// It could not be built.
    pub fn command_line(&self) -> Result<Vec<OsString>> {
        let mut line = self.options.wrapper.clone();
        line.push(binary::path(self.options.program.unwrap_or("martlet"))?.into());
        line.push("serve".into());
        let data_dir = format!("storage.data_dir={}", self.data_dir.display());
        let listen = format!("server.listen={}", self.ports.public);
        let internal = format!("server.internal_listen={}", self.ports.internal);
        let own = self.options.settings.iter().map(String::as_str);
        for setting in [&data_dir, &listen, &internal]
            .into_iter()
            .map(String::as_str)
            .chain(TEST_SETTINGS.iter().copied())
            .chain(own)
        {
            line.push("--set".into());
            line.push(setting.into());
        }
        Ok(line)
    }

    /// Starts the process without waiting until it serves.
    ///
    /// # Errors
    /// It runs already, or can't be started.
    pub fn spawn(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the node runs already");
        let line = self.command_line()?;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let child = Command::new(&line[0])
            .args(&line[1..])
            .envs(self.options.environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} can't be started", line[0].display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Starts the process and waits until it serves.
    ///
    /// # Errors
    /// As [`Self::spawn`]; or it ended, or did not serve in time.
    pub async fn restart(&mut self) -> Result<()> {
        self.spawn()?;
        self.serving().await
    }

    /// Waits until the node answers on its public listener.
    ///
    /// # Errors
    /// It ended, or did not serve in time.
    pub async fn serving(&mut self) -> Result<()> {
        self.answers(|status| status.is_success()).await
    }

    /// Waits until the node answers at all on its public listener, be it that something is wrong.
    ///
    /// # Errors
    /// As [`Self::serving`].
    pub async fn answering(&mut self) -> Result<()> {
        self.answers(|_| true).await
    }

    async fn answers(&mut self, suits: impl Fn(reqwest::StatusCode) -> bool) -> Result<()> {
        let watch = Stopwatch::start();
        let health = format!("{}/health", self.url());
        let http = reqwest::Client::builder().timeout(Duration::from_secs(2)).build()?;
        loop {
            if let Some(status) = self.child.as_mut().context("the node was not started")?.try_wait()? {
                self.child = None;
                bail!("the node ended at its start with {status}");
            }
            if http.get(&health).send().await.is_ok_and(|answer| suits(answer.status())) {
                return Ok(());
            }
            ensure!(watch.elapsed() < START_DEADLINE, "the node does not serve");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether the process has ended without being asked to. If so it can be started again.
    ///
    /// # Errors
    /// The system can't say.
    pub fn has_ended(&mut self) -> Result<bool> {
        let Some(child) = &mut self.child else { return Ok(false) };
        let has_ended = child.try_wait()?.is_some();
        if has_ended {
            self.child = None;
        }
        Ok(has_ended)
    }

    /// SIGKILL: gone between two instructions, whatever it was doing. Returns once it is.
    ///
    /// # Errors
    /// It was not running, or had ended by itself.
    pub async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the node was not started")?;
        if let Some(status) = child.try_wait()? {
            bail!("the node had ended by itself with {status}");
        }
        child.kill().await?;
        Ok(())
    }

    /// SIGTERM: asks it to shut down, and waits until it has.
    ///
    /// # Errors
    /// It was not running.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.ended().await
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Errors
    /// It was not running.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        Ok(self.child.take().context("the node was not started")?.wait().await?)
    }

    /// SIGSTOP: alive, but does nothing.
    ///
    /// # Errors
    /// It was not running.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT: goes on after [`Self::pause`].
    ///
    /// # Errors
    /// It was not running.
    pub fn unpause(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It was not running.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.child.as_ref().and_then(Child::id).context("the node was not started")?;
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw).context("not a process id")?;
        Ok(kill_process(pid, signal)?)
    }
}
