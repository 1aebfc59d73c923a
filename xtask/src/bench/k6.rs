//! The promises as k6 checks them: a node, fixtures made on it, `sla.js`, and its summary.

use std::{
    ffi::OsString,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use martlet_servers::{Program, free_port, last_lines};

use super::{
    json::Json,
    run::{Run, Taken},
    table::{Table, Target},
};

/// All load comes from one address and password hashes are not what is measured: what `martlet-load` gives its nodes, too.
const SETTINGS: &[&str] = &[
    "accounts.argon2_memory_kib=8",
    "accounts.argon2_iterations=1",
    "limits.sends_per_device_per_second=0",
    "limits.sends_per_account_per_second=0",
    "limits.frames_per_socket_per_second=0",
    "limits.frames_per_account_per_second=0",
    "limits.frames_per_address_per_second=0",
    "limits.requests_per_account_per_minute=0",
    "limits.requests_per_address_per_second=0",
    "limits.requests_per_device_per_minute=0",
    "limits.connections_per_address_per_second=0",
    "limits.connections_per_second=0",
    "limits.registrations_per_address_per_minute=0",
    // The writer is a member beside 10,000 readers.
    "conversations.max_members_large=10001",
    "server.drain_window=0s",
    "log.filter=warn",
];
/// How long a node may take to serve.
const PATIENCE: Duration = Duration::from_secs(60);

/// Readers, messages and messages a second.
const SIZE: (&str, &str, &str) = ("1000", "600", "20");
const QUICK_SIZE: (&str, &str, &str) = ("20", "20", "10");
/// Sockets that are opened step by step, and over how many seconds.
const RAMP: (&str, &str) = ("10000", "60");
const QUICK_RAMP: (&str, &str) = ("20", "3");

/// Runs both checks.
///
/// # Errors
/// The node does not start, fixtures can't be made, or k6 leaves no summary.
pub fn take(run: &Run) -> Result<Taken> {
    let (members, messages, rate) = if run.quick { QUICK_SIZE } else { SIZE };
    let (sockets, over) = if run.quick { QUICK_RAMP } else { RAMP };
    let sla = check(run, ("k6", "sla.js"), (members, messages), &format!("RATE={rate}"))?;
    let ramp = check(run, ("k6-ramp", "ramp.js"), (sockets, "1"), &format!("OVER_S={over}"))?;
    let mut table = Table::default();
    let conditions = format!("{members} readers, {messages} messages at {rate} a second");
    add_sla(&mut table, &sla.summary, &conditions)?;
    add_ramp(&mut table, &ramp.summary, &format!("{sockets} sockets, opened over {over} s"), sockets.parse()?)?;
    let missed = [("sla.js", &sla), ("ramp.js", &ramp)].into_iter().filter(|(_, check)| !check.is_kept);
    let unclean = missed.map(|(script, _)| format!("{script}: a threshold was missed; see its log")).collect();
    Ok(Taken { table, unclean })
}

/// What a check came to.
struct Checked {
    summary: Json,
    /// All thresholds held.
    is_kept: bool,
}

/// Runs a script against a node of its own. `name` is that of its files.
fn check(run: &Run, (name, script): (&str, &str), (members, messages): (&str, &str), setting: &str) -> Result<Checked> {
    println!("    k6: {script}, {members} readers, {messages} messages, {setting}");
    let folder = run.folder.join(name);
    let (node, url) = serve(run, name, &folder)?;
    let (fixtures, summary) = (folder.join("fixtures.json"), run.folder.join(format!("{name}.json")));
    let mut make = Command::new(run.programs.join("martlet-load"));
    make.args(["fixtures", "--server", &url, "--members", members, "--messages", messages, "--out"]).arg(&fixtures);
    let log = format!("{name}-fixtures");
    ensure!(run.logged(&mut make, &log)?, "no fixtures: {}", run.end_of_log(&log));
    let mut k6 = Command::new(crate::tools::k6_program());
    k6.args(["run", "--quiet", "--no-usage-report", "-e", setting]);
    for (name, file) in [("FIXTURES", &fixtures), ("SUMMARY", &summary)] {
        k6.args(["-e", &format!("{name}={}", file.display())]);
    }
    let is_kept = run.logged(k6.arg(format!("loadtest/k6/{script}")), name)?;
    drop(node);
    // Its tokens are good for nothing now; its size is.
    fs::remove_dir_all(&folder).context("the node's folder can't be removed")?;
    ensure!(summary.is_file(), "k6 left no summary; its log ends: {}", run.end_of_log(name));
    Ok(Checked { summary: Json::read(&summary)?, is_kept })
}

fn add_sla(table: &mut Table, summary: &Json, conditions: &str) -> Result<()> {
    let value = |metric: &str, value: &str| summary.number(&format!("/metrics/{metric}/values/{value}"));
    table.row("fan-out p50", format!("{:.1} ms", value("martlet_fanout_ms", "med")?), conditions);
    table.aimed("fan-out p95", (value("martlet_fanout_ms", "p(95)")?, 1, " ms"), Target::Below(250.0), conditions);
    table.aimed("errors", (100.0 * value("martlet_errors", "rate")?, 2, " %"), Target::Below(1.0), "of all operations");
    table.aimed("missing", (value("martlet_missing", "count")?, 0, ""), Target::AtMost(0.0), "of all deliveries");
    table.aimed("repeated or out of order", (value("martlet_misplaced", "count")?, 0, ""), Target::AtMost(0.0), "");
    Ok(())
}

fn add_ramp(table: &mut Table, summary: &Json, conditions: &str, sockets: u32) -> Result<()> {
    let value = |metric: &str, value: &str| summary.number(&format!("/metrics/{metric}/values/{value}"));
    let greeted = value("martlet_greeted", "count")?;
    table.aimed("sockets that got their hello", (greeted, 0, ""), Target::AtLeast(sockets.into()), conditions);
    table.aimed(
        "p95 until then",
        (value("martlet_connecting_ms", "p(95)")?, 1, " ms"),
        Target::Below(1000.0),
        conditions,
    );
    let errors = (100.0 * value("martlet_errors", "rate")?, 2, " %");
    table.aimed(
        "not opened, or lost before the end",
        errors,
        Target::Below(1.0),
        "of all sockets; each held to the end",
    );
    Ok(())
}

/// A node and its address.
fn serve(run: &Run, name: &str, folder: &Path) -> Result<(Program, String)> {
    let (public, internal) = (free_port(), free_port());
    let mut arguments: Vec<OsString> = vec!["serve".into(), "--data-dir".into(), folder.join("data").into()];
    arguments.extend(["--listen".into(), format!("127.0.0.1:{public}").into()]);
    arguments.extend(["--internal-listen".into(), format!("127.0.0.1:{internal}").into()]);
    arguments.extend(SETTINGS.iter().flat_map(|setting| ["--set".into(), OsString::from(setting)]));
    let log = run.log(&format!("{name}-node"));
    let mut node = Program::start("martlet", &run.programs.join("martlet"), arguments, folder, &log)?;
    wait(|| {
        ensure!(node.status()?.is_none(), "the node ended at its start: {}", last_lines(&log, 3));
        Ok(is_healthy(public))
    })?;
    Ok((node, format!("http://127.0.0.1:{public}")))
}

#[expect(clippy::disallowed_methods, reason = "another process is waited for, and it keeps real time")]
fn wait(mut is_there: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is_there()? {
        ensure!(began.elapsed() < PATIENCE, "the node does not serve");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn is_healthy(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer.ends_with(b"200"))
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_becomes_a_table() {
        let summary = r#"{"metrics":{
            "martlet_fanout_ms":{"values":{"med":3.21,"p(95)":251.0}},
            "martlet_errors":{"values":{"rate":0.001}},
            "martlet_missing":{"values":{"count":0}},
            "martlet_misplaced":{"values":{"count":2}}}}"#;
        let mut table = Table::default();
        add_sla(&mut table, &Json::parse("k6.json", summary).expect("JSON"), "so").expect("rows");
        let summary = r#"{"metrics":{
            "martlet_greeted":{"values":{"count":9}},
            "martlet_errors":{"values":{"rate":0.1}},
            "martlet_connecting_ms":{"values":{"p(95)":25.0}}}}"#;
        add_ramp(&mut table, &Json::parse("k6.json", summary).expect("JSON"), "so", 10).expect("rows");
        assert_eq!(
            table.markdown(),
            "| measured | figure | target | conditions |\n|---|---|---|---|\n\
             | fan-out p50 | 3.2 ms |  | so |\n\
             | fan-out p95 | 251.0 ms | below 250 ms (**missed**) | so |\n\
             | errors | 0.10 % | below 1 % | of all operations |\n\
             | missing | 0 | at most 0 | of all deliveries |\n\
             | repeated or out of order | 2 | at most 0 (**missed**) |  |\n\
             | sockets that got their hello | 9 | at least 10 (**missed**) | so |\n\
             | p95 until then | 25.0 ms | below 1,000 ms | so |\n\
             | not opened, or lost before the end | 10.00 % | below 1 % (**missed**) | of all sockets; each held to the end |\n"
        );
    }
}
