//! Addresses that no other test, and no outgoing connection, takes.
//!
//! Two things go wrong with "bind port 0, close, use": another process takes the port meanwhile, and, while the node is down between
//! two starts, a client's own outgoing connection can be given the port and connect to itself. So the ports lie below the range
//! that outgoing connections get, and on Linux each test process has a loopback address of its own.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Context as _, Result};

const FIRST: u16 = 20_000;
const LAST: u16 = 31_998;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// The addresses of one node, the same over its restarts.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// For clients.
    pub public: SocketAddr,
    /// For the operator.
    pub internal: SocketAddr,
}

impl Ports {
    /// Two free ports.
    ///
    /// # Errors
    /// None left.
    pub fn take() -> Result<Self> {
        let address = own_address();
        // Without an address of its own, at least a place of its own to start from.
        let start = if address == Ipv4Addr::LOCALHOST { (std::process::id() % 5_000) as u16 * 2 } else { 0 };
        loop {
            let offset = NEXT.fetch_add(2, Ordering::Relaxed);
            let port = FIRST.checked_add(offset).filter(|port| *port < LAST).context("no ports left")?;
            let port = FIRST + (port - FIRST + start) % (LAST - FIRST);
            let pair = [port, port + 1].map(|port| SocketAddr::new(IpAddr::V4(address), port));
            if pair.iter().all(|address| TcpListener::bind(address).is_ok()) {
                return Ok(Self { public: pair[0], internal: pair[1] });
            }
        }
    }
}

/// 127.64.0.0/10 has as many addresses as Linux has process ids.
fn own_address() -> Ipv4Addr {
    if !cfg!(target_os = "linux") {
        return Ipv4Addr::LOCALHOST;
    }
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | (high & 63), middle, low)
}
