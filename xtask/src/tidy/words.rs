//! One word for one thing, and a few phrases that have no place in what ships.
//!
//! The project's words (README.md lists them) are used everywhere: a reader who knows what a mailbox is never wonders what an inbox is.

use super::Problem;
use super::scan;
use super::sources::{Source, Sources};

/// Words in identifiers that name something for which the project has a word. They are matched as parts of snake_case names and
/// CamelCase names alike.
const SYNONYMS: &[(&str, &str)] = &[
    ("room_id", "conversation_id"),
    ("rooms", "conversations"),
    ("participant", "member"),
    ("broker", "relay"),
    ("bookmark", "cursor"),
    ("watermark", "cursor or head"),
    ("tombstone", "gap marker"),
    ("guild", "conversation"),
    ("user_id", "account_id"),
    ("chat_id", "conversation_id"),
    ("group_id", "conversation_id"),
];

/// Words that are two for the same reason, but only stand in texts.
const PHRASES: &[(&str, &str)] =
    &[("chat room", "conversation"), ("fan-out service", "node"), ("participants", "members")];

/// Code that must not ship, and what to write instead.
const CODE: &[(&str, &str)] = &[
    (concat!(".unwrap", "()"), "a typed error, or expect with the reason why it can't fail"),
    ("#[allow(", "#[expect(.., reason = \"..\")]"),
    ("todo!(", "the code"),
    ("dbg!(", "tracing"),
    ("unimplemented!(", "the code"),
];

/// Synonyms, forbidden code and missing module documentation.
pub fn check(sources: &Sources) -> Vec<Problem> {
    let mut problems = Vec::new();
    for source in sources.of_kind("rs") {
        // The rules themselves must spell what they forbid.
        if source.path.starts_with("xtask/src/tidy/") {
            continue;
        }
        problems.extend(synonyms(source));
        problems.extend(forbidden_code(source));
        problems.extend(module_docs(source));
    }
    for source in ["md", "proto", "sql"].iter().flat_map(|kind| sources.of_kind(kind)) {
        problems.extend(phrases(source));
    }
    problems
}

fn synonyms(source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (offset, word) in scan::words(&source.code) {
        let snake = snake(word);
        // A test's own cast may have other names; what ships may not.
        let line = scan::line_at(&source.code, offset);
        if source.is_test(line) {
            continue;
        }
        let hit = SYNONYMS.iter().find(|(forbidden, _)| format!("_{snake}_").contains(&format!("_{forbidden}_")));
        if let Some((forbidden, instead)) = hit {
            let what = format!("{word}: say {instead}, not {forbidden}");
            problems.push(Problem { file: source.path.clone(), line, what });
        }
    }
    problems
}

/// `GapMarker`, `GAP_MARKER` and `gap_marker` alike as `gap_marker`.
fn snake(word: &str) -> String {
    let camel = word.contains(char::is_lowercase);
    let mut out = String::new();
    for c in word.chars() {
        if camel && c.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

fn forbidden_code(source: &Source) -> Vec<Problem> {
    if !source.path.contains("/src/") {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for (at, text) in source.text.lines().enumerate() {
        let line = at + 1;
        if source.is_test(line) {
            continue;
        }
        for (code, instead) in CODE.iter().filter(|(code, _)| text.contains(code)) {
            let what = format!("{code} in code that ships, comments included; write {instead}");
            problems.push(Problem { file: source.path.clone(), line, what });
        }
    }
    problems
}

fn module_docs(source: &Source) -> Option<Problem> {
    let documented = source.text.starts_with("//!");
    let what = "a file opens with //! and its purpose, and what it does not do".to_owned();
    (!documented).then(|| Problem { file: source.path.clone(), line: 1, what })
}

fn phrases(source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (at, text) in source.text.lines().enumerate() {
        let lower = text.to_lowercase();
        for (phrase, instead) in PHRASES.iter().filter(|(phrase, _)| lower.contains(phrase)) {
            let what = format!("say {instead}, not {phrase}");
            problems.push(Problem { file: source.path.clone(), line: at + 1, what });
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("backend/src/x.rs".into(), text.into())
    }

    #[test]
    fn a_synonym_is_found_in_every_way_of_writing() {
        for name in ["rooms", "ROOM_ID", "OpenRoomId", "user_id", "UserId"] {
            assert_eq!(synonyms(&source(&format!("//! x\nlet {name} = 1;"))).len(), 1, "{name}");
        }
        for name in ["mushrooms", "room", "account_id", "\"rooms\"", "// rooms"] {
            assert_eq!(synonyms(&source(&format!("let x = {name};"))), [], "{name}");
        }
    }

    #[test]
    fn unwrap_is_for_tests() {
        assert_eq!(forbidden_code(&source("fn f() {\n    x.unwrap();\n}\n"))[0].line, 2);
        assert_eq!(forbidden_code(&source("#[cfg(test)]\nmod tests {\n    fn f() { x.unwrap(); }\n}\n")), []);
    }

    #[test]
    fn a_file_says_what_it_is_for() {
        assert_eq!(module_docs(&source("//! Purpose.\n")), None);
        assert!(module_docs(&source("use x;\n")).is_some());
    }
}
