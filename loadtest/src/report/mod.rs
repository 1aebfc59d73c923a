//! What becomes of a result: text, JSON in an envelope that says where and how it was taken, and a page of such files.
//!
//! In reading order: [`envelope`] (what stands around every result), [`outcomes`] (what each measurement says of its own), [`tree`] (JSON as it is read, in its order), [`taken`] (what a page
//! shows of one result: figures, curves, memory, shares), [`plot`] (curves as SVG), [`page`] (the HTML). It knows no measurement by name:
//! what has percentiles is a latency, what has connections and resident bytes is memory, and so on, so that further ones are shown, too.

mod envelope;
mod outcomes;
mod page;
mod plot;
mod taken;
mod tree;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

pub use envelope::{Envelope, Machine};
use taken::Taken;

use crate::{
    ambient,
    cli::{NodeArgs, ReportArgs},
};

/// What a measurement found.
pub trait Outcome: Serialize {
    /// The command that takes it.
    fn measurement(&self) -> &'static str;
    /// The figures, for people and for `grep`.
    fn text(&self) -> String;
    /// Nothing was refused, lost or repeated.
    fn is_clean(&self) -> bool;
    /// Whether its latencies count from the moment at which something was due, so that what waits behind something slow counts as slow,
    /// too. Nothing where no latency is measured.
    fn is_corrected(&self) -> Option<bool>;
}

/// Prints a result, writes the files that were asked for, and tells whether it is clean.
///
/// # Errors
/// When a file can't be written.
pub fn conclude(node: &NodeArgs, outcome: &impl Outcome) -> Result<bool> {
    print!("{}", outcome.text());
    if node.json.is_some() || node.html.is_some() {
        let envelope = Envelope::new(outcome, node, ambient::unix_ms())?;
        let json = serde_json::to_string_pretty(&envelope)? + "\n";
        if let Some(file) = &node.json {
            write(file, &json)?;
        }
        if let Some(file) = &node.html {
            let taken = Taken::read("this run", &json)?;
            write(file, &page::page(&[taken])?)?;
        }
    }
    Ok(outcome.is_clean())
}

/// Makes a page of results.
///
/// # Errors
/// When a file can't be read or written, or is no result.
pub fn run(args: &ReportArgs) -> Result<()> {
    ensure!(!args.results.is_empty(), "give at least one result");
    let read = |file: &std::path::PathBuf| {
        let text = fs::read_to_string(file).with_context(|| format!("{} can't be read", file.display()))?;
        let name = file.file_stem().unwrap_or(file.as_os_str()).to_string_lossy();
        Taken::read(&name, &text).with_context(|| format!("{} is no result", file.display()))
    };
    let taken = args.results.iter().map(read).collect::<Result<Vec<_>>>()?;
    write(&args.out, &page::page(&taken)?)
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("{} can't be written", file.display()))
}

#[cfg(test)]
mod tests;
