//! The names of channels: one per stream (a device's mailbox, a conversation's log), and one for the control hint. On Redis Cluster a tag in braces groups channels by slot, so that
//! one command subscribes to many; it means nothing else. No channel is for all nodes but that of the hint, which is seldom used.

use martlet_storage::{ConversationKey, DeviceKey};

use crate::subscribers::StreamKey;

/// Groups of channels on Redis Cluster. More than it will ever have masters, few enough that each holds many channels.
const PARTITIONS: u64 = 128;

/// What a channel is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Channel {
    /// What concerns one stream.
    Stream(StreamKey),
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
            Self::Stream(StreamKey::Mailbox(DeviceKey(key)) | StreamKey::Log(ConversationKey(key))) => {
                key.unsigned_abs() % PARTITIONS
            }
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
            Self::Stream(StreamKey::Mailbox(device_key)) => format!("{tag}m:{}", device_key.0),
            Self::Stream(StreamKey::Log(key)) => format!("{tag}l:{}", key.0),
            Self::Control => format!("{tag}control"),
        }
    }

    /// The channel of this name. `None` for any other spelling of it.
    pub(super) fn parse(name: &[u8], naming: Naming) -> Option<Self> {
        let text = std::str::from_utf8(name).ok()?;
        let (_, plain) = text.rsplit_once("}:").unwrap_or(("", text));
        let channel = match plain.split_once(':') {
            Some(("m", key)) => Self::Stream(StreamKey::Mailbox(DeviceKey(key.parse().ok()?))),
            Some(("l", key)) => Self::Stream(StreamKey::Log(ConversationKey(key.parse().ok()?))),
            Some(_) => return None,
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
                for stream in [StreamKey::Mailbox(DeviceKey(key)), StreamKey::Log(ConversationKey(key))] {
                    let channel = Channel::Stream(stream);
                    assert_eq!(Channel::parse(channel.name(naming).as_bytes(), naming), Some(channel));
                }
            }
            assert_eq!(Channel::parse(Channel::Control.name(naming).as_bytes(), naming), Some(Channel::Control));
        }
        let (mailbox, log) = (StreamKey::Mailbox(DeviceKey(135)), StreamKey::Log(ConversationKey(135)));
        assert_eq!(Channel::Stream(mailbox).name(Naming::Sharded), "{p07}:m:135");
        assert_eq!(Channel::Stream(mailbox).name(Naming::Plain), "m:135");
        assert_eq!(Channel::Stream(log).name(Naming::Plain), "l:135");
    }

    #[test]
    fn other_names_are_no_channels() {
        for name in
            ["", "m:", "m:x", "m:+5", "m:05", "l:", "l:05", "k:5", "{p01}:m:2", "{p02}:m:2 ", "controls", "x}:m:2"]
        {
            assert_eq!(Channel::parse(name.as_bytes(), Naming::Sharded), None, "{name}");
        }
        assert_eq!(Channel::parse(b"\xff", Naming::Plain), None);
        assert_eq!(Channel::parse(b"{p02}:m:2", Naming::Plain), None);
    }
}
