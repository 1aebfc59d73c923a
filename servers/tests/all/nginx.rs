//! nginx: its own configuration, read anew, and no worker left.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use martlet_servers::{Nginx, free_port};

use crate::world::{descendants, runs, until};

fn config(port: u16, status: u16) -> String {
    Nginx::config(1, 100, &format!("access_log off; server {{ listen 127.0.0.1:{port}; return {status}; }}"))
}

/// The status line's number.
fn status(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1).map(str::to_owned)
}

#[test]
fn it_serves_reads_its_configuration_anew_and_ends_with_its_workers() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_port();
    let mut nginx = Nginx::start(folder.path(), &config(port, 204)).expect("starts");
    assert_eq!(status(port).as_deref(), Some("204"));
    nginx.configure(&config(port, 404)).expect("right");
    nginx.reload().expect("reloads");
    until("the new configuration answers", || status(port).as_deref() == Some("404"));
    nginx.stop().expect("stops");
    assert_eq!(status(port), None);
    nginx.start_again().expect("starts");
    assert_eq!(status(port).as_deref(), Some("404"));
    let all = [vec![nginx.pid()], descendants(nginx.pid())].concat();
    assert!(all.len() > 1, "there are workers");
    drop(nginx);
    until("all its processes are gone with the value", || !all.iter().any(|pid| runs(*pid)));
}

#[test]
fn a_wrong_configuration_is_refused_and_the_one_before_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_port();
    let mut nginx = Nginx::start(folder.path(), &config(port, 204)).expect("starts");
    let error = nginx.configure("events {} http { nonsense on; }").expect_err("refused");
    assert!(format!("{error:#}").contains("nonsense"), "{error:#}");
    nginx.reload().expect("reloads");
    assert_eq!(status(port).as_deref(), Some("204"));
}
