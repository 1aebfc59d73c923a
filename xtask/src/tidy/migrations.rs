//! The migrations of all databases have the same names, so that a release means the same schema on each; and each can be undone.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Problem;

/// Migrations that one database has and another lacks, and migrations without both of their files.
pub fn check(root: &Path) -> Result<Vec<Problem>> {
    let folder = root.join("migrations");
    let mut problems = Vec::new();
    let databases = folders(&folder)?;
    let mut all = BTreeSet::new();
    for database in &databases {
        all.extend(folders(&folder.join(database))?);
    }
    for name in &all {
        for database in &databases {
            for file in ["up.sql", "down.sql"] {
                let path = format!("migrations/{database}/{name}/{file}");
                if !root.join(&path).is_file() {
                    let what =
                        "is missing; a migration has the same name for every database, and both files".to_owned();
                    problems.push(Problem { file: path, line: 0, what });
                }
            }
        }
    }
    Ok(problems)
}

fn folders(path: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(path).with_context(|| format!("can't list {}", path.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}
