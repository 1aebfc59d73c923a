//! Imports run one way, between crates and inside the node. The two tables here are the rule; docs/ARCHITECTURE.md shows them.
//!
//! Why: the send path stays readable because nothing below calls back up. What is below can be tested without what is above, and the
//! relay can't learn what it carries because it has no way to name it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::scan;
use super::sources::{Source, Sources};
use super::{Problem, docs};

/// A crate or module, what it may import, and why not more.
pub struct Module {
    /// Its name.
    pub name: &'static str,
    /// What it may import.
    pub uses: &'static [&'static str],
    /// What it is, in the words of the table in the documents.
    pub is: &'static str,
}

const fn module(name: &'static str, uses: &'static [&'static str], is: &'static str) -> Module {
    Module { name, uses, is }
}

/// The crates of the workspace, lowest first, and which of each other they may build on. Tests may use any.
pub const CRATES: &[Module] = &[
    module("protocol", &[], "wire schema, ids, error codes, cryptography; no I/O"),
    module("storage", &["protocol"], "the store"),
    module("backend", &["protocol", "storage"], "the node"),
    module("client", &["protocol"], "SDK and messenger"),
    module("servers", &[], "real PostgreSQL, Redis and nginx for tests, measurements and `cargo xtask`"),
    module("loadtest", &["protocol", "client", "servers"], "load generator"),
    module("e2e", &["protocol", "storage", "backend", "client", "loadtest", "servers"], "tests over several processes"),
    module("xtask", &["servers"], "the project's own commands"),
];

/// What every module of the node may import, unless it is one of these: then those before it.
pub const BENEATH: &[&str] = &["config", "clock", "vital", "health", "secrets", "limits", "measures"];

/// The modules of the node, lowest first, and what each may import beside what is [`BENEATH`].
pub const MODULES: &[Module] = &[
    module("config", &[], "what an operator can set"),
    module("clock", &[], "time and randomness, which everything else takes as arguments"),
    module("vital", &[], "what must not end before the process does"),
    module("health", &[], "whether the node can do its work"),
    module("secrets", &[], "the keys that are kept outside the store"),
    module("limits", &[], "rates"),
    module("measures", &[], "what the node measures of itself"),
    module("listener", &[], "addresses, and room for those who wait there"),
    module("subscribers", &[], "who listens on this node, and what waits for each"),
    module("relay", &["subscribers"], "how nodes tell each other"),
    module("streams", &["relay", "subscribers"], "publish, resume, repair, acks, the control stream"),
    module("accounts", &["streams"], "accounts, devices, tokens, prekeys, links"),
    module("conversations", &["accounts", "streams"], "conversations and their signed membership"),
    module("messages", &["accounts", "conversations", "streams", "subscribers"], "fork, seal, commit"),
    module("services", &["accounts", "conversations", "messages", "streams"], "one handle on all of the above"),
    module("http", &["services", "accounts", "conversations", "messages", "streams"], "REST"),
    module(
        "transport",
        &["services", "accounts", "conversations", "messages", "streams", "subscribers"],
        "the devices' sockets",
    ),
    module("check", &["relay", "streams"], "what `martlet check` tests, and what is watched while the node runs"),
    module("transfer", &[], "`martlet export` and `martlet import`"),
    module(
        "server",
        &[
            "http",
            "listener",
            "transport",
            "services",
            "accounts",
            "conversations",
            "messages",
            "streams",
            "relay",
            "subscribers",
            "check",
        ],
        "puts the node together",
    ),
];

/// Words that code in a folder must not contain, and why.
const ABSENT: &[(&str, &[&str], &str)] = &[
    ("protocol/src/", &["tokio", "std::fs", "std::net", "std::process"], "protocol does no I/O"),
    ("backend/src/", &["diesel"], "queries live under storage/src/db"),
    ("backend/src/", &["env::var("], "settings come through config, where they are documented, checked and shown"),
    (
        "backend/src/subscribers/",
        &["actix_web", "actix_http"],
        "subscribers know no HTTP, so that any transport can use them",
    ),
    ("backend/src/relay/", &["actix_web", "actix_http"], "the relay knows no HTTP"),
    ("client/src/", &["actix_web", "actix_http", "diesel"], "the SDK carries no server"),
];

/// Imports that run the wrong way, and documents that tell another story.
pub fn check(root: &Path, sources: &Sources) -> Result<Vec<Problem>> {
    let mut problems = crates(root)?;
    for source in sources.of_kind("rs") {
        problems.extend(modules(source));
        problems.extend(absent(source));
    }
    problems.extend(docs::shows(sources, "docs/ARCHITECTURE.md", &table()));
    Ok(problems)
}

/// The rows that docs/ARCHITECTURE.md must contain.
pub fn table() -> Vec<String> {
    let row = |module: &Module| {
        let uses: Vec<_> = module.uses.iter().map(|name| format!("`{name}`")).collect();
        let uses = if uses.is_empty() { "nothing".to_owned() } else { uses.join(", ") };
        format!("| `{}` | {} | {uses} |", module.name, module.is)
    };
    CRATES.iter().chain(MODULES).map(row).collect()
}

fn crates(root: &Path) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for module in CRATES {
        let file = format!("{}/Cargo.toml", module.name);
        let text = fs::read_to_string(root.join(&file)).with_context(|| format!("can't read {file}"))?;
        let manifest: toml::Table = text.parse().with_context(|| format!("{file} is no TOML"))?;
        let Some(dependencies) = manifest.get("dependencies").and_then(toml::Value::as_table) else { continue };
        for name in dependencies.keys() {
            let ours = if name == "martlet" { Some("backend") } else { name.strip_prefix("martlet-") };
            if let Some(other) = ours.filter(|other| !module.uses.contains(other)) {
                let what = format!("{} must not build on {other}: imports between crates run one way", module.name);
                problems.push(Problem { file: file.clone(), line: 0, what });
            }
        }
    }
    Ok(problems)
}

