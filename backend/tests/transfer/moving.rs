//! What arrives, also after interruptions, and what clients see of it.

use martlet::{
    clock::Clock,
    server::{Node, StartError},
    transfer::{self, Progress, TransferError},
};
use martlet_protocol::rest::Accepted;
use martlet_storage::{StorageError, transfer::MoveError};

use crate::{
    client::{Client, PROTO},
    harness::TestDevice,
    rows,
    scene::{ACKED, HEAD, LARGE, Scene, UNTOLD, seqs},
    world::World,
};

#[tokio::test]
async fn an_import_that_is_interrupted_again_and_again_moves_every_row() {
    let scene = Scene::new().await;
    let exported = scene.export().expect("exported");
    let mut rounds = 0;
    let imported = loop {
        match scene.import(3) {
            Ok(moved) => break moved,
            Err(TransferError::Stopped) => rounds += 1,
            Err(error) => panic!("{error}"),
        }
        if rounds == 2 {
            let refused =
                Node::start(scene.new_config(), Clock::System).await.err().expect("half a store is not served");
            assert!(matches!(&refused, StartError::Store(StorageError::Unfit(_))), "{refused}");
        }
    };
    assert!(rounds >= 6, "{rounds}");
    assert_eq!(imported, exported);

    let tables = rows::tables(&scene.database);
    assert_eq!(tables.len(), exported.manifest.tables.len());
    let (old, new) =
        (rows::of_sqlite(&scene.data.path().join("martlet.db"), &tables), rows::of_postgres(&scene.database));
    for (table, rows) in &old {
        assert!(!rows.is_empty(), "the scene leaves {table} empty, so nothing is shown for it");
        assert!(new[table] == *rows, "{table} is another one");
        let sum = exported.manifest.tables.iter().find(|sum| sum.table == *table).expect("in the manifest");
        assert_eq!(sum.rows as usize, rows.len(), "{table}");
    }
    assert!(old["mailbox_entries"].len() > UNTOLD && old["contents"].len() == LARGE);
    let elsewhere = "SELECT count(*) FROM contents_default";
    assert_eq!(scene.database.query(elsewhere).expect("an answer"), "0", "contents lie in the parts of their weeks");

    assert!(matches!(scene.import(u64::MAX), Err(TransferError::Store(MoveError::NotEmpty(_)))), "once");
}

/// What the new store exports is what it was made of, to the last byte.
#[tokio::test]
async fn a_new_embedded_store_gets_every_row_too() {
    let scene = Scene::new().await;
    let exported = scene.export().expect("exported");
    let config = scene.new_embedded();
    let mut rounds = 0;
    let imported = loop {
        match scene.import_into(&config, 3) {
            Ok(moved) => break moved,
            Err(TransferError::Stopped) => rounds += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(!config.storage.database().exists(), "half a store has no name to be served by");
    };
    assert!(rounds >= 6, "{rounds}");
    assert_eq!(imported, exported);
    let second = scene.folder.path().join("second");
    let again = transfer::export(&config, &second, false, &Clock::System, &Progress::hidden()).expect("exported");
    assert_eq!(again.manifest.tables, exported.manifest.tables);
    assert!(exported.manifest.tables.iter().any(|sum| sum.table == "mailbox_entries" && sum.rows as usize > UNTOLD));
    assert!(matches!(scene.import_into(&config, u64::MAX), Err(TransferError::Store(MoveError::StoreExists(_)))));
}

#[tokio::test]
async fn clients_only_reconnect() {
    let scene = Scene::new().await;
    scene.export().expect("exported");
    scene.import(u64::MAX).expect("imported");
    let node = scene.node().await;

    // A retry, by the old token, of what the old node had answered.
    let path = TestDevice::messages_path(&scene.conversation);
    let again: Accepted = node.post(&path, &scene.alice.token, &scene.sent.0).await.ok(200);
    assert_eq!(again, scene.sent.1, "its first answer");

    let (mut bob, hello) = Client::connect(&node, &scene.bob, PROTO).await;
    assert_eq!(hello.mailbox.as_ref().expect("a mailbox").epoch, scene.epoch);
    bob.resume(&hello, None).await;
    let waited = bob.until_caught_up().await;
    let (entries, gaps) = seqs(&waited);
    assert_eq!(entries, (ACKED + 1..HEAD - 1).collect::<Vec<_>>(), "what waited in the mailbox");
    assert_eq!(gaps, [(HEAD - 1, HEAD)]);

    let Scene { alice, bob: bobs, conversation, .. } = scene;
    let world = World { node, alice, bob: bobs, conversation };
    let first = waited.into_iter().find_map(|frame| match frame {
        martlet_protocol::wire::node_frame::Frame::Entry(entry) => Some(entry),
        _ => None,
    });
    let first = first.expect("an entry");
    world.open_bobs(&first);
    assert_eq!(first.content.len(), 20_000, "with its shared content");

    let (mut alice, _) = Client::connect(&world.node, &world.alice, PROTO).await;
    world.send_many(&mut alice, 1, 20_000).await;
    let entry = bob.entry().await;
    assert_eq!((entry.seq, entry.content.len()), (HEAD + 1, 20_000), "numbers go on");
    let newcomer = TestDevice::register(&world.node, "carol").await;
    world.alice.create(&world.node, &world.alice.direct_with(&world.node, &newcomer)).await;
    world.node.stop().await;
}
