//! Where the built programs are. They stand beside the test's own executable; if one is missing or older than its sources, cargo
//! builds it, once per test process and one process at a time.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    time::SystemTime,
};

use anyhow::{Context as _, Result, ensure};
use parking_lot::Mutex;

/// Program, the package that it is built from, and features.
const PACKAGES: &[(&str, &str, &[&str])] = &[
    ("martlet", "martlet", &[]),
    ("martlet-chat", "martlet-client", &[]),
    ("martlet-load", "martlet-loadtest", &[]),
    ("martlet-planted", "martlet", &["--features", "planted"]),
];

static FOUND: LazyLock<Mutex<HashMap<String, PathBuf>>> = LazyLock::new(Mutex::default);

/// The path of a built program, `martlet` or `martlet-chat`.
///
/// # Errors
/// It is none of ours, or does not build.
pub fn path(program: &str) -> Result<PathBuf> {
    let mut found = FOUND.lock();
    if let Some(path) = found.get(program) {
        return Ok(path.clone());
    }
    let profile = profile_dir()?;
    let path = profile.join(program);
    if is_stale(&path).unwrap_or(true) {
        build(program, &profile)?;
    }
    ensure!(path.is_file(), "{} was built, but is not there", path.display());
    found.insert(program.to_owned(), path.clone());
    Ok(path)
}

/// `target/debug`, if this runs as `target/debug/deps/test-…`.
fn profile_dir() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let parents = own.ancestors().skip(1).find(|dir| dir.file_name().is_some_and(|name| name != "deps"));
    parents.map(Path::to_owned).context("a test executable lies in a folder")
}

/// Whether a source that cargo noted for the program (in `program.d`) is newer than it. `None`: there is no telling.
fn is_stale(program: &Path) -> Option<bool> {
    let built = modified(program)?;
    let noted = std::fs::read_to_string(program.with_extension("d")).ok()?;
    let sources = noted.split_once(": ")?.1.replace("\\ ", "\u{0}");
    Some(sources.split_whitespace().any(|source| modified(Path::new(&source.replace('\u{0}', " "))) > Some(built)))
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

fn build(program: &str, profile_dir: &Path) -> Result<()> {
    let known = PACKAGES.iter().find(|(name, ..)| *name == program);
    let (_, package, features) = known.context("not a program of this workspace")?;
    let target_dir = profile_dir.parent().context("a profile's folder lies in the target folder")?;
    // Cargo names the folder of its "dev" profile "debug".
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    println!("building {program} (profile {profile})");
    // The process-wide lock is cargo's own, on the target folder.
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--package", package, "--bin", program, "--profile", profile, "--target-dir"])
        .arg(target_dir)
        .args(*features)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .context("cargo can't be started")?;
    ensure!(status.success(), "{program} does not build");
    Ok(())
}
