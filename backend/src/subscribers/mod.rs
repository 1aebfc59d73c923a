//! Who reads here: which worker thread holds the socket of which device, and the inbox through which that worker is told things.
//!
//! [`registry`] finds a device's subscriber (one per device: the newest socket wins), [`inbox`] hands batches to a worker with one lock
//! and one wake. Nothing here knows sockets, sub-protocols or HTTP; what a subscriber does with an item is its session's matter.

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
}

/// What stands in a mailbox at a `seq`.
#[derive(Debug, Clone, PartialEq)]
pub enum LiveItem {
    /// A sealed entry.
    Entry(wire::MailboxEntry),
    /// What had to be discarded.
    Gap(wire::Gap),
}
