//! `cargo xtask tidy`: the rules of this project that no compiler and no linter knows.
//!
//! Each rule is one file here and says why it exists. All of them only read; nothing is rewritten. The same rules run as a test
//! (`xtask/tests/tidy.rs`), so plain `cargo test` keeps them too.

mod docs;
mod imports;
mod licences;
mod migrations;
mod scan;
mod sizes;
mod sources;
mod words;

use std::path::Path;

use anyhow::Result;

pub use imports::{CRATES, MODULES, Module};
use sources::Sources;

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// File, relative to the workspace.
    pub file: String,
    /// Line, counted from 1; 0 if it concerns the whole file.
    pub line: usize,
    /// What is wrong and what to do.
    pub what: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.what),
            line => write!(f, "{}:{line}: {}", self.file, self.what),
        }
    }
}

/// Checks the workspace and prints what is wrong; true if nothing is.
///
/// # Errors
/// A file can't be read, or cargo can't be asked about dependencies.
pub fn run() -> Result<bool> {
    let problems = problems(&crate::root())?;
    for problem in &problems {
        println!("{problem}");
    }
    println!(
        "tidy: {}",
        if problems.is_empty() { "all rules hold".to_owned() } else { format!("{} problems", problems.len()) }
    );
    Ok(problems.is_empty())
}

/// All that is wrong with the workspace at `root`.
///
/// # Errors
/// As for [`run`].
pub fn problems(root: &Path) -> Result<Vec<Problem>> {
    let sources = Sources::read(root)?;
    let mut problems = Vec::new();
    problems.extend(sizes::check(&sources));
    problems.extend(imports::check(root, &sources)?);
    problems.extend(words::check(&sources));
    problems.extend(docs::check(root, &sources));
    problems.extend(migrations::check(root)?);
    problems.extend(licences::check(root)?);
    problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    Ok(problems)
}
