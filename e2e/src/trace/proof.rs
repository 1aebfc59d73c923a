//! Whether what left on a socket was on disk before.
//!
//! SQLite's write-ahead log takes each page as a header of 24 bytes and the page; bytes 4 to 7 of the header are not zero on the last
//! page of a transaction, so the transaction that wrote some bytes is known, and with it the sync that makes it durable: the first on
//! the log that began after the transaction's last page was written, and succeeded.

use std::collections::HashMap;

use super::calls::Call;

const FRAME_HEADER_LEN: usize = 24;

/// What a trace says about the log and the sockets.
#[derive(Debug, Default)]
pub struct Trace {
    frames: Vec<Frame>,
    /// Start and end of each sync of the log that succeeded, in order of their start.
    syncs: Vec<(usize, usize)>,
    /// By socket.
    sent: HashMap<String, Sent>,
}

/// A page in the log.
#[derive(Debug)]
struct Frame {
    start: usize,
    end: usize,
    /// The last of its transaction.
    commits: bool,
    page: String,
}

/// All that was written to a socket: a message may end in another write than it began in.
#[derive(Debug, Default)]
struct Sent {
    bytes: String,
    /// Where each write's bytes begin, and when it began.
    writes: Vec<(usize, usize)>,
}

impl Sent {
    /// Takes only what the socket took.
    fn push(&mut self, call: &Call) {
        self.writes.push((self.bytes.len(), call.start));
        self.bytes.extend(call.data.chars().take(usize::try_from(call.result).unwrap_or(0)));
    }

    /// When the write began that the first byte of `text` left in.
    fn left(&self, text: &str) -> Option<usize> {
        let offset = self.bytes.find(text)?;
        let write = self.writes.partition_point(|(from, _)| *from <= offset).checked_sub(1)?;
        Some(self.writes[write].1)
    }
}

/// Why an answer was not proved to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// What it answers was never written.
    NotWritten,
    /// What it answers was never committed.
    NotCommitted,
    /// The transaction was never synced.
    NeverSynced,
    /// It left before the sync was over.
    LeftBefore,
    /// It was not seen leaving.
    NotSent,
    /// Something in the log was not synced when it left.
    LogDirty,
}

impl Trace {
    /// Sorts out what matters. Calls come in the order of their end.
    #[must_use]
    pub fn new(calls: &[Call]) -> Self {
        let mut trace = Self::default();
        // Headers that wait for their page, by file.
        let mut headers: HashMap<&str, &Call> = HashMap::new();
        for call in calls {
            match call.name.as_str() {
                "pwrite64" if call.file.ends_with("-wal") && call.data.chars().count() == FRAME_HEADER_LEN => {
                    headers.insert(&call.file, call);
                }
                "pwrite64" if call.file.ends_with("-wal") => {
                    if let Some(header) = headers.remove(call.file.as_str()) {
                        let commits = header.data.chars().skip(4).take(4).any(|byte| byte != '\0');
                        let page = call.data.clone();
                        trace.frames.push(Frame { start: header.start, end: call.end, commits, page });
                    }
                }
                "fdatasync" | "fsync" if call.file.ends_with("-wal") && call.result == 0 => {
                    trace.syncs.push((call.start, call.end));
                }
                "write" | "writev" | "sendto" | "sendmsg" if call.file.starts_with("socket:") && call.result > 0 => {
                    trace.sent.entry(call.file.clone()).or_default().push(call);
                }
                _ => {}
            }
        }
        trace.syncs.sort_unstable();
        trace
    }

