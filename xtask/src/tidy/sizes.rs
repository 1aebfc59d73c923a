//! Files under 400 lines and functions of at most 70: what a reader can hold in mind, and the point at which a part deserves a name of
//! its own. Split where such a part is, not in halves.

use super::Problem;
use super::scan;
use super::sources::{Source, Sources};

/// A file has fewer lines than this.
const FILE_LINES: usize = 400;
/// A function has at most as many, from its `fn` to its closing brace.
const FUNCTION_LINES: usize = 70;

/// Files and functions that are too long.
pub fn check(sources: &Sources) -> Vec<Problem> {
    let kinds = ["rs", "proto", "sql"];
    let files = kinds.iter().flat_map(|kind| sources.of_kind(kind)).filter_map(long_file);
    files.chain(sources.of_kind("rs").flat_map(long_functions)).collect()
}

fn long_file(source: &Source) -> Option<Problem> {
    let lines = source.text.lines().count();
    let what = format!("{lines} lines; a file has fewer than {FILE_LINES}: give a part of it a name and a file");
    (lines >= FILE_LINES).then(|| Problem { file: source.path.clone(), line: 0, what })
}

fn long_functions(source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, from, to) in scan::functions(&source.code) {
        let (first, last) = (scan::line_at(&source.code, from), scan::line_at(&source.code, to - 1));
        let lines = last - first + 1;
        if lines > FUNCTION_LINES {
            let what = format!("fn {name} has {lines} lines; a function has at most {FUNCTION_LINES}: name its steps");
            problems.push(Problem { file: source.path.clone(), line: first, what });
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_found_and_named() {
        let body = "    step();\n".repeat(69);
        let source = Source::new("backend/src/x.rs".into(), format!("fn short() {{}}\n\nfn long() {{\n{body}}}\n"));
        let problems = long_functions(&source);
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].line, 3);
        assert!(problems[0].what.starts_with("fn long has 71 lines"), "{}", problems[0]);
        assert_eq!(long_file(&source), None);
        assert!(long_file(&Source::new("a.sql".into(), "select 1;\n".repeat(400))).is_some());
    }
}
