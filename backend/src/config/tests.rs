//! The sources of a config in their order of precedence, and what an operator reads when a value is wrong.

use super::*;

fn sources(file: &str) -> (tempfile::TempDir, Sources) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("test.toml");
    std::fs::write(&path, file).expect("the file is written");
    (folder, Sources { file: Some(path), ..Sources::default() })
}

fn wrong(sources: Sources) -> Vec<String> {
    let errors = sources.load().expect_err("the config is refused");
    errors.0.iter().map(ToString::to_string).collect()
}

#[test]
fn with_nothing_set_everything_is_a_default() {
    let (_folder, sources) = sources("");
    let loaded = sources.load().expect("loads");
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.origin("server.listen"), Origin::Default);
}

#[test]
fn flags_win_over_the_environment_over_the_file() {
    let (_folder, mut sources) = sources(
        "[mailbox]\nretention = \"7d\"\nmax_bytes = 2097152\n\n[server]\nworkers = 3\nmax_connections = 1_000\n",
    );
    sources.environment = vec![
        ("MARTLET__SERVER__WORKERS".into(), "5".into()),
        ("MARTLET__SERVER__MAX_CONNECTIONS".into(), "2000".into()),
        ("HOME".into(), "elsewhere".into()),
    ];
    sources.flags = vec![Flag::set("server.workers=7").expect("a pair")];
    let path = sources.file.clone().expect("a file");
    let loaded = sources.load().expect("loads");
    assert_eq!(loaded.config.server.workers, 7);
    assert_eq!(loaded.config.server.max_connections, 2000);
    assert_eq!(loaded.config.mailbox.retention, days(7));
    assert_eq!(loaded.config.mailbox.max_bytes, 2 << 20);
    assert_eq!(loaded.origin("server.workers"), Origin::Flag("--set"));
    assert_eq!(loaded.origin("server.max_connections"), Origin::Environment("MARTLET__SERVER__MAX_CONNECTIONS".into()));
    assert_eq!(loaded.origin("mailbox.retention"), Origin::File(path, 2));
}

#[test]
fn a_wrong_value_names_the_key_what_was_given_and_what_is_allowed() {
    let (_folder, mut sources) =
        sources("[socket]\nping_interval = 30\n\n[storage]\ndurability = \"none\"\nwait = [1]\n");
    let path = sources.file.clone().expect("a file");
    let path = path.display();
    sources.flags = vec![Flag::set("messages.max_content_bytes=64 GB").expect("a pair")];
    assert_eq!(
        wrong(sources),
        [
            format!(
                "socket.ping_interval: given \"30\" ({path} line 2), allowed is a length of time from 1s to 1h, like \
                 \"30s\", \"200ms\" or \"10m\""
            ),
            format!(
                "storage.durability: given \"none\" ({path} line 5), allowed is \"full\" or \"normal\""
            ),
            format!(
                "storage.wait: given \"[1]\" ({path} line 6), allowed is a length of time from 10ms to 1m, like \"30s\", \
                 \"200ms\" or \"10m\""
            ),
            "messages.max_content_bytes: given \"64 GB\" (flag --set), allowed is a size from 256 B to 16 MiB, like \"64 KiB\""
                .to_owned(),
        ]
    );
}

#[test]
fn an_unknown_key_is_named_with_its_nearest_known_one() {
    let (_folder, mut sources) = sources("[server]\nlisten_on = \"127.0.0.1:1\"\n[sorver]\nlisten = \"127.0.0.1:1\"\n");
    sources.environment = vec![("MARTLET__LOG__FORMATS".into(), "json".into())];
    let errors = wrong(sources);
    assert!(errors[0].starts_with("server.listen_on: there is no such key; did you mean server.listen?"), "{errors:?}");
    assert!(errors[1].starts_with("sorver.listen: there is no such key; did you mean server.listen?"), "{errors:?}");
    assert_eq!(
        errors[2],
        "log.formats: there is no such key; did you mean log.format? (environment MARTLET__LOG__FORMATS)"
    );
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_named() {
    let missing = Sources { file: Some("no/such/file.toml".into()), ..Sources::default() };
    assert!(wrong(missing)[0].starts_with("no/such/file.toml: "));
    let (_folder, broken) = sources("[server]\nlisten = \n");
    assert!(wrong(broken)[0].contains("test.toml line 2: "));
}

#[test]
fn what_does_not_work_together_is_refused() {
    let (_folder, sources) = sources("[server]\nlisten = \"0.0.0.0:9000\"\ninternal_listen = \"127.0.0.1:9000\"\n");
    let why = "0.0.0.0:9000 and 127.0.0.1:9000 are the same place; give one of them another port";
    assert_eq!(wrong(sources), [format!("server.listen and server.internal_listen: {why}")]);
}

#[test]
fn what_is_printed_loads_again() {
    let (_folder, first) = sources(&defaults());
    let loaded = first.load().expect("the printed defaults load");
    assert_eq!(loaded.config, Config::default());

    let (_folder, mut second) = sources("[server]\npublic_url = \"https://chat.example.org\"\n");
    second.flags = vec![Flag::set("storage.data_dir=a \"quoted\" \\ path").expect("a pair")];
    let loaded = second.load().expect("loads");
    let (_folder, third) = sources(&effective(&loaded));
    assert_eq!(third.load().expect("the printed config loads").config, loaded.config);
}

#[test]
fn every_key_is_documented_and_explains_what_is_allowed() {
    for key in Config::default().keys() {
        assert!(!key.docs.is_empty() && !key.allowed.is_empty(), "{}.{}", key.section, key.name);
    }
    let printed = defaults();
    assert!(printed.contains("# Where the node listens, and how much it takes on.\n[server]\n"), "{printed}");
    assert!(printed.contains("max_connections = 1_000_000\n"), "{printed}");
}

#[test]
fn a_password_is_shown_neither_by_what_is_printed_nor_by_an_error() {
    let text = "[relay]\nredis_url = \"redis://martlet:hunter2@redis.example.org:6379\"\n\
                [storage]\ndatabase_url = \"postgres://martlet:hunter2@db.example.org/martlet\"\n";
    let (_folder, file) = sources(text);
    let loaded = file.load().expect("loads");
    assert!(effective(&loaded).contains("redis_url = \"redis://martlet:***@redis.example.org:6379\""));
    assert!(!effective(&loaded).contains("hunter2") && !format!("{loaded:?}").contains("hunter2"));

    let (_folder, mut environment) = sources("");
    let wrong_scheme = "http://martlet:hunter2@redis.example.org";
    environment.environment = vec![("MARTLET__RELAY__REDIS_URL".into(), wrong_scheme.into())];
    let errors = wrong(environment);
    assert!(errors[0].contains("martlet:***@redis") && !errors[0].contains("hunter2"), "{errors:?}");
}
