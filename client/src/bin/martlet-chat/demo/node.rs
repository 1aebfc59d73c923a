//! The demo's node: found beside this program or built, started on free ports, stopped at the end.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

const START_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// A node that serves.
pub struct Node {
    /// Such as `http://127.0.0.1:40123`.
    pub address: String,
    process: Option<Child>,
}

/// What a started node leaves in its folder, so that an interrupted demo finds one that outlived it.
#[derive(Serialize, Deserialize)]
struct Left {
    process_id: u32,
}

impl Node {
    /// One that somebody else runs.
    pub fn existing(server: &str) -> Self {
        Self { address: server.trim_end_matches('/').to_owned(), process: None }
    }

    /// Starts one with its data in `folder`.
    pub async fn start(folder: &Path, verbose: bool) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        end_survivor(folder)?;
        let program = find_or_build()?;
        let log = folder.join("node.log");
        let child = Command::new(&program)
            .args(["serve", "--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0", "--set", "log.format=json"])
            .arg("--data-dir")
            .arg(folder.join("data"))
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("could not start {}", program.display()))?;
        fs::write(left_path(folder), serde_json::to_vec(&Left { process_id: child.id() })?)?;
        let mut node = Self { address: String::new(), process: Some(child) };
        node.address = node.wait_until_serving(&log).await?;
        if verbose {
            println!("  log: {}", log.display());
        }
        Ok(node)
    }

    /// The node says in its log where it serves.
    async fn wait_until_serving(&mut self, log: &Path) -> anyhow::Result<String> {
        let serving = async {
            loop {
                let text = fs::read_to_string(log).unwrap_or_default();
                if let Some(address) = text.lines().find_map(public_address) {
                    return Ok(format!("http://{address}"));
                }
                if let Some(process) = &mut self.process
                    && let Some(status) = process.try_wait()?
                {
                    bail!("the node ended at once ({status}):\n{text}");
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(START_PATIENCE, serving).await.context("the node did not start in time")?
    }

    /// Stops it, if this demo started it.
    pub fn stop(mut self) {
        if let Some(mut process) = self.process.take() {
            terminate(process.id());
            // It drains for a moment; nothing of the demo hangs on it any more.
            let _ = process.wait();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn public_address(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    Some(line.get("public")?.as_str()?.to_owned())
}

fn left_path(folder: &Path) -> PathBuf {
    folder.join("node.json")
}

/// A demo that was killed can't stop its node, which then still holds the data.
fn end_survivor(folder: &Path) -> anyhow::Result<()> {
    let Ok(bytes) = fs::read(left_path(folder)) else { return Ok(()) };
    let Ok(left) = serde_json::from_slice::<Left>(&bytes) else { return Ok(()) };
    let is_ours = |id: u32| {
        let command_line = fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        command_line.contains("martlet") && command_line.contains(&*folder.to_string_lossy())
    };
    if !is_ours(left.process_id) {
        return Ok(());
    }
    println!("  the interrupted demo's node still runs; ending it");
    terminate(left.process_id);
    for _ in 0..START_PATIENCE.as_millis() / POLL.as_millis() {
        if !is_ours(left.process_id) {
            return Ok(());
        }
        #[expect(clippy::disallowed_methods, reason = "nothing else runs yet, and the wait is for another process")]
        std::thread::sleep(POLL);
    }
    bail!("process {} still holds {}; end it by hand", left.process_id, folder.display())
}

/// Asks a process to end; the standard library can only kill.
fn terminate(process_id: u32) {
    let _ = Command::new("kill").arg(process_id.to_string()).stderr(Stdio::null()).status();
}

/// The node's program beside this one, or built by cargo in the same profile.
fn find_or_build() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let beside = own.with_file_name(format!("martlet{}", std::env::consts::EXE_SUFFIX));
    if beside.exists() {
        return Ok(beside);
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    if !manifest.exists() {
        bail!("there is no `martlet` beside {}, and no source to build it from", own.display());
    }
    println!("  building the node, which takes some minutes the first time …");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "-p", "martlet", "--manifest-path"]).arg(&manifest);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    // `<target>/<profile>/martlet-chat` lies in the folder to build into.
    if let Some(target) = own.parent().and_then(Path::parent) {
        build.arg("--target-dir").arg(target);
    }
    let status = build.status().context("cargo could not be started")?;
    if !status.success() {
        bail!("building the node failed ({status}); `cargo build -p martlet` shows why");
    }
    Ok(beside)
}
