//! The k6 checks of `loadtest/k6/` with the real k6, a real node, and fixtures made by `martlet-load`: the promises hold at a size that takes
//! less than a minute, and the checks find it out when they don't.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};
use martlet_e2e::{
    node::{Node, NodeOptions, binary},
    scene::{self, Scene},
};
use serde_json::Value;

/// Readers of one group, and messages to it at 20 a second.
const MEMBERS: &str = "200";
const MESSAGES: &str = "300";
const RATE: &str = "20";

/// Where `cargo xtask test` puts it, or wherever the path has it.
fn k6() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let installed = own.ancestors().map(|folder| folder.join("tools/k6/bin/k6")).find(|path| path.is_file());
    installed.unwrap_or_else(|| "k6".into())
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../loadtest/k6")
}

fn fixtures(node: &Node, folder: &Path, members: &str, messages: &str) -> Result<PathBuf> {
    let file = folder.join("fixtures.json");
    let made = Command::new(binary::path("martlet-load")?)
        .args(["fixtures", "--server", &node.url(), "--members", members, "--messages", messages, "--out"])
        .arg(&file)
        .output()
        .context("martlet-load can't be started")?;
    ensure!(made.status.success(), "no fixtures: {}", String::from_utf8_lossy(&made.stderr));
    Ok(file)
}

/// Runs a script; its outcome and its summary.
fn run(script: &str, fixtures: &Path, more: &[&str]) -> Result<(Output, Value)> {
    let summary = fixtures.with_file_name(format!("{script}.json"));
    let set = |name: &str, value: &Path| format!("{name}={}", value.display());
    let mut command = Command::new(k6());
    command.args([
        "run",
        "--quiet",
        "--no-usage-report",
        "-e",
        &set("FIXTURES", fixtures),
        "-e",
        &set("SUMMARY", &summary),
    ]);
    for setting in more {
        command.args(["-e", setting]);
    }
    let output = command.arg(scripts().join(script)).output().context("k6 can't be started")?;
    println!("{}", String::from_utf8_lossy(&output.stdout));
    let told = std::fs::read_to_string(&summary)
        .with_context(|| format!("no summary of {script}: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((output, serde_json::from_str(&told)?))
}

fn count(summary: &Value, metric: &str) -> u64 {
    summary["metrics"][metric]["values"]["count"].as_u64().unwrap_or(0)
}

async fn node(scene: &Scene) -> Result<Node> {
    Node::start(scene, NodeOptions::default()).await
}

#[test]
fn the_promises_hold_and_nothing_is_lost() {
    scene::run("k6-sla", |scene| async move {
        let node = node(&scene).await?;
        let fixtures = fixtures(&node, scene.folder(), MEMBERS, MESSAGES)?;
        let (output, summary) = run("sla.js", &fixtures, &[&format!("RATE={RATE}")])?;
        ensure!(output.status.success(), "a promise was not kept: {}", String::from_utf8_lossy(&output.stderr));
        let all = MEMBERS.parse::<u64>()? * MESSAGES.parse::<u64>()?;
        ensure!(
            count(&summary, "martlet_received") == all,
            "{} of {all} messages came",
            count(&summary, "martlet_received")
        );
        Ok(())
    });
}

#[test]
fn sockets_are_opened_step_by_step_and_one_that_is_refused_is_noticed() {
    scene::run("k6-ramp", |scene| async move {
        let node = node(&scene).await?;
        let fixtures = fixtures(&node, scene.folder(), "60", "1")?;
        let pace = ["SOCKETS_PER_VU=25", "OVER_S=3", "HOLD_S=2"];
        let (output, summary) = run("ramp.js", &fixtures, &pace)?;
        ensure!(output.status.success(), "a promise was not kept: {}", String::from_utf8_lossy(&output.stderr));
        ensure!(count(&summary, "martlet_greeted") == 60, "{} sockets", count(&summary, "martlet_greeted"));

        let mut broken: Value = serde_json::from_str(&std::fs::read_to_string(&fixtures)?)?;
        broken["readers"][7] = "mt_none".into();
        std::fs::write(&fixtures, broken.to_string())?;
        let (output, summary) = run("ramp.js", &fixtures, &pace)?;
        ensure!(!output.status.success(), "a socket that was refused was not noticed");
        ensure!(count(&summary, "martlet_greeted") == 59, "{} sockets", count(&summary, "martlet_greeted"));
        Ok(())
    });
}

#[test]
fn a_node_that_works_passes_and_one_that_loses_its_readers_does_not() {
    scene::run("k6-smoke", |scene| async move {
        let node = node(&scene).await?;
        let fixtures = fixtures(&node, scene.folder(), "1", "1")?;
        let (output, before) = run("smoke.js", &fixtures, &[])?;
        ensure!(output.status.success(), "the smoke test failed: {}", String::from_utf8_lossy(&output.stderr));
        ensure!(count(&before, "martlet_received") == 1);

        // The same once more: what was written before is there already, so that the reader is done before the writer begins, and a reader
        // whose token is no good gets nothing.
        let mut broken: Value = serde_json::from_str(&std::fs::read_to_string(&fixtures)?)?;
        broken["readers"][0] = "mt_none".into();
        std::fs::write(&fixtures, broken.to_string())?;
        let (output, after) = run("smoke.js", &fixtures, &[])?;
        ensure!(!output.status.success(), "a reader that gets nothing was not noticed");
        ensure!(count(&after, "martlet_missing") == 1 && count(&after, "martlet_received") == 0);

        let compare = |before: &Value, after: &Value| -> Result<bool> {
            let [first, second] = ["first.json", "second.json"].map(|name| scene.folder().join(name));
            std::fs::write(&first, before.to_string())?;
            std::fs::write(&second, after.to_string())?;
            let script = scripts().join("compare.py");
            let output = Command::new("python3").arg(script).args([&first, &second]).output()?;
            println!("{}", String::from_utf8_lossy(&output.stdout));
            Ok(output.status.success())
        };
        ensure!(compare(&before, &before)?, "a summary is as good as itself");
        ensure!(!compare(&before, &after)?, "what is missed now was not noticed");
        Ok(())
    });
}
