//! Nothing stays when the process that started the servers is killed between two instructions.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use crate::world::{descendants, runs, until};

#[test]
fn servers_and_their_folders_go_with_a_process_that_is_killed() {
    // Its folders go here, so that it is seen that they go.
    let temporary = tempfile::tempdir().expect("a folder");
    let mut starter = Command::new(env!("CARGO_BIN_EXE_martlet-servers"))
        .args(["postgres", "redis", "nginx"])
        .env("TMPDIR", temporary.path())
        .env_remove("MARTLET_TEST_POSTGRES")
        .env_remove("MARTLET_TEST_REDIS")
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let lines = BufReader::new(starter.stdout.take().expect("a pipe")).lines().take(3);
    let told: Vec<i32> =
        lines.map(|line| line.expect("read").rsplit_once(' ').expect("a process").1.parse().expect("an id")).collect();
    let all = descendants(starter.id().cast_signed());
    assert!(told.iter().all(|pid| all.contains(pid)), "{told:?} of {all:?}");
    assert!(all.len() > 8, "servers, their workers, and a watch for each");
    assert_eq!(fs::read_dir(temporary.path()).expect("read").count(), 3);

    starter.kill().expect("killed");
    starter.wait().expect("ended");
    until("every process is gone", || !all.iter().any(|pid| runs(*pid)));
    assert_eq!(fs::read_dir(temporary.path()).expect("read").count(), 0, "and every folder");
}
