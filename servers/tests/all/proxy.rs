//! The proxy: what passes, what does not, and what each end sees of it.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use martlet_servers::{Proxy, Redis};

use crate::world::until;

/// A service that sends back what it gets, on every connection until its end.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("accepted");
            thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    address
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", proxy.port())).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    stream
}

fn echoes(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).expect("written");
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).expect("read");
    assert_eq!(answer, text);
}

#[test]
fn open_it_changes_nothing() {
    let proxy = Proxy::start(echo()).expect("starts");
    let mut stream = connect(&proxy);
    echoes(&mut stream, b"hello");
    // More than all buffers on the way hold, so that both directions must go on side by side.
    let sent: Vec<u8> = (0..8_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut writer = stream.try_clone().expect("cloned");
    let copy = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&copy).expect("written");
        writer.shutdown(std::net::Shutdown::Write).expect("said all");
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("read to the end: one side's end is not the other's");
    writing.join().expect("written");
    assert!(back == sent);
    until("the connection is over", || proxy.connections() == 0);
}

#[test]
fn cut_resets_and_refuses_until_healed() {
    let proxy = Proxy::start(echo()).expect("starts");
    let (mut one, mut idle) = (connect(&proxy), connect(&proxy));
    echoes(&mut one, b"1");
    echoes(&mut idle, b"2");
    // One that can't write on must not hold up the cut.
    let full = connect(&proxy);
    full.set_nonblocking(true).expect("set");
    while (&full).write(&[0; 65_536]).is_ok() {}
    proxy.cut();
    assert_eq!(proxy.connections(), 0);
    for stream in [&mut one, &mut idle] {
        assert_eq!(stream.read(&mut [0]).expect_err("reset").kind(), ErrorKind::ConnectionReset);
    }
    let refused = TcpStream::connect(("127.0.0.1", proxy.port())).expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    proxy.heal().expect("healed");
    echoes(&mut connect(&proxy), b"3");
}

#[test]
fn stalled_it_keeps_what_was_sent() {
    let proxy = Proxy::start(echo()).expect("starts");
    let mut before = connect(&proxy);
    echoes(&mut before, b"1");
    proxy.stall().expect("stalled");
    let mut during = connect(&proxy);
    for stream in [&mut before, &mut during] {
        stream.write_all(b"waits").expect("accepted");
        stream.set_nonblocking(true).expect("set");
    }
    until("both are connected", || proxy.connections() == 2);
    for stream in [&mut before, &mut during] {
        assert_eq!(stream.read(&mut [0]).expect_err("nothing yet").kind(), ErrorKind::WouldBlock);
        stream.set_nonblocking(false).expect("set");
    }
    proxy.heal().expect("healed");
    for stream in [&mut before, &mut during] {
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).expect("read");
        assert_eq!(&answer, b"waits");
    }
}

#[test]
fn slow_it_still_carries_and_reset_leaves_the_way_open() {
    let proxy = Proxy::start(echo()).expect("starts");
    proxy.slow(Duration::from_millis(20)).expect("slowed");
    let mut stream = connect(&proxy);
    echoes(&mut stream, b"slowly");
    proxy.slow(Duration::from_secs(3600)).expect("slowed");
    stream.write_all(b"late").expect("accepted");
    // A delay ends with the mode, or the test would take an hour.
    proxy.heal().expect("healed");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("read");
    proxy.reset();
    assert!(stream.read(&mut [0]).is_err());
    echoes(&mut connect(&proxy), b"again");
}

#[test]
fn a_target_that_is_gone_resets_and_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut redis = Redis::start(folder.path()).expect("starts");
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], redis.port()))).expect("starts");
    redis.kill().expect("killed");
    let mut stream = connect(&proxy);
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)), "nobody is there");
    redis.start_again().expect("starts");
    let mut stream = connect(&proxy);
    stream.write_all(b"PING\r\n").expect("written");
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).expect("read");
    assert_eq!(&answer, b"+PONG\r\n");
}
