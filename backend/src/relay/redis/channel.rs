//! The names of channels: one per device, and one for the control hint. On Redis Cluster a tag in braces groups channels by slot, so that
//! one command subscribes to many; it means nothing else. No channel is for all nodes but that of the hint, which is seldom used.

use martlet_storage::DeviceKey;

/// Groups of channels on Redis Cluster. More than it will ever have masters, few enough that each holds many channels.
const PARTITIONS: u64 = 128;

/// What a channel is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Channel {
    /// What concerns one device.
    Device(DeviceKey),
    /// "The control stream has grown."
    Control,
}

/// How channels are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// Plainly.
    Plain,
    /// With the partition in front, for sharded channels.
    Sharded,
}

impl Channel {
    /// The channels of one partition lie in one slot, so on one server.
    pub(super) fn partition(self) -> u64 {
        match self {
            Self::Device(device_key) => device_key.0.unsigned_abs() % PARTITIONS,
            Self::Control => 0,
        }
    }

    /// Its name.
    pub(super) fn name(self, naming: Naming) -> String {
        let tag = match naming {
            Naming::Plain => String::new(),
            Naming::Sharded => format!("{{p{:02}}}:", self.partition()),
        };
        match self {
            Self::Device(device_key) => format!("{tag}m:{}", device_key.0),
            Self::Control => format!("{tag}control"),
        }
    }

    /// The channel of this name. `None` for any other spelling of it.
    pub(super) fn parse(name: &[u8], naming: Naming) -> Option<Self> {
        let text = std::str::from_utf8(name).ok()?;
        let (_, plain) = text.rsplit_once("}:").unwrap_or(("", text));
        let channel = match plain.strip_prefix("m:") {
            Some(key) => Self::Device(DeviceKey(key.parse().ok()?)),
            None => Self::Control,
        };
        (channel.name(naming) == text).then_some(channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for naming in [Naming::Plain, Naming::Sharded] {
            for key in [0, 1, 127, 128, i64::MAX] {
                let channel = Channel::Device(DeviceKey(key));
                assert_eq!(Channel::parse(channel.name(naming).as_bytes(), naming), Some(channel));
            }
            assert_eq!(Channel::parse(Channel::Control.name(naming).as_bytes(), naming), Some(Channel::Control));
        }
        assert_eq!(Channel::Device(DeviceKey(135)).name(Naming::Sharded), "{p07}:m:135");
        assert_eq!(Channel::Device(DeviceKey(135)).name(Naming::Plain), "m:135");
    }

    #[test]
    fn other_names_are_no_channels() {
        for name in ["", "m:", "m:x", "m:+5", "m:05", "{p01}:m:2", "{p02}:m:2 ", "controls", "x}:m:2"] {
            assert_eq!(Channel::parse(name.as_bytes(), Naming::Sharded), None, "{name}");
        }
        assert_eq!(Channel::parse(b"\xff", Naming::Plain), None);
        assert_eq!(Channel::parse(b"{p02}:m:2", Naming::Plain), None);
    }
}
