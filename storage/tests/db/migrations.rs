//! The migrations of the backends are in lockstep, and go down as well as up.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use diesel::Connection as _;
use diesel_migrations::{FileBasedMigrations, MigrationHarness as _};

use martlet_storage::Place;

use crate::common::Store;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations")
}

fn folders(of: &Path) -> BTreeSet<String> {
    fs::read_dir(of)
        .expect("a folder")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().expect("UTF-8"))
        .collect()
}

/// Table → columns, as a migration's SQL creates them.
fn tables(sql: &str) -> BTreeMap<String, Vec<String>> {
    let mut tables = BTreeMap::new();
    let mut current: Option<(String, Vec<String>)> = None;
    for line in sql.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("CREATE TABLE ") {
            current = Some((rest.trim_end_matches(" (").to_owned(), Vec::new()));
        } else if line.starts_with(')') {
            tables.extend(current.take());
        } else if let (Some((_, columns)), Some(word)) = (&mut current, line.split_whitespace().next())
            && !matches!(word, "--" | "PRIMARY" | "UNIQUE" | "CHECK")
        {
            columns.push(word.to_owned());
        }
    }
    tables
}

#[test]
fn backends_have_the_same_migrations() {
    let backends = folders(&root());
    assert!(backends.contains("sqlite"));
    let names = folders(&root().join("sqlite"));
    assert!(!names.is_empty());
    for backend in &backends {
        assert_eq!(folders(&root().join(backend)), names, "{backend} against sqlite");
        for name in &names {
            let read = |backend: &str, file: &str| {
                let path = root().join(backend).join(name).join(file);
                fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            };
            let mut wanted = tables(&read("sqlite", "up.sql"));
            if backend == "postgresql"
                && let Some(entries) = wanted.get_mut("mailbox_entries")
            {
                // The front of SQLite's append-only table; PostgreSQL's parts have none.
                entries.retain(|column| column != "entry_key");
            }
            assert_eq!(tables(&read(backend, "up.sql")), wanted, "{backend}/{name}");
            assert_eq!(read(backend, "down.sql"), read("sqlite", "down.sql"), "{backend}/{name}");
        }
    }
}

#[test]
fn they_go_down_and_up_again() {
    let store = Store::new();
    let migrations = || FileBasedMigrations::from_path(root().join("sqlite")).expect("migrations");
    let Place::File(path) = store.config().place else { panic!("a file") };
    let mut conn = diesel::SqliteConnection::establish(path.to_str().expect("UTF-8")).expect("opens");
    let down = conn.revert_all_migrations(migrations()).expect("down");
    assert!(!down.is_empty());
    assert_eq!(
        store.number("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_\\_%' ESCAPE '\\'"),
        0
    );
    conn.run_pending_migrations(migrations()).expect("up");
    assert_eq!(store.number("SELECT epoch FROM store"), 1);
}
