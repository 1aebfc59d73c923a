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
    "server.drain_window=0s",
    "log.filter=warn",
];
/// How long a node may take to serve.
const PATIENCE: Duration = Duration::from_secs(60);

/// Readers, messages and messages a second.
const SIZE: (&str, &str, &str) = ("1000", "600", "20");
const QUICK_SIZE: (&str, &str, &str) = ("20", "20", "10");

/// Runs it.
///
/// # Errors
/// The node does not start, fixtures can't be made, or k6 leaves no summary.
pub fn take(run: &Run) -> Result<Taken> {
    let (members, messages, rate) = if run.quick { QUICK_SIZE } else { SIZE };
    println!("    k6: sla.js, {members} readers, {messages} messages at {rate} a second");
    let folder = run.folder.join("k6");
    let (node, url) = serve(run, &folder)?;
    let (fixtures, summary) = (folder.join("fixtures.json"), run.folder.join("k6.json"));
    let mut make = Command::new(run.programs.join("martlet-load"));
    make.args(["fixtures", "--server", &url, "--members", members, "--messages", messages, "--out"]).arg(&fixtures);
    ensure!(run.logged(&mut make, "k6-fixtures")?, "no fixtures: {}", run.end_of_log("k6-fixtures"));
    let mut k6 = Command::new(crate::tools::k6_program());
    k6.args(["run", "--quiet", "--no-usage-report", "-e", &format!("RATE={rate}")]);
    for (name, file) in [("FIXTURES", &fixtures), ("SUMMARY", &summary)] {
        k6.args(["-e", &format!("{name}={}", file.display())]);
    }
    let is_kept = run.logged(k6.arg("loadtest/k6/sla.js"), "k6")?;
    drop(node);
    // Its tokens are good for nothing now; its size is.
    fs::remove_dir_all(&folder).context("the node's folder can't be removed")?;
    ensure!(summary.is_file(), "k6 left no summary; its log ends: {}", run.end_of_log("k6"));
    let conditions = format!("{members} readers, {messages} messages at {rate} a second");
    let table = table(&Json::read(&summary)?, &conditions)?;
    let unclean = if is_kept { Vec::new() } else { vec!["a threshold was missed; see k6.log".to_owned()] };
    Ok(Taken { table, unclean })
}

fn table(summary: &Json, conditions: &str) -> Result<Table> {
    let value = |metric: &str, value: &str| summary.number(&format!("/metrics/{metric}/values/{value}"));
    let mut table = Table::default();
    table.row("fan-out p50", format!("{:.1} ms", value("martlet_fanout_ms", "med")?), conditions);
    table.aimed("fan-out p95", (value("martlet_fanout_ms", "p(95)")?, 1, " ms"), Target::Below(250.0), conditions);
    table.aimed("errors", (100.0 * value("martlet_errors", "rate")?, 2, " %"), Target::Below(1.0), "of all operations");
    table.aimed("missing", (value("martlet_missing", "count")?, 0, ""), Target::AtMost(0.0), "of all deliveries");
    table.aimed("repeated or out of order", (value("martlet_misplaced", "count")?, 0, ""), Target::AtMost(0.0), "");
    Ok(table)
}

/// A node and its address.
fn serve(run: &Run, folder: &Path) -> Result<(Program, String)> {
    let (public, internal) = (free_port(), free_port());
    let mut arguments: Vec<OsString> = vec!["serve".into(), "--data-dir".into(), folder.join("data").into()];
    arguments.extend(["--listen".into(), format!("127.0.0.1:{public}").into()]);
    arguments.extend(["--internal-listen".into(), format!("127.0.0.1:{internal}").into()]);
    arguments.extend(SETTINGS.iter().flat_map(|setting| ["--set".into(), OsString::from(setting)]));
    let log = run.log("k6-node");
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
        let table = table(&Json::parse("k6.json", summary).expect("JSON"), "so").expect("a table");
        assert_eq!(
            table.markdown(),
            "| measured | figure | target | conditions |\n|---|---|---|---|\n\
             | fan-out p50 | 3.2 ms |  | so |\n\
             | fan-out p95 | 251.0 ms | below 250 ms (**missed**) | so |\n\
             | errors | 0.10 % | below 1 % | of all operations |\n\
             | missing | 0 | at most 0 | of all deliveries |\n\
             | repeated or out of order | 2 | at most 0 (**missed**) |  |\n"
        );
    }
}
