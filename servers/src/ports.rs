//! Ports on 127.0.0.1 that nothing else takes, as long as this process lives: also not while a server is down between two starts.
//!
//! They lie below the range that outgoing connections get, so that no client is given one by chance. And each is reserved by holding
//! the UDP port of the same number, which no server here uses: two processes can't take the same one, and nothing is left of the
//! reservation when this process ends.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use parking_lot::Mutex;

const FIRST: u16 = 11_000;
const COUNT: u16 = 9_000;

struct Reserved {
    sockets: Vec<UdpSocket>,
    tried: u16,
}

static RESERVED: Mutex<Reserved> = Mutex::new(Reserved { sockets: Vec::new(), tried: 0 });

/// A port on 127.0.0.1, this process's until it ends.
///
/// # Panics
/// None is left of 9,000.
#[must_use]
pub fn free_port() -> u16 {
    let mut reserved = RESERVED.lock();
    // Processes that run side by side start at places of their own, and so seldom meet.
    let start = (std::process::id() % 90) as u16 * 100;
    while reserved.tried < COUNT {
        let port = FIRST + (start + reserved.tried) % COUNT;
        reserved.tried += 1;
        let address = (Ipv4Addr::LOCALHOST, port);
        if let Ok(socket) = UdpSocket::bind(address)
            && TcpListener::bind(address).is_ok()
        {
            reserved.sockets.push(socket);
            return port;
        }
    }
    panic!("no port is left between {FIRST} and {}", FIRST + COUNT - 1);
}
