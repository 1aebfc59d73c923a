//! Running other programs, with what they print shown as it comes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// What the tests of one command came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: usize,
    /// Names of the tests that failed.
    pub failed: Vec<String>,
    /// Tests that were not run.
    pub ignored: usize,
}

/// `cargo` as it was called, in the workspace's folder.
#[must_use]
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(crate::root());
    command
}

/// Runs a command to its end; true if it succeeded.
///
/// # Errors
/// It could not be started.
pub fn succeeds(command: &mut Command) -> Result<bool> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("can't start {command:?}"))?;
    Ok(status.success())
}

/// What a command prints, or `None` if it fails or does not exist.
#[must_use]
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs tests, shows their output and counts the results; true if the command succeeded.
///
/// # Errors
/// It could not be started, or its output not be read.
pub fn tests(command: &mut Command) -> Result<(bool, Tally)> {
    let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = started.with_context(|| format!("can't start {command:?}"))?;
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        let mut out = std::io::stdout().lock();
        for line in BufReader::new(stdout).lines() {
            let line = line.context("can't read the tests' output")?;
            tally.read(&line);
            writeln!(out, "{line}").context("can't show the tests' output")?;
        }
    }
    Ok((child.wait()?.success(), tally))
}

impl Tally {
    /// Takes note of one line of the test harness.
    fn read(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failed.push(name.to_owned());
        }
        if let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) {
            for count in counts.split("; ") {
                match count.split_once(' ') {
                    Some((n, "passed")) => self.passed += n.parse().unwrap_or(0),
                    Some((n, "ignored")) => self.ignored += n.parse().unwrap_or(0),
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn results_add_up_over_several_programs() {
        let mut tally = Tally::default();
        for line in [
            "test accounts::a_name_is_taken ... ok",
            "test streams::a_gap_is_repaired ... FAILED",
            "test result: FAILED. 4 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.1s",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            tally.read(line);
        }
        let failed = vec!["streams::a_gap_is_repaired".to_owned()];
        assert_eq!(tally, Tally { passed: 7, failed, ignored: 2 });
    }
}
