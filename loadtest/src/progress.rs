//! What the user sees while it runs: bars on a terminal, plain lines elsewhere. Everything goes to standard error, so that standard
//! output holds the result alone.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::figures::grouped;

/// One thing under way, such as "registering devices" of which 19,000 are to be done. Clones share one bar.
#[derive(Clone)]
pub struct Progress {
    bar: ProgressBar,
    what: &'static str,
    plain: bool,
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
        Self { bar, what, plain }
    }

    /// One more is done. May be called from any thread.
    pub fn one(&self) {
        self.bar.inc(1);
    }

    /// So many are done now.
    pub fn set(&self, done: u64) {
        self.bar.set_position(done);
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
