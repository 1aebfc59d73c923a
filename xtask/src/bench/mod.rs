//! `cargo xtask bench`: runs the measurements one after the other and writes their tables into docs/PERFORMANCE.md.
//!
//! In reading order: [`set`] (what is measured, and with which arguments), [`run`] (one measurement's commands, each with its log and its
//! JSON in target/bench), [`tables`] (from JSON to rows), [`criterion`] and [`k6`] (the two that are no `martlet-load`), [`table`] (Markdown),
//! [`document`] (the places in the document that are written by it), [`machine`] (on what it ran).
//!
//! A measurement that fails is recorded as failed, with its reason, and the others go on.

mod criterion;
mod document;
mod json;
mod k6;
mod machine;
mod run;
mod set;
mod table;
mod tables;

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    process::{cargo, output, succeeds},
    tools,
    up::target_folder,
};
use run::Run;
use set::{Measurement, SET};

/// Where the tables are.
const DOCUMENT: &str = "docs/PERFORMANCE.md";
/// The place of the machine's facts in it.
const MACHINE: &str = "machine";

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which measurements; all if none is named.
    pub names: Vec<String>,
    /// Smaller and shorter ones, to see that everything works. Their figures mean nothing, so the document stays as it is.
    pub quick: bool,
    /// The document stays as it is.
    pub keep: bool,
}

/// Runs what is asked for; true if nothing failed.
///
/// # Errors
/// For names that are none, and when it can't begin: something does not build or is missing, or the document has no place for a table.
pub fn run(options: &Options) -> Result<bool> {
    let chosen = set::choose(&options.names)?;
    let document = crate::root().join(DOCUMENT);
    let text = fs::read_to_string(&document).with_context(|| format!("can't read {DOCUMENT}"))?;
    // Found out before hours of measuring.
    document::check(&text, &places())?;
    tools::install_for_bench(&chosen.iter().filter_map(|measurement| measurement.needs).collect::<Vec<_>>())?;
    if chosen.iter().any(|measurement| measurement.name != "criterion") {
        let build = ["build", "--release", "-p", "martlet", "-p", "martlet-loadtest"];
        ensure!(succeeds(&mut cargo(&build))?, "the node or the load generator does not build");
    }
    let run = Run { programs: target_folder()?.join("release"), folder: new_folder()?, quick: options.quick };
    println!("results go to {}", run.folder.display());
    let facts = machine::facts(&run.folder)?;
    let mut sections = BTreeMap::from([(MACHINE, format!("Of the last run, {}.\n\n{}", stamp(), facts.markdown()))]);
    let mut failed = Vec::new();
    for (at, measurement) in chosen.iter().enumerate() {
        let (section, is_good) = one(&run, measurement, (at + 1, chosen.len()));
        if !is_good {
            failed.push(measurement.name);
        }
        println!("{section}\n");
        sections.insert(measurement.name, section);
        // After each, so that what was measured is there if the next one takes the machine down.
        let text = document::fill(&text, &places(), &sections)?;
        fs::write(run.folder.join("PERFORMANCE.md"), &text)?;
        if !options.keep && !options.quick {
            fs::write(&document, &text).with_context(|| format!("can't write {DOCUMENT}"))?;
        }
    }
    match failed.as_slice() {
        [] => println!("{} measurements, none failed", chosen.len()),
        failed => println!("failed: {}", failed.join(", ")),
    }
    Ok(failed.is_empty())
}

/// One measurement: its section of the document, and whether it went well.
#[expect(clippy::disallowed_methods, reason = "how long it took is what the operator wants to know")]
fn one(run: &Run, measurement: &Measurement, (number, of): (usize, usize)) -> (String, bool) {
    println!("[{number}/{of}] {}: {}", measurement.name, measurement.what);
    let began = Instant::now();
    let outcome = run.take(measurement);
    let took = whole_seconds(began.elapsed());
    let head = format!("{}{}.", stamp(), if run.quick { ", quick: no measure of anything" } else { "" });
    match outcome {
        Ok(taken) if taken.unclean.is_empty() => {
            println!("[{number}/{of}] {}: done in {took} s", measurement.name);
            (format!("{head}\n\n{}", taken.table.markdown()), true)
        }
        Ok(taken) => {
            let why = taken.unclean.join("; ");
            println!("[{number}/{of}] {}: NOT CLEAN after {took} s: {why}", measurement.name);
            (format!("{head}\n\n**Not clean**: {}\n\n{}", one_line(&why), taken.table.markdown()), false)
        }
        Err(error) => {
            println!("[{number}/{of}] {}: FAILED after {took} s: {error:#}", measurement.name);
            (format!("{head}\n\n**Failed**: {}", one_line(&format!("{error:#}"))), false)
        }
    }
}

/// A reason as it can stand in a document: without line breaks, and without what would be read as a table or a comment.
fn one_line(text: &str) -> String {
    let text = text.replace("<!--", "").replace('|', "/");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_secs()
}

/// All that the document has a place for.
fn places() -> Vec<&'static str> {
    [MACHINE].into_iter().chain(SET.iter().map(|measurement| measurement.name)).collect()
}

/// Day and commit.
fn stamp() -> String {
    let git = |arguments: &[&str]| output(std::process::Command::new("git").args(arguments).current_dir(crate::root()));
    let commit = git(&["rev-parse", "--short", "HEAD"]).map_or_else(|| "unknown".to_owned(), |id| id.trim().to_owned());
    // The tables of those before are no change to what is measured.
    let but_tables = format!(":(exclude){DOCUMENT}");
    let is_changed = git(&["status", "--porcelain", "--untracked-files=no", "--", ".", &but_tables])
        .is_some_and(|status| !status.trim().is_empty());
    let changed = if is_changed { " with changes" } else { "" };
    format!("{}, commit {commit}{changed}", date("%Y-%m-%d").unwrap_or_else(|| "on an unknown day".into()))
}

/// The moment, as the system's own program writes it: this one has no calendar.
fn date(format: &str) -> Option<String> {
    output(std::process::Command::new("date").args(["-u", &format!("+{format}")])).map(|text| text.trim().to_owned())
}

fn new_folder() -> Result<PathBuf> {
    let Some(name) = date("%Y-%m-%d-%H%M%S") else { bail!("`date` does not say what time it is") };
    let folder = target_folder()?.join("bench").join(name);
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_stays_in_its_line() {
        assert_eq!(one_line("a\n  b | c <!-- /bench:idle -->"), "a b / c /bench:idle -->");
    }

    #[test]
    fn the_document_has_a_place_for_every_table() {
        let text = fs::read_to_string(crate::root().join(DOCUMENT)).expect("it is there");
        document::check(&text, &places()).expect("all places are there, and no others");
    }
}
