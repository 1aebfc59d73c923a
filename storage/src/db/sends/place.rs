//! Handing out `seq`: which entry becomes a row and which a gap marker. Numbers in memory only; nothing is written here.

use std::collections::HashMap;

use martlet_protocol::wire::GapReason;

use super::{EntryBody, MailboxLimits, PreparedSend, SendOutcome, planted};
use crate::db::{
    DeviceKey,
    convert::store_u64,
    mailbox::gaps::{self, Discarded},
};

/// A mailbox's head while the batch is placed.
pub(super) struct Head {
    pub list_n: u64,
    pub head_seq: i64,
    pub added_bytes: i64,
    pub added_entries: i64,
    pub removed_bytes: i64,
    pub removed_entries: i64,
    /// The batch gave it something.
    pub is_moved: bool,
}

/// An entry that becomes a row: the `entry`th of the `send`th.
pub(super) struct Row {
    pub device: DeviceKey,
    pub seq: i64,
    pub size_bytes: i64,
    pub send: usize,
    pub entry: usize,
}

/// What the batch will write.
pub(super) struct Placement {
    heads: HashMap<DeviceKey, Head>,
    rows: Vec<Row>,
    discarded: Vec<Discarded>,
    max_bytes: i64,
    max_entries: i64,
}

impl Placement {
    pub(super) fn new(heads: HashMap<DeviceKey, Head>, limits: &MailboxLimits) -> Self {
        Self {
            heads,
            rows: Vec::new(),
            discarded: Vec::new(),
            max_bytes: store_u64(limits.max_bytes),
            max_entries: store_u64(limits.max_entries),
        }
    }

    /// Whether every device has a mailbox and its account's list is the one that the sender named.
    pub(super) fn fits(&self, send: &PreparedSend) -> bool {
        send.entries.iter().all(|entry| self.heads.get(&entry.device).is_some_and(|head| head.list_n == entry.list_n))
    }

    /// Hands out `seq` to each entry of a send that fits.
    pub(super) fn place(&mut self, index: usize, send: &PreparedSend) -> SendOutcome {
        let content_bytes = send.content.as_ref().map_or(0, |content| content.len());
        let mut seqs = Vec::with_capacity(send.entries.len());
        let mut partial = Vec::new();
        for (position, entry) in send.entries.iter().enumerate() {
            let Some(head) = self.heads.get_mut(&entry.device) else { continue };
            head.is_moved = true;
            let seq = planted::serial(entry.device).unwrap_or_else(|| {
                head.head_seq += 1;
                head.head_seq
            });
            seqs.push(seq.unsigned_abs());
            let discard = |reason| Discarded { device: entry.device, from_seq: seq, to_seq: seq, reason };
            let EntryBody::Sealed(sealed) = &entry.body else {
                self.discarded.push(discard(GapReason::Dormant));
                continue;
            };
            let size_bytes = i64::try_from(sealed.len() + content_bytes).unwrap_or(i64::MAX);
            if head.takes(size_bytes, self.max_bytes, self.max_entries) {
                self.rows.push(Row { device: entry.device, seq, size_bytes, send: index, entry: position });
            } else {
                partial.push(position);
                self.discarded.push(discard(GapReason::Quota));
            }
        }
        SendOutcome::Committed { seqs, partial }
    }

    /// The heads that moved, the rows and the gap markers, each in the order of device and `seq`.
    pub(super) fn finish(self) -> (Vec<(DeviceKey, Head)>, Vec<Row>, Vec<Discarded>) {
        let mut heads: Vec<_> = self.heads.into_iter().filter(|(_, head)| head.is_moved).collect();
        heads.sort_unstable_by_key(|(device, _)| *device);
        let mut rows = self.rows;
        rows.sort_unstable_by_key(|row| (row.device, row.seq));
        (heads, rows, gaps::merge(self.discarded))
    }
}

impl Head {
    /// Counts the entry if the mailbox has room for it.
    fn takes(&mut self, size_bytes: i64, max_bytes: i64, max_entries: i64) -> bool {
        let bytes = (self.added_bytes - self.removed_bytes).saturating_add(size_bytes);
        let entries = self.added_entries - self.removed_entries + 1;
        if bytes > max_bytes || entries > max_entries {
            return false;
        }
        self.added_bytes += size_bytes;
        self.added_entries += 1;
        true
    }
}
