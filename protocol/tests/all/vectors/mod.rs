//! The files in `protocol/vectors`: what every other SDK is checked against.
//!
//! [`make`] draws them from seeds, [`read`] opens them with the library as another SDK would. To write them anew after a change of
//! format: `cargo test -p martlet-protocol --test all write_vectors -- --ignored`.

mod make;
mod read;

use std::{fs, path::PathBuf};

use serde_json::Value;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(format!("{name}.json"))
}

fn checked_in(name: &str) -> Value {
    let text = fs::read_to_string(path(name)).expect("the file is checked in");
    serde_json::from_str(&text).expect("the file is JSON")
}

#[test]
fn checked_in_vectors_are_what_the_generator_makes() {
    for (name, made) in make::all() {
        assert!(checked_in(name) == made, "{name}.json differs: a format changed, or the file was edited");
    }
}

#[test]
#[ignore = "writes the files that the other tests read"]
fn write_vectors() {
    for (name, made) in make::all() {
        let text = serde_json::to_string_pretty(&made).expect("JSON");
        fs::write(path(name), text + "\n").expect("the folder is there");
    }
}
