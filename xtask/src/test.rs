//! `cargo xtask test`: everything that must hold before a change goes in, in one run with one summary.
//!
//! A failing step doesn't stop the others: on a slow machine it is worth knowing all that is wrong.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::process::{Tally, cargo, succeeds, tests};
use crate::{PROFILE, nemesis, tidy, tools};

/// A minute of faults, its summary printed.
const NEMESIS: [&str; 3] = ["--seconds", "60", "--quiet"];

/// What came of one step.
struct Step {
    name: &'static str,
    took: Duration,
    outcome: Outcome,
}

enum Outcome {
    /// A check: it holds or not.
    Check(bool),
    /// Tests, and whether the command as a whole succeeded.
    Tests(bool, Tally),
    /// Not run, and why.
    Skipped(&'static str),
}

/// Runs all steps; true if nothing failed.
///
/// # Errors
/// A tool is missing or can't be started.
pub fn run(quick: bool) -> Result<bool> {
    if !quick {
        tools::install()?;
    }
    let mut steps = vec![
        step("format", || check(&["fmt", "--all", "--check"]))?,
        step("tidy", || Ok(Outcome::Check(tidy::run()?)))?,
    ];
    if quick {
        steps.push(step("lints", || check(&["clippy", "--workspace", "--lib", "--bins", "--", "-D", "warnings"]))?);
        steps.push(step("tests", || count(&["test", "--workspace", "--lib", "--bins", "--no-fail-fast"]))?);
    } else {
        let lints = ["clippy", "--workspace", "--all-targets", "--profile", PROFILE, "--", "-D", "warnings"];
        steps.push(step("lints", || check(&lints))?);
        steps.push(step("dependencies", dependencies)?);
        // Programs first: end-to-end tests start them from beside their own executable.
        let targets = ["--workspace", "--lib", "--bins", "--tests", "--profile", PROFILE];
        steps.push(step("build", || check(&[&["build"], targets.as_slice()].concat()))?);
        steps.push(step("tests", || count(&[&["test", "--no-fail-fast"], targets.as_slice()].concat()))?);
        steps.push(step("nemesis", || Ok(Outcome::Check(nemesis::start(&NEMESIS.map(str::to_owned))?)))?);
        steps.push(step("doc tests", || count(&["test", "--workspace", "--doc", "--profile", PROFILE]))?);
    }
    Ok(summarise(&steps))
}

#[expect(clippy::disallowed_methods, reason = "how long a step takes is what the contributor wants to know")]
fn step(name: &'static str, run: impl FnOnce() -> Result<Outcome>) -> Result<Step> {
    println!("\n== {name}");
    let start = Instant::now();
    let outcome = run()?;
    Ok(Step { name, took: start.elapsed(), outcome })
}

fn check(arguments: &[&str]) -> Result<Outcome> {
    Ok(Outcome::Check(succeeds(&mut cargo(arguments))?))
}

fn count(arguments: &[&str]) -> Result<Outcome> {
    let (succeeded, tally) = tests(&mut cargo(arguments))?;
    Ok(Outcome::Tests(succeeded, tally))
}

/// Advisories, licences and sources, where cargo-deny is installed. Licences alone are always checked, by `tidy`.
fn dependencies() -> Result<Outcome> {
    if !tools::on_path("cargo-deny") {
        return Ok(Outcome::Skipped("cargo-deny is missing; to have it: cargo install --locked cargo-deny"));
    }
    check(&["deny", "check"])
}

fn summarise(steps: &[Step]) -> bool {
    println!("\n== summary");
    let (mut passed, mut failed) = (0, 0);
    for Step { name, took, outcome } in steps {
        let (good, bad, note) = match outcome {
            Outcome::Check(true) => (1, 0, "ok".to_owned()),
            Outcome::Check(false) => (0, 1, "FAILED".to_owned()),
            Outcome::Skipped(why) => (0, 0, format!("skipped: {why}")),
            Outcome::Tests(succeeded, tally) => counted(*succeeded, tally),
        };
        println!("{name:<14}{:>6} s   {note}", took.as_secs());
        passed += good;
        failed += bad;
    }
    for Step { outcome, .. } in steps {
        if let Outcome::Tests(_, tally) = outcome {
            tally.failed.iter().for_each(|name| println!("failed: {name}"));
        }
    }
    println!("{passed} passed, {failed} failed");
    failed == 0
}

/// Passed, failed, and a note. A command that fails without naming a test (it did not build, or it crashed) is one failure.
fn counted(succeeded: bool, tally: &Tally) -> (usize, usize, String) {
    let failed = if succeeded { 0 } else { tally.failed.len().max(1) };
    let ignored = if tally.ignored == 0 { String::new() } else { format!(", {} ignored", tally.ignored) };
    (tally.passed, failed, format!("{} passed, {failed} failed{ignored}", tally.passed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_counts_as_a_failure() {
        let tally = Tally { passed: 3, ..Tally::default() };
        assert_eq!(counted(false, &tally).1, 1);
        assert_eq!(counted(true, &tally), (3, 0, "3 passed, 0 failed".to_owned()));
    }
}
