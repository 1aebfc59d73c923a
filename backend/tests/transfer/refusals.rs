//! What is refused, and that a refusal leaves the database as it was.

use std::fs;

use martlet::transfer::{self, Progress, TransferError};
use martlet::{clock::Clock, secrets::Secrets};
use martlet_storage::transfer::MoveError;

use crate::{scene::Scene, world::World};

#[tokio::test]
async fn a_running_nodes_store_is_not_exported() {
    let world = World::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = martlet::config::Config::default();
    config.storage.data_dir = world.node.store().folder().to_owned();
    config.storage.wait = std::time::Duration::from_millis(100);
    let refused = transfer::export(&config, folder.path(), true, &Clock::System, &Progress::hidden());
    assert!(matches!(refused, Err(TransferError::Store(MoveError::SourceInUse))), "{refused:?}");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    world.node.stop().await;
}

#[tokio::test]
async fn what_is_not_as_it_was_exported_is_not_imported() {
    let scene = Scene::new().await;
    let refused = scene.import(u64::MAX);
    assert!(matches!(refused, Err(TransferError::NoExport { .. })), "{refused:?}");
    scene.export().expect("exported");
    let again = scene.export();
    assert!(matches!(again, Err(TransferError::AlreadyExported(_))), "{again:?}");

    let devices = scene.file("devices.rows");
    let mut changed = devices.clone();
    changed[30] ^= 1;
    for damaged in [changed, devices[..devices.len() - 1].to_vec(), [&devices[..], &[0]].concat()] {
        scene.write("devices.rows", &damaged);
        let refused = scene.import(u64::MAX);
        assert!(matches!(&refused, Err(TransferError::Damaged(path)) if path.ends_with("devices.rows")), "{refused:?}");
    }
    scene.write("devices.rows", &devices);

    let manifest = scene.file("manifest.json");
    let spoiled = |from: &str, to: &str| {
        let text = String::from_utf8(manifest.clone()).expect("JSON");
        assert!(text.contains(from), "{text}");
        scene.write("manifest.json", text.replacen(from, to, 1).as_bytes());
        scene.import(u64::MAX)
    };
    let refused = spoiled("\"complete\": true", "\"complete\": false");
    assert!(matches!(refused, Err(TransferError::Unfinished(_))), "{refused:?}");
    let refused = spoiled("\"format\": 1", "\"format\": 2");
    assert!(matches!(refused, Err(TransferError::NoExport { .. })), "{refused:?}");
    let refused = spoiled("\"table\": \"tokens\"", "\"table\": \"tickets\"");
    assert!(matches!(refused, Err(TransferError::NoExport { .. })), "{refused:?}");
    assert!(!scene.has_tables(), "the database was not touched");
    let refused = spoiled("\"schema\": \"", "\"schema\": \"9");
    assert!(matches!(refused, Err(TransferError::OtherSchema { .. })), "{refused:?}");
}

#[tokio::test]
async fn the_secret_must_be_the_stores() {
    let scene = Scene::new().await;
    scene.export().expect("exported");
    let config = scene.new_config();
    let secret = config.storage.secret();
    Secrets::load_or_create(&secret, &mut martlet::clock::rng()).expect("another secret");
    let refused = scene.import(u64::MAX);
    assert!(matches!(&refused, Err(TransferError::OtherSecret(path)) if *path == secret), "{refused:?}");
    assert!(!scene.has_tables(), "the database was not touched");
    fs::remove_file(&secret).expect("removed");
    assert!(scene.import(1).is_err());
    assert_eq!(fs::read(&secret).expect("copied"), scene.file("node.secret"));
}

#[tokio::test]
async fn rows_that_change_under_the_import_are_found() {
    let scene = Scene::new().await;
    scene.export().expect("exported");
    assert!(matches!(scene.import(4), Err(TransferError::Stopped)));
    scene.database.query("UPDATE accounts SET list_n = list_n + 1").expect("changed");
    let refused = scene.import(u64::MAX);
    assert!(matches!(refused, Err(TransferError::Differs("accounts"))), "{refused:?}");
    scene.database.query("UPDATE accounts SET list_n = list_n - 1").expect("changed back");
    scene.import(u64::MAX).expect("whole again");
}

#[tokio::test]
async fn an_unfinished_export_begins_anew_and_nothing_else_is_overwritten() {
    let scene = Scene::new().await;
    let finished = scene.export().expect("exported");
    let text = String::from_utf8(scene.file("manifest.json")).expect("JSON");
    scene.write("manifest.json", text.replace("\"complete\": true", "\"complete\": false").as_bytes());
    scene.write("tokens.rows", b"the first half");
    let again = scene.export().expect("exported again");
    assert_eq!(again.manifest.tables, finished.manifest.tables);

    fs::remove_file(scene.exported().join("manifest.json")).expect("removed");
    let refused = scene.export();
    assert!(matches!(refused, Err(TransferError::Occupied(_))), "{refused:?}");
}
