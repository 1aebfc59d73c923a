//! The end of a server's log, for the message that says why it failed.

use std::path::Path;

/// The last lines of a log, or why there are none.
#[must_use]
pub fn last_lines(log: &Path, lines: usize) -> String {
    let text = match std::fs::read(log) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return format!("({} can't be read: {error})", log.display()),
    };
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
