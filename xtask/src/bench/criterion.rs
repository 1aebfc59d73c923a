//! The benches of the crates, measured with criterion. Their results lie in folders of the run's own, so that none is of an earlier one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    json::Json,
    run::{Run, Taken},
    table::{Table, grouped},
};
use crate::process::cargo;

/// The bench targets alone: unit tests are none.
const BENCH: [&str; 9] = ["bench", "-p", "martlet", "-p", "martlet-client", "-p", "martlet-storage", "--bench", "*"];

/// Runs all of them.
///
/// # Errors
/// They don't build or fail, or their results can't be read.
pub fn take(run: &Run) -> Result<Taken> {
    let folder = run.folder.join("criterion");
    let mut command = cargo(&BENCH);
    if run.quick {
        command.args(["--", "--quick"]);
    }
    command.env("CRITERION_HOME", &folder);
    println!("    criterion: cargo {}", BENCH.join(" "));
    ensure!(run.logged(&mut command, "criterion")?, "a bench failed; the log ends: {}", run.end_of_log("criterion"));
    Ok(Taken { table: table(&folder)?, unclean: Vec::new() })
}

/// From what criterion left in a folder.
fn table(folder: &Path) -> Result<Table> {
    let mut files = Vec::new();
    find(folder, &mut files)?;
    files.sort();
    ensure!(!files.is_empty(), "there is no result under {}", folder.display());
    let mut table = Table::default();
    for file in files {
        row(&file, &mut table)?;
    }
    Ok(table)
}

/// All `new/estimates.json` below a folder.
fn find(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, found)?;
        } else if path.ends_with("new/estimates.json") {
            found.push(path);
        }
    }
    Ok(())
}

fn row(estimates: &Path, table: &mut Table) -> Result<()> {
    let (estimates, about) = (Json::read(estimates)?, Json::read(&estimates.with_file_name("benchmark.json"))?);
    let median_ns = estimates.number("/median/point_estimate")?;
    let interval = ["lower_bound", "upper_bound"]
        .map(|bound| estimates.number(&format!("/median/confidence_interval/{bound}")).map(time));
    let [lower, upper] = interval;
    let mut conditions = format!("median; 95 % sure: {} to {}", lower?, upper?);
    if let Ok(elements) = about.number("/throughput/Elements") {
        conditions += &format!("; {} each of {}", time(median_ns / elements), grouped(elements, 0));
    } else if let Ok(bytes) = about.number("/throughput/Bytes") {
        conditions += &format!("; {} MB/s", grouped(bytes * 1000.0 / median_ns, 0));
    }
    table.row(format!("`{}`", about.text("/full_id")?), time(median_ns), conditions);
    Ok(())
}

fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.2} µs", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(folder: &Path, name: &str, estimates: &str, about: &str) {
        let folder = folder.join(name).join("new");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("estimates.json"), estimates).expect("written");
        fs::write(folder.join("benchmark.json"), about).expect("written");
    }

    #[test]
    fn estimates_become_rows() {
        let folder = std::env::temp_dir().join(format!("martlet-criterion-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        assert!(table(&folder).is_err(), "no results are an error");
        let estimates = r#"{"median":{"point_estimate":1500.0,
            "confidence_interval":{"lower_bound":900.0,"upper_bound":2000000.0}}}"#;
        put(&folder, "fork/devices/5", estimates, r#"{"full_id":"fork/devices/5","throughput":{"Elements":5}}"#);
        put(&folder, "seal", estimates, r#"{"full_id":"seal","throughput":null}"#);
        assert_eq!(
            table(&folder).expect("two results").markdown(),
            "| measured | figure | target | conditions |\n|---|---|---|---|\n\
             | `fork/devices/5` | 1.50 µs |  | median; 95 % sure: 900 ns to 2.00 ms; 300 ns each of 5 |\n\
             | `seal` | 1.50 µs |  | median; 95 % sure: 900 ns to 2.00 ms |\n"
        );
        put(&folder, "wrong", "{}", r#"{"full_id":"wrong"}"#);
        assert!(table(&folder).is_err(), "a result that can't be read is an error");
        fs::remove_dir_all(folder).expect("removed");
    }
}