    /// Transactions in the log, and syncs of it.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.frames.iter().filter(|frame| frame.commits).count(), self.syncs.len())
    }

    /// Proves that the transaction that wrote `written` was synced before the first bytes with `answer` left.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn synced_before(&self, written: &str, answer: &str) -> Result<(), Fault> {
        let first = self.frames.iter().position(|frame| frame.page.contains(written)).ok_or(Fault::NotWritten)?;
        let commit = self.frames[first..].iter().find(|frame| frame.commits).ok_or(Fault::NotCommitted)?;
        let left = self.left(answer).ok_or(Fault::NotSent)?;
        let sync = self.syncs.iter().find(|(start, _)| *start > commit.end).ok_or(Fault::NeverSynced)?;
        if sync.1 < left { Ok(()) } else { Err(Fault::LeftBefore) }
    }

    /// Proves for answers of which each left before the next was asked for, with nothing else going on, that each had a transaction
    /// of its own and that nothing in the log was unsynced when it left.
    #[must_use]
    pub fn one_by_one(&self, answers: &[String]) -> Vec<Fault> {
        let mut before = 0;
        answers.iter().filter_map(|answer| self.alone(answer, &mut before).err()).collect()
    }

    fn alone(&self, answer: &str, before: &mut usize) -> Result<(), Fault> {
        let left = self.left(answer).ok_or(Fault::NotSent)?;
        let since = std::mem::replace(before, left);
        let mut own = self.frames.iter().filter(|frame| frame.start > since && frame.start < left);
        if !own.clone().any(|frame| frame.commits && frame.end < left) {
            return Err(Fault::NotCommitted);
        }
        let synced = |frame: &Frame| self.syncs.iter().any(|(start, end)| *start > frame.end && *end < left);
        if own.all(synced) { Ok(()) } else { Err(Fault::LogDirty) }
    }

    fn left(&self, answer: &str) -> Option<usize> {
        self.sent.values().filter_map(|sent| sent.left(answer)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, file: &str, data: &str, at: usize) -> Call {
        Call { name: name.into(), file: file.into(), data: data.into(), start: at, end: at, result: data.len() as i64 }
    }

    fn header(commits: bool, at: usize) -> Call {
        let mut bytes = ['\0'; FRAME_HEADER_LEN];
        bytes[7] = if commits { 'x' } else { '\0' };
        call("pwrite64", "a-wal", &bytes.iter().collect::<String>(), at)
    }

    /// Two pages, the second of which commits, then sync and answer at the given times.
    fn trace(sync: Option<usize>, answer: usize) -> Trace {
        let mut calls = vec![
            header(false, 1),
            call("pwrite64", "a-wal", "..mark..", 2),
            header(true, 3),
            call("pwrite64", "a-wal", "........", 4),
        ];
        calls.extend(sync.map(|at| call("fdatasync", "a-wal", "", at)));
        calls.push(call("writev", "socket:[1]", "{answer}", answer));
        Trace::new(&calls)
    }

    #[test]
    fn an_answer_after_the_sync_is_proved() {
        assert_eq!(trace(Some(5), 6).synced_before("mark", "answer"), Ok(()));
        assert_eq!(trace(Some(5), 6).one_by_one(&["answer".into()]), []);
    }

    #[test]
    fn an_answer_in_two_writes_leaves_with_its_first_byte() {
        let mut cut = call("writev", "socket:[1]", "{answer}", 5);
        cut.result = 4;
        let calls = [call("sendto", "socket:[1]", "{}", 3), cut, call("writev", "socket:[1]", "wer}", 7)];
        assert_eq!(Trace::new(&calls).left("{answer}"), Some(5));
        assert_eq!(Trace::new(&calls).left("wer}"), Some(7));
        assert_eq!(Trace::new(&calls[..2]).left("{answer}"), None, "what the socket did not take has not left");
    }

    #[test]
    fn each_fault_is_told() {
        assert_eq!(trace(None, 6).synced_before("mark", "answer"), Err(Fault::NeverSynced));
        assert_eq!(trace(Some(9), 6).synced_before("mark", "answer"), Err(Fault::LeftBefore));
        // A sync between the pages does not cover the second.
        assert_eq!(trace(Some(3), 6).synced_before("mark", "answer"), Err(Fault::NeverSynced));
        assert_eq!(trace(Some(5), 6).synced_before("other", "answer"), Err(Fault::NotWritten));
        assert_eq!(trace(Some(5), 6).synced_before("mark", "other"), Err(Fault::NotSent));
        assert_eq!(trace(None, 6).one_by_one(&["answer".into()]), [Fault::LogDirty]);
        assert_eq!(trace(Some(9), 6).one_by_one(&["answer".into()]), [Fault::LogDirty]);
        assert_eq!(trace(Some(5), 0).one_by_one(&["answer".into()]), [Fault::NotCommitted]);
    }
}
