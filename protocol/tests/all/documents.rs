//! docs/PROTOCOL.md lists every problem code, close code and label as the library has them.

use std::{collections::BTreeSet, fs, path::PathBuf};

use martlet_protocol::{
    crypto::Label,
    problem::{Code, close},
};

fn document() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/PROTOCOL.md");
    fs::read_to_string(path).expect("the document is there")
}

/// The cells of the table rows under a heading, without the header row and the rule.
fn rows(document: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, section) = document.split_once(&format!("{heading}\n")).expect("the heading is there");
    let section = section.split("\n#").next().unwrap_or_default();
    section
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

#[test]
fn every_problem_code_is_documented() {
    let expected: Vec<Vec<String>> = Code::ALL
        .iter()
        .map(|code| vec![format!("`{}`", code.as_str()), code.status().to_string(), code.title().to_owned()])
        .collect();
    let documented: Vec<Vec<String>> = rows(&document(), "## Problem codes")
        .into_iter()
        .map(|mut row| {
            row.truncate(3);
            row
        })
        .collect();
    assert_eq!(documented, expected);
}

#[test]
fn every_close_code_is_documented() {
    let expected = BTreeSet::from([
        close::GOING_AWAY,
        close::PROTOCOL_ERROR,
        close::UNSUPPORTED,
        close::INVALID_TEXT,
        close::TOO_BIG,
        close::MALFORMED,
        close::DEVICE_ENDED,
        close::TIMED_OUT,
        close::REPLACED,
        close::RATE_LIMITED,
    ]);
    let documented = rows(&document(), "## Close codes").iter().filter_map(|row| row[0].parse().ok()).collect();
    assert_eq!(expected, documented);
}

#[test]
fn every_label_is_documented() {
    let documented: BTreeSet<String> = rows(&document(), "### Labels").into_iter().map(|row| row[0].clone()).collect();
    let expected = Label::ALL.iter().map(|label| {
        let name = String::from_utf8_lossy(label.as_bytes());
        format!("`{}`", name.trim_start_matches("martlet/v1/").trim_end_matches('\0'))
    });
    assert_eq!(documented, expected.collect());
}
