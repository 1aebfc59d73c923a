//! The program as an operator runs it: what it prints, how it ends, and that it stops cleanly when told to.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

const FREE_PORTS: [&str; 4] = ["--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0"];
const PATIENCE: Duration = Duration::from_secs(60);

fn martlet(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_martlet"));
    command.current_dir(folder).env_remove("MARTLET_CONFIG").stdin(Stdio::null());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> (Output, String, String) {
    let output = martlet(folder).args(arguments).output().expect("the program runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout).into(), String::from_utf8_lossy(&output.stderr).into());
    (output, out, err)
}

#[test]
fn the_printed_config_is_a_config() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (defaults, printed, _) = run(folder.path(), &["config", "--defaults"]);
    assert!(defaults.status.success());
    std::fs::write(folder.path().join("martlet.toml"), printed).expect("written");
    let (effective, printed, err) = run(folder.path(), &["config", "--set", "log.format=json"]);
    assert!(effective.status.success(), "{err}");
    assert!(
        printed.lines().any(|line| line.starts_with("format = \"json\"") && line.ends_with("# flag --set")),
        "{printed}"
    );
    assert!(printed.contains("# martlet.toml line "), "{printed}");
}

#[test]
fn a_wrong_value_ends_with_2_and_names_everything() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = martlet(folder.path());
    command.args(["serve", "--listen", "here"]).env("MARTLET__LOG__FORMAT", "xml");
    let output = command.output().expect("the program runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("server.listen: given \"here\" (flag --listen), allowed is an IP address"), "{text}");
    assert!(text.contains("log.format: given \"xml\" (environment MARTLET__LOG__FORMAT), allowed is"), "{text}");
}

#[test]
fn check_fails_with_a_fix_when_a_port_is_taken() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let (output, text, err) = run(folder.path(), &["check", "--internal-listen", "127.0.0.1:0", "--listen", &address]);
    assert_eq!(output.status.code(), Some(1), "{text}{err}");
    assert!(text.contains("fix: stop what listens there"), "{text}");
    drop(taken);
    let (output, text, _) = run(folder.path(), &[&["check"], FREE_PORTS.as_slice()].concat());
    assert_eq!(output.status.code(), Some(0), "{text}");
}

/// A running node that does not outlive its test.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        // It has usually ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Its lines as they come, so that no test waits for a line longer than it has patience.
fn lines(child: &mut Child) -> Receiver<String> {
    let stdout = child.stdout.take().expect("its output is piped");
    let (send, receive) = sync_channel(1000);
    thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
    receive
}

#[test]
fn it_says_where_it_serves_and_stops_when_told() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let started = martlet(folder.path()).arg("serve").args(FREE_PORTS).stdout(Stdio::piped()).spawn();
        let mut node = Served(started.expect("it starts"));
        let lines = lines(&mut node.0);
        let address = loop {
            let line = lines.recv_timeout(PATIENCE).expect("it says where it serves");
            if let Some((_, address)) = line.split_once("clients    http://") {
                break address.to_owned();
            }
        };
        TcpStream::connect(&address).expect("it listens where it says");
        let pid = Pid::from_child(&node.0);
        kill_process(pid, signal).expect("it runs");
        assert_eq!(node.0.wait().expect("it ends").code(), Some(0));
        assert!(TcpStream::connect(&address).is_err(), "nobody listens there any more");
    }
}
