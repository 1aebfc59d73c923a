//! What an operator meets at the start: a config that says what is wrong with it, a check that names fixes, and a node that does not
//! serve from a store that could break its promises.

use std::{
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};
use martlet_e2e::{
    node::{Node, NodeOptions, binary},
    scene::{self, Scene},
    wire::{Account, Circle, Rest, message::Outgoing, username},
};
use martlet_protocol::{id::ClientMessageId, rest};
use martlet_servers::Postgres;

/// Runs `martlet` with nothing of the test's own environment, in an empty folder.
fn martlet(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Output> {
    let mut command = Command::new(binary::path("martlet")?);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MARTLET")) {
        command.env_remove(name);
    }
    Ok(command.current_dir(folder).args(arguments).envs(environment.iter().copied()).output()?)
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn settings(toml: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(toml).into_owned();
    let bare = |line: &str| line.split("  #").next().unwrap_or_default().trim_end().to_owned();
    text.lines().filter(|line| !line.starts_with('#')).map(bare).filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_config_round_trips() {
    scene::run("config", |scene: Scene| async move {
        let changed = [
            "server.listen=127.0.0.1:9",
            "mailbox.retention=3d",
            "messages.max_content_bytes=128 KiB",
            "log.format=json",
        ];
        let arguments: Vec<_> =
            std::iter::once("config").chain(changed.iter().flat_map(|pair| ["--set", pair])).collect();
        let printed = martlet(scene.folder(), &arguments, &[("MARTLET__ACCOUNTS__MAX_DEVICES", "7")])?;
        ensure!(printed.status.success(), "{}", text(&printed));

        std::fs::write(scene.folder().join("saved.toml"), &printed.stdout)?;
        let again = martlet(scene.folder(), &["config", "--config", "saved.toml"], &[])?;
        ensure!(again.status.success(), "{}", text(&again));
        ensure!(settings(&again.stdout) == settings(&printed.stdout), "a saved config reads otherwise");
        for line in ["listen = \"127.0.0.1:9\"", "retention = \"3d\"", "max_devices = 7", "format = \"json\""] {
            ensure!(settings(&again.stdout).iter().any(|given| given == line), "{line} is missing: {}", text(&again));
        }

        let defaults = martlet(scene.folder(), &["config", "--defaults"], &[])?;
        let plain = martlet(scene.folder(), &["config"], &[])?;
        ensure!(settings(&defaults.stdout) == settings(&plain.stdout), "with nothing set, the defaults are in force");
        let comments =
            String::from_utf8_lossy(&defaults.stdout).lines().filter(|line| line.starts_with("# Allowed")).count();
        ensure!(comments > 40, "every key says what is allowed: {comments}");
        Ok(())
    });
}

#[test]
fn wrong_values_are_named_with_what_is_allowed() {
    scene::run("config-wrong", |scene: Scene| async move {
        std::fs::write(
            scene.folder().join("martlet.toml"),
            "[storage]\ndurability = \"some\"\n\n[mailbox]\nmax_entires = 5\n",
        )?;
        let refused = martlet(
            scene.folder(),
            &["serve", "--set", "socket.ping_interval=30", "--listen", "nowhere"],
            &[("MARTLET__MESSAGES__COMMIT_MAX_SENDS", "0")],
        )?;
        let said = text(&refused);
        ensure!(refused.status.code() == Some(2), "a wrong config ends with 2: {said}");
        for expected in [
            "storage.durability: given \"some\" (martlet.toml line 2), allowed is \"full\" or \"normal\"",
            "mailbox.max_entires: there is no such key; did you mean mailbox.max_entries?",
            "messages.commit_max_sends: given \"0\"",
            "socket.ping_interval: given \"30\"",
            "server.listen: given \"nowhere\"",
        ] {
            ensure!(said.contains(expected), "{expected} is missing in: {said}");
        }
        ensure!(!scene.folder().join("data").exists(), "a refused start makes nothing");
        Ok(())
    });
}

#[test]
fn the_check_names_fixes_and_changes_nothing() {
    scene::run("check", |scene: Scene| async move {
        let taken = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        let listen = format!("server.listen={}", taken.local_addr()?);
        let fixed =
            ["check", "--set", "server.internal_listen=127.0.0.1:0", "--set", "server.max_connections=100", "--set"];
        let with = |last: &str| martlet(scene.folder(), &[fixed.as_slice(), &[last]].concat(), &[]);

        let good = with("server.listen=127.0.0.1:0")?;
        ensure!(good.status.success(), "{}", text(&good));
        ensure!(std::fs::read_dir(scene.folder())?.next().is_none(), "the check left something behind");

        let bad = with(&listen)?;
        ensure!(!bad.status.success(), "a port that is taken is no failure: {}", text(&bad));
        ensure!(text(&bad).contains("fix:") && text(&bad).contains("server.listen"), "{}", text(&bad));

        std::fs::write(scene.folder().join("file"), "")?;
        let bad = martlet(scene.folder(), &["check", "--data-dir", "file/data"], &[])?;
        ensure!(!bad.status.success() && text(&bad).contains("storage.data_dir"), "{}", text(&bad));
        Ok(())
    });
}

#[test]
fn less_durability_has_to_be_asked_for_and_is_said_aloud() {
    scene::run("durability-config", |scene: Scene| async move {
        let defaults = martlet(scene.folder(), &["config", "--defaults"], &[])?;
        ensure!(settings(&defaults.stdout).contains(&"durability = \"full\"".to_owned()), "{}", text(&defaults));
        let check = martlet(scene.folder(), &["check", "--set", "storage.durability=normal"], &[])?;
        ensure!(text(&check).contains("a power loss can take answered sends with it"), "{}", text(&check));
        let mut node = Node::start(&scene, NodeOptions::default().set("storage.durability=normal")).await?;
        node.terminate().await?;
        ensure!(node.log()?.contains("NOT safe from power loss"), "the node did not say so");
        Ok(())
    });
}

/// SQLite keeps the index of its log in a shared file; where that can't be, as on some network file systems, there is no log, and
/// another way of committing has other risks.
#[test]
fn a_store_that_can_not_have_its_log_is_refused() {
    scene::run("unsafe-store", |scene: Scene| async move {
        let mut node = Node::prepare(&scene, NodeOptions::default())?;
        std::fs::create_dir_all(node.data_dir().join("martlet.db-shm"))?;
        node.spawn()?;
        let status = node.ended().await?;
        let said = node.log()?;
        ensure!(!status.success(), "the node served from a store that could lose messages: {said}");
        ensure!(said.contains("store") && said.contains("martlet check"), "the refusal does not say why: {said}");
        Ok(())
    });
}

#[test]
fn a_damaged_store_is_refused_and_left_alone() {
    scene::run("damaged-store", |scene: Scene| async move {
        let mut node = Node::prepare(&scene, NodeOptions::default())?;
        std::fs::create_dir_all(node.data_dir())?;
        let database = node.data_dir().join("martlet.db");
        let junk = b"this is no database, whatever its name says. ".repeat(200);
        std::fs::write(&database, &junk)?;
        node.spawn()?;
        let status = node.ended().await?;
        ensure!(!status.success(), "the node started on junk");
        ensure!(std::fs::read(&database)? == junk, "the node wrote over what it could not read");
        Ok(())
    });
}

/// Without its secret a store's passwords are all wrong and retries would be accepted anew, so a new one must not be made quietly.
#[test]
fn a_store_without_its_secret_is_refused() {
    scene::run("secret", |scene: Scene| async move {
        let mut node = Node::start(&scene, NodeOptions::default()).await?;
        node.terminate().await?;
        let secret = node.data_dir().join("node.secret");
        let kept = std::fs::read(&secret).context("the secret's file")?;
        std::fs::remove_file(&secret)?;
        node.spawn()?;
        let refused = tokio::time::timeout(std::time::Duration::from_secs(30), node.ended()).await;
        ensure!(
            refused.is_ok_and(|status| status.is_ok_and(|status| !status.success())),
            "the node started without its secret"
        );
        ensure!(!secret.exists(), "the node made a new secret for an old store");

        std::fs::write(&secret, kept)?;
        #[cfg(unix)]
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        node.restart().await
    });
}

/// The first answer comes from the store and the secret together, so it has to outlive a restart.
#[test]
fn a_retry_after_a_restart_gets_the_first_answer() {
    scene::run("retry", |scene: Scene| async move {
        let mut node = Node::start(&scene, NodeOptions::default()).await?;
        let rest = Rest::new(node.url())?;
        let mut rng = scene.rng(0);
        let (one, two) = (username("one", &mut rng), username("two", &mut rng));
        let one = Account::register(&rest, &mut rng, &one, 1).await?;
        let two = Account::register(&rest, &mut rng, &two, 1).await?;
        let circle = Circle::direct(&rest, &mut rng, &one, &two).await?;
        let device = &one.devices[0];
        let outgoing = Outgoing::new(&circle, device, ClientMessageId::random(&mut rng), vec![1; 300].into());
        let body = outgoing.body()?;
        let first: rest::Accepted = rest.post(&outgoing.path(), Some(&device.token), &body).await?;
        node.kill().await?;
        node.restart().await?;
        let again: rest::Accepted = rest.post(&outgoing.path(), Some(&device.token), &body).await?;
        ensure!(again == first, "another answer than the first");

        let mut other = body;
        other.content = vec![2; 300].into();
        let refused = rest.post::<_, rest::Accepted>(&outgoing.path(), Some(&device.token), &other).await;
        let code = refused.as_ref().err().and_then(|error| error.code());
        ensure!(code == Some("message_id_reused"), "other bytes under the same id: {refused:?}");
        Ok(())
    });
}

#[test]
fn a_second_node_under_the_same_id_is_refused_and_told_why() {
    scene::run("same-id", |scene: Scene| async move {
        let folder = scene.folder().join("database");
        let server = tokio::task::spawn_blocking(move || Postgres::start(&folder)).await??;
        server.create_database("martlet")?;
        let options = || {
            let options = NodeOptions::default().set(&format!("storage.database_url={}", server.url("martlet")));
            options.set("cluster.node_id=twin").set(&format!("storage.secret_file={}/secret", scene.folder().display()))
        };
        let mut first = Node::start(&scene, options()).await?;
        let mut second = Node::prepare(&scene, options())?;
        second.spawn()?;
        ensure!(!second.ended().await?.success(), "it has served");
        let said = second.log()?;
        ensure!(said.contains("another node runs as twin") && said.contains("cluster.node_id"), "{said}");
        // The id is free once its process is gone, however it went.
        first.kill().await?;
        second.restart().await?;
        ensure!(!second.has_ended()?, "it serves");
        Ok(())
    });
}
