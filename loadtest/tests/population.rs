//! A population in small: its archive is imported, a node serves from that store, all its devices connect, and each gets its log's message.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use clap::Parser as _;
use martlet_loadtest::{
    cli::{self, Cli, NodeArgs},
    hold,
    node::Node,
    population,
};
use martlet_servers::Postgres;
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

/// A store that the archive was imported into.
struct Store {
    postgres: Postgres,
    folder: TempDir,
    _of_postgres: TempDir,
}

impl Store {
    fn import(archive: &Path) -> Self {
        let (folder, of_postgres) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
        let postgres = Postgres::start(of_postgres.path()).expect("PostgreSQL");
        postgres.create_database("martlet").expect("created");
        let store = Self { postgres, folder, _of_postgres: of_postgres };
        let mut import = Command::new(martlet());
        import.arg("import").arg(archive).current_dir(store.folder.path());
        store.settings().iter().for_each(|setting| _ = import.args(["--set", setting]));
        let output = import.output().expect("started");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        store
    }

    fn settings(&self) -> Vec<String> {
        let secret = self.folder.path().join("node.secret");
        // The tests' server is not durable.
        vec![
            format!("storage.database_url={}", self.postgres.url("martlet")),
            format!("storage.secret_file={}", secret.display()),
            "storage.durability=normal".to_owned(),
        ]
    }

    fn node(&self) -> Node {
        Node::start(&NodeArgs { settings: self.settings(), ..NodeArgs::default() }).expect("a node")
    }
}

fn hold(line: &str, node: &Node) -> anyhow::Result<hold::HoldResult> {
    let server = format!("--server {} --server-pid {}", node.url(), node.pid().expect("its process"));
    let cli::Command::Hold(args) = command(&format!("hold {line} --settle 100ms {server}")) else { panic!("not hold") };
    hold::run(&args)
}

#[test]
fn everybody_connects_and_gets_the_one_message() {
    let folder = TempDir::new().expect("a folder");
    let archive = folder.path().join("archive");
    make("--accounts 21 --logs 2 --seed 5", &archive).expect("an archive");
    assert!(make("--accounts 21 --logs 2 --seed 5", &archive).is_err(), "it is there already");
    let store = Store::import(&archive);
    let node = store.node();

    let result = hold("--accounts 21 --logs 2 --seed 5 --connections 15,21", &node).expect("the measurement is made");
    assert!(result.is_clean(), "{}", result.text());
    assert_eq!((result.alive, result.delivered, result.logs), (21, 21, 2), "{}", result.text());
    assert_eq!(result.source_addresses, 21, "each connection has an address of its own, up to 64");
    assert_eq!(result.steps.iter().map(|step| step.connections).collect::<Vec<_>>(), [15, 21]);
    assert!(result.baseline_bytes.is_some_and(|bytes| bytes > 0) && result.latency.count == 21);

    // Once more, with a part of them: the logs go on, and the second one's writer is not there.
    let again = hold("--accounts 21 --logs 2 --seed 5 --connections 4", &node).expect("made");
    assert!(again.is_clean() && (again.logs, again.delivered) == (1, 4), "{}", again.text());

    let stranger = hold("--accounts 21 --logs 2 --seed 6", &node).expect_err("another population's tokens");
    assert!(format!("{stranger:#}").contains("a log's writer was refused"), "{stranger:#}");
    node.stop().expect("it ends");
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
