//! What a run came to: the broken promises and the figures that are printed.

use martlet_protocol::wire::GapReason;

/// A promise that was broken. Operations are numbered as in the history, devices in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant's sentence covers its fields")]
pub enum Violation {
    /// Answered, but the device never got it.
    Lost { operation: usize, device: usize },
    /// Numbers that neither an entry nor a marker accounts for, or an entry that did not follow the one before it.
    Hole { seq: u64, device: usize },
    /// A gap marker that this run gives no reason for.
    Gap { from_seq: u64, to_seq: u64, reason: GapReason, device: usize },
    /// Answered, but not given to a socket that stood open and was read for half a minute after.
    Stalled { operation: usize, device: usize },
    /// Accepted for some devices and not for others.
    Torn { operation: usize, device: usize },
    /// The application got it twice, after dropping repeated message ids.
    Repeated { operation: usize, device: usize },
    /// One send was accepted under two message ids.
    AcceptedTwice { operation: usize },
    /// A device got the later of two messages of one sender first.
    Reordered { earlier: usize, later: usize, device: usize },
    /// A revoked device got what was sent after its revocation was answered.
    AcceptedAfterRevocation { operation: usize, device: usize },
    /// Something was written to a revoked device more than a second after its revocation was answered.
    WrittenAfterRevocation { seq: u64, device: usize, late_ms: u64 },
    /// A revoked device was still served by a node that nothing disturbed.
    ServedAfterRevocation { device: usize, late_ms: u64 },
    /// Nobody sent it to this device, or it was refused.
    Phantom { seq: u64, device: usize },
    /// Another content, sender, conversation, header or message id than was sent and answered.
    Altered { operation: usize, device: usize },
    /// One number of a mailbox stood for two entries.
    Renumbered { seq: u64, device: usize },
    /// Refused for a reason that this run does not give.
    Refused { operation: usize, code: String },
    /// The run ended before the send did.
    Unsettled { operation: usize },
    /// What no node may do.
    Odd { device: usize, what: String },
    /// No message sent after the last heal reached the device within ten seconds of it.
    NotBack { device: usize, after_ms: Option<u64> },
    /// A node ended without being asked to.
    NodeEnded { node: usize, at_ms: u64 },
}

/// The four that the run is about, and the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Not delivered, or not in time.
    Lost,
    /// Twice at the application.
    Repeated,
    /// Order of one sender's messages.
    OutOfOrder,
    /// To revoked devices.
    ToRevoked,
    /// Everything else that must not happen.
    Other,
}

impl Violation {
    /// Which of the four it counts for.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Lost { .. } | Self::Hole { .. } | Self::Gap { .. } | Self::Stalled { .. } | Self::Torn { .. } => {
                Class::Lost
            }
            Self::Repeated { .. } | Self::AcceptedTwice { .. } => Class::Repeated,
            Self::Reordered { .. } => Class::OutOfOrder,
            Self::AcceptedAfterRevocation { .. }
            | Self::WrittenAfterRevocation { .. }
            | Self::ServedAfterRevocation { .. } => Class::ToRevoked,
            Self::Phantom { .. }
            | Self::Altered { .. }
            | Self::Renumbered { .. }
            | Self::Refused { .. }
            | Self::Unsettled { .. }
            | Self::Odd { .. }
            | Self::NotBack { .. }
            | Self::NodeEnded { .. } => Class::Other,
        }
    }
}

/// What a run came to.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Sends.
    pub operations: usize,
    /// Answered.
    pub ok: usize,
    /// Given up in doubt.
    pub unknown: usize,
    /// Unknown ones that a device got all the same.
    pub unknown_appeared: usize,
    /// Refused.
    pub failed: usize,
    /// Entries that came over the wire.
    pub on_the_wire: usize,
    /// Messages that applications got.
    pub applied: usize,
    /// Gap markers that are explained.
    pub gaps: usize,
    /// Devices whose revocation was answered.
    pub revoked: usize,
    /// The longest time without an answered send while faults went on, in ms.
    pub without_answer_ms: u64,
    /// The longest time without a delivery while faults went on, in ms.
    pub without_delivery_ms: u64,
    /// After the last heal, until every device had got something sent after it, in ms.
    pub back_ms: u64,
    /// Everything that was wrong.
    pub violations: Vec<Violation>,
}

impl Verdict {
    /// How many violations count for one of the four, or for the rest.
    #[must_use]
    pub fn count(&self, class: Class) -> usize {
        self.violations.iter().filter(|violation| violation.class() == class).count()
    }
}
