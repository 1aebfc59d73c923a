//! PostgreSQL: what was committed survives every way of stopping, and the port stays.

use martlet_servers::{Database, Postgres, Shutdown, shared_postgres};

use crate::world::{descendants, runs, until};

#[test]
fn what_was_committed_is_there_after_every_way_of_stopping() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut postgres = Postgres::start(&folder.path().join("postgres")).expect("starts");
    let port = postgres.port();
    postgres.create_database("one").expect("made");
    postgres.query("one", "CREATE TABLE t (n int)").expect("made");
    for (number, how) in [Shutdown::Smart, Shutdown::Fast, Shutdown::Immediate].into_iter().enumerate() {
        postgres.query("one", &format!("INSERT INTO t VALUES ({number})")).expect("inserted");
        postgres.stop(how).expect("stops");
        assert!(postgres.query("one", "SELECT 1").is_err(), "nobody answers");
        assert_eq!(postgres.pid(), 0);
        postgres.start_again().expect("starts");
        assert_eq!(postgres.port(), port);
    }
    postgres.kill().expect("killed");
    postgres.start_again().expect("recovers");
    assert_eq!(postgres.query("one", "SELECT string_agg(n::text, ',' ORDER BY n) FROM t").expect("read"), "0,1,2");
    assert_eq!(postgres.query("one", "SHOW fsync").expect("read"), "on", "durable unless asked otherwise");
}

#[test]
fn a_folder_is_started_again_with_other_settings() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = Postgres::start_with(folder.path(), &[("fsync", "off")]).expect("starts");
    first.create_database("kept").expect("made");
    let all = [vec![first.pid()], descendants(first.pid())].concat();
    drop(first);
    until("all its processes are gone with the value", || !all.iter().any(|pid| runs(*pid)));
    let second = Postgres::start_with(folder.path(), &[("fsync", "off"), ("work_mem", "7MB")]).expect("starts");
    assert_eq!(second.query("kept", "SHOW work_mem").expect("read"), "7MB");
}

#[test]
fn a_wrong_setting_is_named_with_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = Postgres::start_with(folder.path(), &[("shared_buffers", "many")]).err().expect("refused");
    assert!(format!("{error:#}").contains("shared_buffers"), "{error:#}");
}

#[test]
fn each_database_is_empty_and_goes_with_its_value() {
    let (one, two) = (Database::create().expect("made"), Database::create().expect("made"));
    one.query("CREATE TABLE t ()").expect("made");
    assert!(two.query("TABLE t").is_err(), "the other one has no such table");
    assert!(one.url().expect("known").ends_with(one.name()));
    let name = one.name().to_owned();
    drop(one);
    let there = shared_postgres().expect("starts").query("postgres", "SELECT datname FROM pg_database").expect("read");
    assert!(there.lines().any(|database| database == two.name()) && !there.lines().any(|database| database == name));
}

#[test]
fn one_that_runs_already_is_used_and_not_stopped() {
    let own = shared_postgres().expect("starts");
    let mut other = Postgres::running_on(own.port()).expect("answers");
    assert_eq!(other.pid(), own.pid());
    assert!(other.stop(Shutdown::Fast).is_err() && other.start_again().is_err());
    drop(other);
    assert!(own.query("postgres", "SELECT 1").is_ok());
}
