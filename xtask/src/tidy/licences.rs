//! Every dependency has a licence that deny.toml allows. cargo-deny checks this and more; this check needs nothing installed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Problem;
use crate::process::{cargo, output};

/// Dependencies with a licence that isn't allowed.
pub fn check(root: &Path) -> Result<Vec<Problem>> {
    let allowed = allowed(&fs::read_to_string(root.join("deny.toml")).context("can't read deny.toml")?)?;
    let arguments = ["metadata", "--format-version", "1", "--locked"];
    // The network is tried second: a machine that has built the workspace has all that is needed.
    let metadata = output(cargo(&arguments).arg("--offline")).or_else(|| output(&mut cargo(&arguments)));
    let Some(metadata) = metadata else {
        let what = "does not fit the manifests: run cargo metadata and commit it".to_owned();
        return Ok(vec![Problem { file: "Cargo.lock".to_owned(), line: 0, what }]);
    };
    let metadata: Value = serde_json::from_str(&metadata).context("cargo's metadata is unreadable")?;
    let packages = metadata["packages"].as_array().context("cargo names no packages")?;
    Ok(packages.iter().filter_map(|package| refused(package, &allowed)).collect())
}

fn allowed(text: &str) -> Result<BTreeSet<String>> {
    let file: toml::Table = text.parse().context("deny.toml is no TOML")?;
    let list = file.get("licenses").and_then(|section| section.get("allow")).and_then(toml::Value::as_array);
    let list = list.context("deny.toml has no licenses.allow")?;
    Ok(list.iter().filter_map(toml::Value::as_str).map(str::to_owned).collect())
}

fn refused(package: &Value, allowed: &BTreeSet<String>) -> Option<Problem> {
    let licence = package["license"].as_str().unwrap_or("none named");
    if holds(licence, allowed) {
        return None;
    }
    let (name, version) = (package["name"].as_str().unwrap_or("?"), package["version"].as_str().unwrap_or("?"));
    let what = format!("{name} {version} has the licence \"{licence}\", which deny.toml does not allow");
    Some(Problem { file: "Cargo.lock".to_owned(), line: 0, what })
}

/// Whether an SPDX expression can be met with allowed licences. `/` is the old way to write OR.
fn holds(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any(&mut rest, allowed) == Some(true) && rest.is_empty()
}

/// Alternatives; `None` if the expression is malformed.
fn any(words: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut met = all(words, allowed)?;
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        met |= all(words, allowed)?;
    }
    Some(met)
}

fn all(words: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut met = one(words, allowed)?;
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        met &= one(words, allowed)?;
    }
    Some(met)
}

fn one(words: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let met = any(words, allowed)?;
            *words = words.strip_prefix(&[")"])?;
            Some(met)
        }
        [licence, "WITH", exception, rest @ ..] => {
            *words = rest;
            Some(allowed.contains(&format!("{licence} WITH {exception}")))
        }
        [licence, rest @ ..] => {
            *words = rest;
            Some(allowed.contains(*licence))
        }
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_understood() {
        let allowed: BTreeSet<String> =
            ["MIT", "Apache-2.0", "BSD-3-Clause", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
        for good in [
            "MIT",
            "GPL-3.0 OR MIT",
            "MIT/Apache-2.0",
            "(MIT OR LGPL-2.1-or-later) AND BSD-3-Clause",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
        ] {
            assert!(holds(good, &allowed), "{good}");
        }
        for bad in
            ["", "AGPL-3.0", "MIT AND GPL-3.0", "(MIT", "MIT OR", "MIT Apache-2.0", "GPL-3.0 WITH LLVM-exception"]
        {
            assert!(!holds(bad, &allowed), "{bad}");
        }
    }
}
