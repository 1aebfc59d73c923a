//! What is on its way to a device: committed entries, and ephemeral messages.

use std::time::Duration;

use bytes::Bytes;
use martlet_protocol::wire;
use martlet_storage::DeviceKey;

/// One committed entry on its way to a subscriber. Shared, because a publish may reach several inboxes.
#[derive(Debug, Clone)]
pub struct LiveEntry {
    /// Whose mailbox.
    pub device_key: DeviceKey,
    /// Its place there: that of the entry, or the last one that the gap covers.
    pub seq: u64,
    /// What is to be pushed.
    pub item: LiveItem,
    /// Since when it is on its way from its commit, by this node's clock that never steps; for measuring only.
    pub under_way_since: Duration,
}

/// What stands in a mailbox at a `seq`.
#[derive(Debug, Clone, PartialEq)]
pub enum LiveItem {
    /// A sealed entry.
    Entry(wire::MailboxEntry),
    /// What had to be discarded.
    Gap(wire::Gap),
}

impl LiveItem {
    /// The first and the last `seq` that this stands for.
    #[must_use]
    pub fn span(&self) -> (u64, u64) {
        match self {
            Self::Entry(entry) => (entry.seq, entry.seq),
            Self::Gap(gap) => (gap.from_seq, gap.to_seq),
        }
    }

    /// About how much memory it holds, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Entry(entry) => size_of::<Self>() + entry.sealed.len() + entry.content.len(),
            Self::Gap(_) => size_of::<Self>(),
        }
    }
}

/// An ephemeral message on its way to one device: stored nowhere, worth nothing later.
#[derive(Debug, Clone)]
pub struct Whisper {
    /// For which device.
    pub device_key: DeviceKey,
    /// When it is dropped, in Unix milliseconds.
    pub expires_at_ms: u64,
    /// An encoded [`wire::Ephemeral`], as it stands in the frame.
    pub payload: Bytes,
}
