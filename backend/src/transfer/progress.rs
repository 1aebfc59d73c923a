//! A bar on a terminal; nothing elsewhere, where the outcome alone counts.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

/// How far a command is. It draws on standard error.
pub struct Progress {
    is_shown: bool,
    bar: Mutex<ProgressBar>,
}

impl Progress {
    /// Shown, if standard error is a terminal.
    #[must_use]
    pub fn shown() -> Self {
        Self { is_shown: true, bar: Mutex::new(ProgressBar::hidden()) }
    }

    /// For nobody.
    #[must_use]
    pub fn hidden() -> Self {
        Self { is_shown: false, bar: Mutex::new(ProgressBar::hidden()) }
    }

    /// Something begins of which there is so much to do.
    pub(super) fn begin(&self, what: &'static str, total: u64) {
        if !self.is_shown {
            return;
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
        if let Ok(style) = ProgressStyle::with_template("{msg:18} {bar:32} {human_pos}/{human_len} {eta}") {
            bar.set_style(style);
        }
        bar.set_message(what);
        *self.bar.lock() = bar;
    }

    /// So much more is done.
    pub(super) fn add(&self, done: u64) {
        self.bar.lock().inc(done);
    }

    /// It has ended.
    pub(super) fn end(&self) {
        self.bar.lock().finish_and_clear();
    }
}
