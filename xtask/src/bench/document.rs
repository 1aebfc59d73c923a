//! The places in a document that are written by a program: `<!-- bench:NAME -->` … `<!-- /bench:NAME -->`. Everything else in it is
//! people's, and stays as it is.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};

const BEGIN: &str = "<!-- bench:";
const END: &str = "<!-- /bench:";
const CLOSE: &str = " -->";

/// Whether the document has exactly these places, each once, each with its end.
///
/// # Errors
/// It has not; the message says which.
pub fn check(text: &str, places: &[&str]) -> Result<()> {
    fill(text, places, &BTreeMap::new()).map(drop)
}

/// The document with sections in their places. What has no section keeps what it has.
///
/// # Errors
/// A place is unknown, missing, there twice or without its end, or a section has no place.
pub fn fill(text: &str, places: &[&str], sections: &BTreeMap<&str, String>) -> Result<String> {
    let (mut out, mut seen, mut open) = (Vec::new(), Vec::new(), None);
    for (at, line) in text.lines().enumerate() {
        let number = at + 1;
        if let Some(name) = marker(line, BEGIN) {
            ensure!(open.is_none(), "line {number}: a place begins within another");
            ensure!(places.contains(&name), "line {number}: there is no measurement {name}");
            ensure!(!seen.contains(&name), "line {number}: {name} has a place already");
            seen.push(name);
            open = Some(name);
            out.push(line);
            if let Some(section) = sections.get(name) {
                out.extend(["", section.trim_end(), ""]);
            }
        } else if let Some(name) = marker(line, END) {
            ensure!(open == Some(name), "line {number}: the end of {name} has no beginning");
            open = None;
            out.push(line);
        } else if open.is_none_or(|name| !sections.contains_key(name)) {
            out.push(line);
        }
    }
    if let Some(name) = open {
        bail!("the place of {name} has no end");
    }
    for name in places.iter().chain(sections.keys()) {
        ensure!(
            seen.contains(name),
            "there is no place for {name}: put {BEGIN}{name}{CLOSE} and {END}{name}{CLOSE} into it"
        );
    }
    Ok(out.join("\n") + "\n")
}

fn marker<'a>(line: &'a str, kind: &str) -> Option<&'a str> {
    line.trim().strip_prefix(kind)?.strip_suffix(CLOSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "# T\n<!-- bench:a -->\nold\n<!-- /bench:a -->\nby hand\n<!-- bench:b -->\nkept\n<!-- /bench:b -->\n";

    #[test]
    fn a_section_takes_the_place_of_the_one_before_and_nothing_else_changes() {
        let sections = BTreeMap::from([("a", "| new |\n".to_owned())]);
        let once = fill(TEXT, &["a", "b"], &sections).expect("both places are there");
        assert_eq!(
            once,
            "# T\n<!-- bench:a -->\n\n| new |\n\n<!-- /bench:a -->\nby hand\n<!-- bench:b -->\nkept\n<!-- /bench:b -->\n"
        );
        assert_eq!(fill(&once, &["a", "b"], &sections).expect("still there"), once, "the same again changes nothing");
    }

    #[test]
    fn a_place_that_is_unknown_or_missing_or_broken_is_an_error() {
        let told = |text: &str, places: &[&str]| check(text, places).expect_err("wrong").to_string();
        assert_eq!(told(TEXT, &["a"]), "line 6: there is no measurement b");
        assert!(told(TEXT, &["a", "b", "c"]).starts_with("there is no place for c"));
        assert_eq!(told("<!-- bench:a -->\n", &["a"]), "the place of a has no end");
        assert_eq!(told("<!-- /bench:a -->\n", &["a"]), "line 1: the end of a has no beginning");
        assert_eq!(told(&TEXT.repeat(2), &["a", "b"]), "line 10: a has a place already");
        let lost = fill(TEXT, &["a", "b"], &BTreeMap::from([("z", String::new())])).expect_err("no such place");
        assert!(lost.to_string().starts_with("there is no place for z"));
    }
}
