//! Any other program under the same watch as the servers: it ends with its value, and with this process.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use anyhow::Result;
use rustix::process::Signal;

use crate::{
    folders,
    process::{Launch, Process},
};

/// A running program.
pub struct Program {
    process: Process,
    log: PathBuf,
}

impl Program {
    /// Starts a program in a folder, which is made if it isn't there. What it prints goes to `log`, after what is there. It is one that
    /// SIGTERM ends.
    ///
    /// # Errors
    /// It can't be started. That it ends at once is for [`Self::status`] to tell.
    pub fn start(
        name: &'static str,
        program: &Path,
        arguments: Vec<OsString>,
        folder: &Path,
        log: &Path,
    ) -> Result<Self> {
        let launch = Launch {
            name,
            program: program.to_owned(),
            arguments,
            folder: folders::make(folder, None)?,
            log: log.to_owned(),
            user: None,
            end: Signal::TERM,
            remove: None,
        };
        Ok(Self { process: Process::start(&launch)?, log: log.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The system can't say.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        self.process.status()
    }

    /// SIGTERM, without waiting.
    ///
    /// # Errors
    /// The system refuses.
    pub fn ask_to_stop(&mut self) -> Result<()> {
        self.process.signal(Signal::TERM)
    }

    /// SIGKILL; returns once it is gone.
    ///
    /// # Errors
    /// The system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }
}
