//! A socket that listens, with room for everybody who comes at once.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

/// Connections that may wait to be accepted; the system's own bound (`net.core.somaxconn`) counts too. All clients of a node that was
/// started again come within a moment, and whoever finds no room is not told: its system tries again after 1, 3 and 7 seconds.
const BACKLOG: i32 = 8192;

/// Listens on an address. Port 0 takes a free port.
///
/// # Errors
/// What the system says, such as that the port is taken.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // The standard library has asked for 128. Asking again changes that alone (listen(2) on a socket that listens).
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::{fs, net::TcpStream, time::Duration};

    use super::*;

    /// Nobody accepts here, so whoever finds no room does not get in, however long it waits.
    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn many_may_wait_to_be_accepted() {
        let system = fs::read_to_string("/proc/sys/net/core/somaxconn").expect("the system's bound");
        let system: usize = system.trim().parse().expect("a number");
        assert!(system > 500, "this machine lets {system} connections wait; the test needs 500");
        let listener = listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let waiting: Vec<_> = (0..500).map_while(|_| TcpStream::connect_timeout(&address, PATIENCE).ok()).collect();
        assert_eq!(waiting.len(), 500);
    }
}
