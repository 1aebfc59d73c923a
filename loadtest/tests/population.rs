//! A population in small: its archive is imported, a node serves from that store, all its devices connect, and each gets its log's message.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use clap::Parser as _;
use martlet_loadtest::{
    cli::{self, Cli},
    hold, population,
};
use tempfile::TempDir;

fn command(line: &str) -> cli::Command {
    Cli::parse_from(["martlet-load"].into_iter().chain(line.split_whitespace())).command
}

fn make(line: &str, out: &Path) -> anyhow::Result<()> {
    let cli::Command::Population(args) = command(&format!("population {line} --out {}", out.display())) else {
        panic!("not population")
    };
    population::run(&args)
}

/// The program that was started for the template.
fn martlet() -> PathBuf {
    let own = std::env::current_exe().expect("this test has a path");
    own.ancestors().skip(1).map(|folder| folder.join("martlet")).find(|path| path.is_file()).expect("built by now")
}

/// A new embedded store of it.
fn import(archive: &Path, data: &Path) {
    let import = Command::new(martlet()).arg("import").arg(archive).arg("--data-dir").arg(data).output();
    let output = import.expect("started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn hold(line: &str, data: &Path) -> anyhow::Result<hold::HoldResult> {
    let line = format!("hold {line} --settle 100ms --data {}", data.display());
    let cli::Command::Hold(args) = command(&line) else { panic!("not hold") };
    hold::run(&args)
}

#[test]
fn everybody_connects_and_gets_the_one_message() {
    let folder = TempDir::new().expect("a folder");
    let archive = folder.path().join("archive");
    make("--accounts 21 --logs 2 --seed 5", &archive).expect("an archive");
    assert!(make("--accounts 21 --logs 2 --seed 5", &archive).is_err(), "it is there already");
    let data = folder.path().join("data");
    import(&archive, &data);

    let result = hold("--accounts 21 --logs 2 --seed 5 --connections 15,21", &data).expect("the measurement is made");
    assert!(result.is_clean(), "{}", result.text());
    assert_eq!((result.alive, result.delivered, result.logs), (21, 21, 2), "{}", result.text());
    assert_eq!(result.source_addresses, 21, "each connection has an address of its own, up to 64");
    assert_eq!(result.steps.iter().map(|step| step.connections).collect::<Vec<_>>(), [15, 21]);
    assert!(result.baseline_bytes.is_some_and(|bytes| bytes > 0) && result.latency.count == 21);

    // Once more, with a part of them: the logs go on, and the second one's writer is not there.
    let again = hold("--accounts 21 --logs 2 --seed 5 --connections 4", &data).expect("made");
    assert!(again.is_clean() && (again.logs, again.delivered) == (1, 4), "{}", again.text());

    let stranger = hold("--accounts 21 --logs 2 --seed 6", &data).expect_err("another population's tokens");
    assert!(format!("{stranger:#}").contains("a log's writer was refused"), "{stranger:#}");
}

#[test]
fn the_archive_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = TempDir::new().expect("a folder");
    let archive = folder.path().join("archive");
    make("--accounts 3 --logs 1", &archive).expect("an archive");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&archive), mode(&archive.join("node.secret"))), (0o700, 0o600));
    assert!(make("--accounts 2 --logs 3", &folder.path().join("other")).is_err(), "a log without members");
}
