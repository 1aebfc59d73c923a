//! What stands in the system's buffers of a connection on this machine. Linux only (`/proc/net/tcp`), and IPv4.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};

/// Bytes on their way from `there` to `here`: not yet acknowledged at the one end, not yet read at the other. What has arrived and is not yet
/// acknowledged counts at both.
pub(super) fn on_their_way(here: SocketAddr, there: SocketAddr) -> Option<u64> {
    let (SocketAddr::V4(here), SocketAddr::V4(there)) = (here, there) else { return None };
    parse(&fs::read_to_string("/proc/net/tcp").ok()?, here, there)
}

fn parse(table: &str, here: SocketAddrV4, there: SocketAddrV4) -> Option<u64> {
    let lines = table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let ends = [address(words.next()?)?, address(words.next()?)?];
        let (unsent, unread) = words.nth(1)?.split_once(':')?;
        Some((ends, u64::from_str_radix(unsent, 16).ok()?, u64::from_str_radix(unread, 16).ok()?))
    });
    let (mut sent, mut received) = (None, None);
    for (ends, unsent, unread) in lines {
        if ends == [there, here] {
            sent = Some(unsent);
        } else if ends == [here, there] {
            received = Some(unread);
        }
    }
    Some(sent? + received?)
}

/// As the table has it: the address in the machine's byte order, the port, in hexadecimal.
fn address(text: &str) -> Option<SocketAddrV4> {
    let (address, port) = text.split_once(':')?;
    let address = Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.to_ne_bytes());
    Some(SocketAddrV4::new(address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn what_nobody_reads_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let reader = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (mut writer, _) = listener.accept().expect("a connection");
        let (here, there) = (reader.local_addr().expect("an address"), reader.peer_addr().expect("an address"));
        assert_eq!(on_their_way(here, there), Some(0));
        writer.write_all(&[7; 5000]).expect("written");
        // Not acknowledged yet, it is at both ends.
        assert!(on_their_way(here, there).is_some_and(|bytes| (5000..=10_000).contains(&bytes)));
        drop(listener);
    }

    #[test]
    fn other_connections_and_nonsense_count_for_nothing() {
        let [here, there] = ["127.0.0.2:1024", "127.0.0.1:8080"].map(|text| text.parse().expect("an address"));
        let other = "  sl  local_address rem_address   st tx_queue rx_queue\n   0: 0100007F:1F90 0200007F:0401 01 00000010:00000020 0\n?\n";
        assert_eq!(parse(other, here, there), None);
        assert_eq!(parse("", here, there), None);
    }
}
