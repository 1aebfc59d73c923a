//! What the user sees while it runs: bars on a terminal, plain lines elsewhere. Everything goes to standard error, so that standard
//! output holds the result alone.

use std::{
    io::IsTerminal as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{ambient, figures::grouped};

/// How often a number that takes counting is counted.
const COUNT_EVERY: Duration = Duration::from_millis(125);

/// One thing under way, such as "registering devices" of which 19,000 are to be done. Clones share one bar.
#[derive(Clone)]
pub struct Progress {
    bar: ProgressBar,
    what: &'static str,
    plain: bool,
    since: Instant,
    /// In which span of [`COUNT_EVERY`] the last count was.
    counted: Arc<AtomicU64>,
}

impl Progress {
    /// Begins; `total` is how many there are to do.
    ///
    /// # Panics
    /// Never: the template is valid.
    #[must_use]
    pub fn new(what: &'static str, total: u64) -> Self {
        let plain = !std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
        let style = ProgressStyle::with_template("{msg:28} {bar:32} {human_pos}/{human_len} {eta}");
        bar.set_style(style.expect("the template is valid"));
        bar.set_message(what);
        if plain {
            eprintln!("{what}: {} …", grouped(total));
        }
        Self { bar, what, plain, since: ambient::now(), counted: Arc::default() }
    }

    /// One more is done. May be called from any thread.
    pub fn one(&self) {
        self.bar.inc(1);
    }

    /// So many are done now.
    pub fn set(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// As [`Self::set`], for a number that takes counting: counted as often as anybody looks.
    pub fn count(&self, done: impl FnOnce() -> u64) {
        let turn = self.since.elapsed().as_millis() / COUNT_EVERY.as_millis();
        let turn = u64::try_from(turn).unwrap_or(u64::MAX);
        if self.counted.swap(turn, Ordering::Relaxed) != turn {
            self.set(done());
        }
    }

    /// Ends, and says how it went.
    pub fn done(self, outcome: &str) {
        self.bar.finish_and_clear();
        let Self { what, plain, .. } = &self;
        if *plain || !outcome.is_empty() {
            eprintln!("{what}: {}", if outcome.is_empty() { "done" } else { outcome });
        }
    }
}

/// One line about what happens now.
pub fn say(line: &str) {
    eprintln!("{line}");
}
