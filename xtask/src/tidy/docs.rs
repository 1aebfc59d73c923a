//! Documents tell the truth as far as a program can tell: links and anchors resolve, and paths that are named exist.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::Problem;
use super::sources::{Source, Sources};

/// A name in backticks that begins with one of these is a path and must exist.
const FOLDERS: &[&str] = &[
    "protocol/",
    "storage/",
    "migrations/",
    "backend/",
    "client/",
    "loadtest/",
    "servers/",
    "e2e/",
    "nginx/",
    "xtask/",
    "docs/",
    ".ci/",
];

/// Links that lead nowhere, and paths that don't exist.
pub fn check(root: &Path, sources: &Sources) -> Vec<Problem> {
    let documents: Vec<&Source> = sources.of_kind("md").collect();
    let mut problems = Vec::new();
    for source in &documents {
        for (line, target) in links(&source.text) {
            if let Some(what) = broken(root, &documents, source, &target) {
                problems.push(Problem { file: source.path.clone(), line, what });
            }
        }
        // The changelog speaks of the past.
        if source.path != "CHANGELOG.md" {
            problems.extend(missing_paths(root, source));
        }
    }
    problems
}

/// Rows that a document must contain and doesn't.
pub fn shows(sources: &Sources, document: &str, rows: &[String]) -> Vec<Problem> {
    let text = sources.0.iter().find(|source| source.path == document).map_or("", |source| &source.text);
    let present: BTreeSet<&str> = text.lines().map(str::trim).collect();
    let problem = |row: &String| Problem {
        file: document.to_owned(),
        line: 0,
        what: format!("the table of xtask/src/tidy/imports.rs has changed; this row is missing: {row}"),
    };
    rows.iter().filter(|row| !present.contains(row.as_str())).map(problem).collect()
}

/// The lines of a document with their numbers from 1, without those in fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((at + 1, line))
    })
}

fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        for (at, _) in line.match_indices("](") {
            let target = line[at + 2..].split([')', ' ']).next().unwrap_or_default();
            found.push((number, target.to_owned()));
        }
    }
    found
}

/// What is wrong with a link, if anything is. Links to other sites are not followed: a test must not need the network.
fn broken(root: &Path, documents: &[&Source], source: &Source, target: &str) -> Option<String> {
    if target.starts_with("https://") || target.starts_with("http://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let path = if file.is_empty() { source.path.clone() } else { relative(&source.path, file) };
    if !root.join(&path).exists() {
        return Some(format!("the link {target} leads to {path}, which does not exist"));
    }
    let text = documents.iter().find(|document| document.path == path).map(|document| &document.text);
    match (anchor, text) {
        (Some(anchor), Some(text)) if !anchors(text).contains(anchor) => {
            Some(format!("the link {target} leads to a heading that does not exist"))
        }
        _ => None,
    }
}

fn relative(from: &str, to: &str) -> String {
    let mut path = PathBuf::from(from);
    path.pop();
    for part in Path::new(to).components() {
        match part {
            Component::ParentDir => _ = path.pop(),
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path.to_string_lossy().into_owned()
}

/// The anchors that a document's headings get: lower case, words joined by hyphens, other characters left out.
fn anchors(text: &str) -> BTreeSet<String> {
    let heading = |(_, line): (usize, &str)| {
        line.strip_prefix('#').map(|rest| rest.trim_start_matches('#').trim().to_lowercase())
    };
    let anchor = |title: String| {
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    prose(text).filter_map(heading).map(anchor).collect()
}

fn missing_paths(root: &Path, source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (line, text) in prose(&source.text) {
        for name in text.split('`').skip(1).step_by(2) {
            let ours = FOLDERS.iter().any(|folder| name.starts_with(folder));
            let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            if ours && plain && !root.join(name).exists() {
                let what = format!("`{name}` does not exist");
                problems.push(Problem { file: source.path.clone(), line, what });
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(path: &str, text: &str) -> Source {
        Source::new(path.into(), text.into())
    }

    #[test]
    fn links_are_followed_within_the_project() {
        let root = crate::root();
        let one = document("docs/ONE.md", "# The first: part `x`\n```\n[not](a-link)\n```\n");
        let two = document("docs/TWO.md", "");
        let broken = |target: &str| broken(&root, &[&one, &two], &two, target);
        assert_eq!(broken("../Cargo.toml"), None);
        assert_eq!(broken("https://example.org/nowhere"), None);
        assert!(broken("../no-such-file.md").is_some());
        assert_eq!(links(&one.text), []);
        assert!(anchors(&one.text).contains("the-first-part-x"));
    }

    #[test]
    fn a_named_path_exists() {
        let source = document("README.md", "see `xtask/src/lib.rs`, `xtask/src/nothing.rs` and `xtask/<name>`");
        let found = missing_paths(&crate::root(), &source);
        assert_eq!(
            found.iter().map(|problem| problem.what.as_str()).collect::<Vec<_>>(),
            ["`xtask/src/nothing.rs` does not exist"]
        );
    }

    #[test]
    fn missing_rows_are_named() {
        let sources = Sources(vec![document("A.md", "| a |\n| b |\n")]);
        assert_eq!(shows(&sources, "A.md", &["| b |".into(), "| c |".into()]).len(), 1);
    }
}
