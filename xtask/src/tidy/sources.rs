//! The files that rules look at, read once.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::scan;

/// Folders that hold nothing of ours: what is built, and what a node keeps.
const FOREIGN: &[&str] = &["target", "data", "node_modules"];
/// Kinds of files that rules read.
const KINDS: &[&str] = &["rs", "proto", "sql", "md", "toml"];

/// One text file.
pub struct Source {
    /// Its path relative to the workspace, with `/`.
    pub path: String,
    /// Its text as it stands.
    pub text: String,
    /// For Rust: the text with comments and literals blanked, line for line and byte for byte. Otherwise empty.
    pub code: String,
    /// For Rust: for each line whether it belongs to tests.
    pub in_tests: Vec<bool>,
}

/// All text files of the workspace, in order of their paths.
pub struct Sources(pub Vec<Source>);

impl Sources {
    /// Reads the workspace.
    pub fn read(root: &Path) -> Result<Self> {
        let mut paths = Vec::new();
        walk(root, "", &mut paths)?;
        paths.sort();
        let read = |path: String| {
            let text = fs::read_to_string(root.join(&path)).with_context(|| format!("can't read {path}"))?;
            Ok(Source::new(path, text))
        };
        Ok(Self(paths.into_iter().map(read).collect::<Result<_>>()?))
    }

    /// Files whose name ends in `.kind`.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Source> {
        self.0.iter().filter(move |source| source.path.rsplit_once('.').is_some_and(|(_, end)| end == kind))
    }
}

impl Source {
    /// A file with its text.
    pub fn new(path: String, text: String) -> Self {
        let rust = path.ends_with(".rs");
        let code = if rust { scan::blank(&text) } else { String::new() };
        let in_tests = if rust { scan::test_lines(&code, is_test_file(&path)) } else { Vec::new() };
        Self { path, text, code, in_tests }
    }

    /// Whether a line, counted from 1, belongs to tests.
    pub fn is_test(&self, line: usize) -> bool {
        self.in_tests.get(line - 1).copied().unwrap_or(false)
    }
}

/// Whether a whole file is tests: `tests.rs` beside what it tests, anything below a `tests` folder, and the end-to-end crate.
fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("e2e/")
}

fn walk(root: &Path, folder: &str, paths: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(root.join(folder)).with_context(|| format!("can't list {folder}"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || FOREIGN.contains(&name.as_str()) {
            continue;
        }
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if entry.file_type()?.is_dir() {
            walk(root, &path, paths)?;
        } else if KINDS.iter().any(|kind| name.ends_with(&format!(".{kind}"))) {
            paths.push(path);
        }
    }
    Ok(())
}
