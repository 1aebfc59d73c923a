//! The project's own commands: what a contributor types, written in Rust so that nothing but Rust is needed.
//!
//! `cargo xtask up` serves, `cargo xtask test` tests everything, `cargo xtask nemesis` runs a cluster through every fault there is,
//! `cargo xtask bench` measures, `cargo xtask tidy` checks the rules that no compiler knows. Of the rest of the workspace it builds on the servers of tests only, so
//! that it is built soon and still runs when the rest does not compile.

pub mod bench;
pub mod nemesis;
pub mod process;
pub mod test;
pub mod tidy;
pub mod tools;
pub mod up;

use std::path::PathBuf;

/// The profile that `up` and `test` build in: optimised, with debug assertions, without link-time optimisation. One profile for all of
/// it, so that on a small machine each crate is compiled once.
pub const PROFILE: &str = "checked";

/// The workspace's folder.
#[must_use]
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or(here.clone(), PathBuf::from)
}
