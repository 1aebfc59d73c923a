//! Content that was too large for the relay: read from the store once for all entries of this node that share it, then delivered with
//! each. What can't be read here (acked or expired meanwhile, a store that fails) its device reads for itself.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use martlet_protocol::wire;
use martlet_storage::{
    DeviceKey,
    mailbox::{self, Item, RangeQuery},
};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::{Inner, Stop};
use crate::subscribers::{LiveEntry, LiveItem};

/// An entry whose content is to be read.
#[derive(Debug)]
pub(super) struct Large {
    pub(super) device_key: DeviceKey,
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) entry_id: Bytes,
    pub(super) sealed: Bytes,
    pub(super) content_sha256: [u8; 32],
}

impl Large {
    fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.sealed.len()
    }
}

/// Entries that wait for their content. Bounded in bytes.
#[derive(Debug)]
pub(super) struct Contents {
    waiting: Mutex<(Vec<Large>, usize)>,
    filled: Notify,
    max_bytes: usize,
}

impl Contents {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { waiting: Mutex::default(), filled: Notify::new(), max_bytes }
    }

    /// False if there is no room for it.
    pub(super) fn put(&self, large: Large) -> bool {
        let mut waiting = self.waiting.lock();
        let bytes = waiting.1 + large.size_bytes();
        if bytes > self.max_bytes {
            return false;
        }
        waiting.1 = bytes;
        waiting.0.push(large);
        self.filled.notify_one();
        true
    }

    fn take(&self) -> Vec<Large> {
        std::mem::take(&mut *self.waiting.lock()).0
    }
}

/// Reads and delivers until the node stops.
pub(super) async fn run(inner: Arc<Inner>, mut stop: Stop) {
    let mut recent = Recent::new(inner.config.relay.content_queue_bytes);
    loop {
        tokio::select! {
            () = inner.contents.filled.notified() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let mut sharing: BTreeMap<[u8; 32], Vec<Large>> = BTreeMap::new();
        for large in inner.contents.take() {
            sharing.entry(large.content_sha256).or_default().push(large);
        }
        for (content_sha256, entries) in sharing {
            let mut content = recent.get(&content_sha256);
            if content.is_none() {
                content = read(&inner, &entries).await;
                if let Some(content) = &content {
                    recent.put(content_sha256, content.clone());
                }
            }
            deliver(&inner, entries, content);
        }
    }
}

fn deliver(inner: &Inner, entries: Vec<Large>, content: Option<Bytes>) {
    let Some(content) = content else {
        return inner.subscribers.compare_heads(entries.iter().map(|large| large.device_key));
    };
    // Reading took a while, in which the store may have become another one.
    let current = entries.into_iter().filter(|large| large.epoch == inner.subscribers.epoch());
    // How long it was on the line, and the reading, are not in it: for measuring, large contents count from here.
    let under_way_since = inner.clock.elapsed();
    inner.subscribers.deliver(current.map(|large| {
        let Large { device_key, seq, entry_id, sealed, .. } = large;
        let item = LiveItem::Entry(wire::MailboxEntry { seq, entry_id, sealed, content: content.clone() });
        Arc::new(LiveEntry { device_key, seq, item, under_way_since })
    }));
}

/// By way of the first of the entries that is still there.
async fn read(inner: &Inner, entries: &[Large]) -> Option<Bytes> {
    let expected = entries.first()?.content_sha256;
    let places: Vec<(DeviceKey, u64)> = entries.iter().map(|large| (large.device_key, large.seq)).collect();
    let now_s = inner.clock.now_s();
    inner.counts.content_read();
    let read = inner
        .db
        .read(move |conn| {
            for (device, seq) in places {
                let query = RangeQuery { device, after_seq: seq.saturating_sub(1), max_items: 1, max_bytes: 1, now_s };
                let found = mailbox::range(conn, &query)?.items.into_iter().next();
                if let Some(Item::Entry { seq: at, content: Some(content), .. }) = found
                    && at == seq
                {
                    return Ok::<_, martlet_storage::StorageError>(Some(content));
                }
            }
            Ok(None)
        })
        .await;
    match read {
        Ok(content) => content.filter(|content| Sha256::digest(content)[..] == expected),
        Err(error) => {
            tracing::warn!(%error, "content for relayed entries could not be read; their devices read it themselves");
            None
        }
    }
}

/// The last contents read: the devices that share one have channels of their own, so their entries don't come all at once.
struct Recent {
    contents: VecDeque<([u8; 32], Bytes)>,
    bytes: usize,
    max_bytes: usize,
}

impl Recent {
    fn new(max_bytes: usize) -> Self {
        Self { contents: VecDeque::new(), bytes: 0, max_bytes }
    }

    fn get(&self, hash: &[u8; 32]) -> Option<Bytes> {
        self.contents.iter().find(|(known, _)| known == hash).map(|(_, content)| content.clone())
    }

    fn put(&mut self, hash: [u8; 32], content: Bytes) {
        self.bytes += content.len();
        self.contents.push_back((hash, content));
        while self.bytes > self.max_bytes
            && let Some((_, oldest)) = self.contents.pop_front()
        {
            self.bytes -= oldest.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_contents_are_bounded_in_bytes() {
        let mut recent = Recent::new(250);
        for n in 0..4 {
            recent.put([n; 32], Bytes::from(vec![n; 100]));
        }
        assert_eq!((recent.get(&[1; 32]), recent.bytes), (None, 200));
        assert_eq!(recent.get(&[3; 32]), Some(Bytes::from(vec![3; 100])));
        recent.put([9; 32], Bytes::from(vec![0; 1000]));
        assert_eq!((recent.contents.len(), recent.bytes), (0, 0), "what is larger than the bound is not kept");
    }

    #[test]
    fn entries_over_the_bound_are_refused() {
        let contents = Contents::new(1000);
        let large = |bytes: usize| Large {
            device_key: DeviceKey(1),
            epoch: 1,
            seq: 1,
            entry_id: Bytes::new(),
            sealed: Bytes::from(vec![0; bytes]),
            content_sha256: [0; 32],
        };
        assert!(contents.put(large(500)));
        assert!(!contents.put(large(500)));
        assert_eq!(contents.take().len(), 1);
        assert!(contents.put(large(500)));
    }
}
