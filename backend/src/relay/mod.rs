//! How nodes tell each other what was committed. Embedded there is one node, so this passes on to its own subscribers; a relay between
//! nodes becomes a second arm. It carries entries and knows nothing of messages, and whatever it loses is repaired from the store.

use std::sync::Arc;

use crate::subscribers::{LiveEntry, Subscribers, Whisper};

/// The way to the nodes that hold the devices.
pub enum Relay {
    /// This process is the only node.
    InProcess(Arc<Subscribers>),
}

impl Relay {
    /// Passes entries on, in order. Never blocks.
    pub fn publish(&self, entries: impl IntoIterator<Item = Arc<LiveEntry>>) {
        match self {
            Self::InProcess(subscribers) => subscribers.deliver(entries),
        }
    }

    /// Passes ephemeral messages on. Never blocks, and what is lost stays lost.
    pub fn whisper(&self, whispers: impl IntoIterator<Item = Arc<Whisper>>) {
        match self {
            Self::InProcess(subscribers) => subscribers.whisper(whispers),
        }
    }
}
