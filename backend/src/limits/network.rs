//! From where something comes, as rates are counted.

use std::net::{IpAddr, Ipv4Addr};

/// The address that rates are counted by. The last entry of `X-Forwarded-For` is the one that our own proxy added; those before it are the
/// client's words. `forwarded` is the header's last line, if the config says to believe it.
#[must_use]
pub fn address(socket: Option<IpAddr>, forwarded: Option<&str>) -> IpAddr {
    let told = forwarded.and_then(|line| line.rsplit(',').next()?.trim().parse().ok());
    told.or(socket).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// Who counts as one address: a customer of IPv6 has a whole /64 to write from. Eight bytes, for every socket keeps one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(u64);

/// Addresses are personal data.
impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Network")
    }
}

impl Network {
    /// IPv4 stands in a part of IPv6 that belongs to nobody (RFC 4291, section 2.4: all of `::/8` that is not given out here).
    const V4: u64 = 0xffff << 32;

    /// The network of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4 | u64::from(v4.to_bits()),
            // The upper half.
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_proxys_own_entry_counts() {
        let socket = Some(IpAddr::from([127, 0, 0, 1]));
        assert_eq!(address(socket, Some("10.9.9.9, 192.0.2.7")), IpAddr::from([192, 0, 2, 7]));
        assert_eq!(address(socket, Some("nonsense")), IpAddr::from([127, 0, 0, 1]));
        assert_eq!(address(None, None), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    }

    #[test]
    fn networks_are_told_apart() {
        let of = |text: &str| Network::of(text.parse().expect("an address"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::2"));
        let different = ["192.0.2.1", "192.0.2.2", "::1", "2001:db8::1", "2001:db8:0:1::1", "0.0.0.0", "127.0.0.1"];
        assert_eq!(different.map(of).iter().collect::<std::collections::HashSet<_>>().len(), different.len());
    }
}