fn modules(source: &Source) -> Vec<Problem> {
    let Some(inside) = source.path.strip_prefix("backend/src/") else { return Vec::new() };
    let own = inside.split(['/', '.']).next().unwrap_or_default();
    if matches!(own, "lib" | "main" | "bin") {
        return Vec::new();
    }
    let Some(module) = MODULES.iter().find(|module| module.name == own) else {
        let what =
            format!("the module {own} is not in the table of xtask/src/tidy/imports.rs; say there what it may import");
        return vec![Problem { file: source.path.clone(), line: 0, what }];
    };
    let beneath = BENEATH.iter().position(|name| *name == own).map_or(BENEATH, |at| &BENEATH[..at]);
    let mut problems = Vec::new();
    for (offset, other) in imports(&source.code) {
        let line = scan::line_at(&source.code, offset);
        let fine = other == own || module.uses.contains(&other) || beneath.contains(&other);
        let known = MODULES.iter().any(|module| module.name == other);
        if known && !fine && !source.is_test(line) {
            let what = format!("{own} must not import {other}: imports run one way");
            problems.push(Problem { file: source.path.clone(), line, what });
        }
    }
    problems
}

/// The top-level modules that code names: after `crate::`, alone or in braces.
fn imports(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (at, marker) in code.match_indices("crate::") {
        let start = at + marker.len();
        if let Some(group) = code[start..].strip_prefix('{') {
            found.extend(heads(group).into_iter().map(|(offset, name)| (start + 1 + offset, name)));
        } else if let Some((offset, name)) = scan::words(&code[start..]).next().filter(|(offset, _)| *offset == 0) {
            found.push((start + offset, name));
        }
    }
    found
}

/// The first word of each part of a braced import, up to its closing brace.
fn heads(group: &str) -> Vec<(usize, &str)> {
    let (mut found, mut depth, mut fresh) = (Vec::new(), 0_usize, true);
    for (offset, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => break,
            b'}' => depth -= 1,
            b',' if depth == 0 => fresh = true,
            byte if fresh && depth == 0 && !byte.is_ascii_whitespace() => {
                fresh = false;
                found.extend(scan::words(&group[offset..]).next().map(|(at, name)| (offset + at, name)));
            }
            _ => {}
        }
    }
    found
}

fn absent(source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (folder, words, why) in ABSENT {
        if !source.path.starts_with(folder) {
            continue;
        }
        let seen: BTreeSet<_> = words.iter().flat_map(|word| source.code.match_indices(word)).collect();
        for (offset, word) in seen {
            let line = scan::line_at(&source.code, offset);
            if !source.is_test(line) {
                problems.push(Problem { file: source.path.clone(), line, what: format!("{word}: {why}") });
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(path: &str, text: &str) -> Vec<String> {
        modules(&Source::new(path.into(), text.into())).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_import_up_the_table_is_found_however_it_is_written() {
        let wrong = [
            "use crate::messages::Messages;",
            "use crate::{clock::Clock, messages::{A, B}};",
            "fn f() { crate::messages::f() }",
        ];
        for text in wrong {
            let found = problems_of("backend/src/relay/mod.rs", text);
            assert_eq!(
                found,
                ["backend/src/relay/mod.rs:1: relay must not import messages: imports run one way"],
                "{text}"
            );
        }
    }

    #[test]
    fn imports_down_the_table_and_in_tests_are_fine() {
        let fine = [
            "use crate::{clock::Clock, config, subscribers::Subscribers};",
            "// use crate::messages;\nuse crate::relay::x;",
            "#[cfg(test)]\nmod tests {\n    use crate::messages;\n}",
        ];
        for text in fine {
            assert_eq!(problems_of("backend/src/relay/mod.rs", text), [""; 0], "{text}");
        }
    }

    #[test]
    fn nothing_imports_the_server() {
        assert!(MODULES.iter().all(|module| !module.uses.contains(&"server")));
    }

    #[test]
    fn the_tables_run_one_way() {
        for table in [CRATES, MODULES] {
            for (at, module) in table.iter().enumerate() {
                for used in module.uses {
                    assert!(table[..at].iter().any(|below| below.name == *used), "{} uses {used}", module.name);
                }
            }
        }
    }
}
