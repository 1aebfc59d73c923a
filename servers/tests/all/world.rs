//! What these tests share: processes as the system sees them, and waiting.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Waits until something holds.
///
/// # Panics
/// It does not within a minute.
#[expect(clippy::disallowed_methods, reason = "other processes are waited for, and they keep real time")]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Whether there is a process of this id that is more than an entry nobody has collected.
pub fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    // The state follows the name, which stands in parentheses and may hold some itself.
    stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with('Z') && !fields.starts_with('X'))
}

/// The ids of all processes that this one has started, and those they have, as far as they are still its descendants.
pub fn descendants(pid: i32) -> Vec<i32> {
    let own = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let own: Vec<i32> = own.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    let further: Vec<i32> = own.iter().flat_map(|pid| descendants(*pid)).collect();
    [own, further].concat()
}
