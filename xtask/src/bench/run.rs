//! Taking one measurement: its commands, each with what it prints in a log and its result as JSON in the run's folder.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{
    criterion,
    json::Json,
    k6,
    set::{Kind, Measurement, Step},
    table::Table,
};

/// Where everything is and goes.
pub struct Run {
    /// Where `martlet` and `martlet-load` are.
    pub programs: PathBuf,
    /// Where logs and results go.
    pub folder: PathBuf,
    /// With the quick arguments.
    pub quick: bool,
}

/// A measurement that was taken.
pub struct Taken {
    /// Its figures.
    pub table: Table,
    /// What was not as it must be: something was lost, repeated or refused.
    pub unclean: Vec<String>,
}

impl Run {
    /// Takes it.
    ///
    /// # Errors
    /// A command fails without a result, or its result can't be read.
    pub fn take(&self, measurement: &Measurement) -> Result<Taken> {
        match measurement.kind {
            Kind::Criterion => criterion::take(self),
            Kind::K6 => k6::take(self),
            Kind::Load { steps, times, table } => {
                let (mut results, mut unclean) = (Vec::new(), Vec::new());
                let times = if self.quick { 1 } else { times };
                for time in 1..=times {
                    for step in steps {
                        let file = if times == 1 { step.file.to_owned() } else { format!("{}-{time}", step.file) };
                        let (result, trouble) = self.load(step, &file)?;
                        unclean.extend(trouble);
                        results.push(result);
                    }
                }
                Ok(Taken { table: table(&results)?, unclean })
            }
        }
    }

    /// One run of `martlet-load`: its result, and what was wrong with it.
    fn load(&self, step: &Step, file: &str) -> Result<(Json, Option<String>)> {
        let arguments = if self.quick { step.quick } else { step.arguments };
        println!("    {file}: martlet-load {arguments}");
        let json = self.folder.join(format!("{file}.json"));
        let mut command = Command::new(self.programs.join("martlet-load"));
        command.args(arguments.split_whitespace()).arg("--json").arg(&json);
        let is_good = self.logged(&mut command, file)?;
        if !json.is_file() {
            bail!("{file}: no result; its log ends: {}", self.end_of_log(file));
        }
        let result = Json::read(&json)?;
        let trouble = match (is_good, result.is("/clean")?) {
            (true, true) => None,
            (false, false) => Some(format!("{file}: something was lost, repeated or refused; see its log")),
            (good, clean) => bail!("{file}: it says clean is {clean} and its exit code that good is {good}"),
        };
        Ok((result, trouble))
    }

    /// Runs a command with what it prints in a log; true if it succeeded.
    ///
    /// # Errors
    /// It can't be started.
    pub fn logged(&self, command: &mut Command, name: &str) -> Result<bool> {
        let log = File::create(self.log(name)).context("can't write a log")?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir(crate::root());
        let status = command
            .status()
            .with_context(|| format!("{name}: can't start {}", Path::new(command.get_program()).display()))?;
        Ok(status.success())
    }

    /// The last lines of a log, for a reason.
    pub fn end_of_log(&self, name: &str) -> String {
        martlet_servers::last_lines(&self.log(name), 3)
    }

    /// Where a command's output goes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::bench::table::Table;

    const STEP: Step = Step { file: "x", arguments: "x", quick: "x" };

    /// A run whose `martlet-load` is a shell script; `$3` is the JSON file.
    fn run_with(script: &str) -> (PathBuf, Run) {
        let folder = std::env::temp_dir().join(format!("martlet-bench-{}-{}", std::process::id(), script.len()));
        fs::create_dir_all(&folder).expect("a folder");
        let program = folder.join("martlet-load");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("possible");
        (folder.clone(), Run { programs: folder.clone(), folder, quick: false })
    }

    fn take(script: &str) -> Result<Taken> {
        let (folder, run) = run_with(script);
        let table = |results: &[Json]| {
            let mut table = Table::default();
            table.row("n", results[0].number("/result/n")?.to_string(), "");
            Ok(table)
        };
        let kind = Kind::Load { steps: &[STEP], times: 1, table };
        let taken = run.take(&Measurement { name: "x", what: "x", needs: None, kind });
        fs::remove_dir_all(folder).expect("removed");
        taken
    }

    fn reason(script: &str) -> String {
        take(script).err().map_or_else(|| "no error".to_owned(), |error| format!("{error:#}"))
    }

    #[test]
    fn a_result_becomes_a_table() {
        let taken = take(r#"echo '{"clean":true,"result":{"n":5}}' > "$3""#).expect("taken");
        assert!(taken.unclean.is_empty());
        assert!(taken.table.markdown().contains("| n | 5 |"));
    }

    #[test]
    fn an_unclean_result_is_told_beside_its_figures() {
        let taken = take(r#"echo '{"clean":false,"result":{"n":6}}' > "$3"; exit 1"#).expect("taken");
        assert_eq!(taken.unclean, ["x: something was lost, repeated or refused; see its log"]);
        assert!(taken.table.markdown().contains("| n | 6 |"));
    }

    #[test]
    fn no_result_or_a_wrong_one_is_an_error() {
        assert_eq!(reason("echo it broke >&2; exit 1"), "x: no result; its log ends: it broke");
        assert_eq!(reason(r#"echo '{"clean":true,"result":{}}' > "$3""#), "x.json has no /result/n");
        assert!(reason(r#"echo 'no json at all' > "$3""#).starts_with("x.json is no JSON"));
        assert!(reason(r#"echo '{"clean":true}' > "$3"; exit 3"#).contains("clean is true"));
    }
}
