//! What a group's log must hold: what was written, in the order in which one device wrote it.

use std::sync::Arc;

use bytes::Bytes;

use crate::socket::log_frame::Entry;

/// See the module. Clones share the contents.
#[derive(Clone)]
pub struct Log {
    head: u64,
    contents: Arc<[Bytes]>,
}

impl Log {
    /// Of so many messages, the first of which follows `head`, the log's last `seq` before it.
    pub fn new(head: u64, contents: Arc<[Bytes]>) -> Self {
        Self { head, contents }
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.contents.len()
    }

    /// The log's last `seq` for a reader that has got so many.
    pub fn seq(&self, got: usize) -> u64 {
        self.head + got as u64
    }

    /// Whether this is the entry that is due for a reader that has got so many; if not, in words what happened instead.
    ///
    /// # Errors
    /// When it stands in the right place and is not what was written.
    pub fn check(&self, got: usize, entry: Entry<'_>) -> Result<Option<&'static str>, String> {
        let due = self.seq(got) + 1;
        if entry.seq != due {
            return Ok(Some(if entry.seq < due { "an entry came twice" } else { "an entry was left out" }));
        }
        if self.contents.get(got).is_none_or(|content| content != entry.content) {
            return Err(format!("entry {} is not what was written", entry.seq));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_entry_that_is_due_and_as_it_was_written_is_right() {
        let log = Log::new(7, [Bytes::from_static(b"one"), Bytes::from_static(b"two")].into());
        let entry = |seq, content| Entry { seq, content };
        assert_eq!(log.check(0, entry(8, b"one")), Ok(None));
        assert_eq!(log.check(1, entry(9, b"two")), Ok(None));
        assert_eq!(log.check(1, entry(8, b"one")), Ok(Some("an entry came twice")));
        assert_eq!(log.check(0, entry(9, b"two")), Ok(Some("an entry was left out")));
        assert!(log.check(0, entry(8, b"two")).is_err(), "another content");
        assert!(log.check(2, entry(10, b"three")).is_err(), "more than was written");
        assert_eq!((log.len(), log.seq(2)), (2, 9));
    }
}
