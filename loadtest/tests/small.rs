//! Measurements in small, against a real node: they must run, find nothing wrong, and their figures must add up. How fast it was
//! is not looked at.

use std::{fs, time::Duration};

use clap::Parser as _;
use martlet_loadtest::{
    cli::{Cli, Command},
    idle, mixed,
    report::{self, conclude},
    send,
};

fn command(line: &str) -> Command {
    Cli::parse_from(["martlet-load"].into_iter().chain(line.split_whitespace())).command
}

#[test]
fn idle_connections_are_counted_and_alive() {
    let Command::Idle(args) =
        command("idle --connections 20,50 --set socket.ping_interval=1s --set socket.pong_timeout=1s")
    else {
        panic!("not idle")
    };
    let result = idle::run(&args).expect("the measurement is made");
    assert!(result.is_clean(), "{}", result.text());
    assert_eq!(
        result.steps.iter().map(|step| (step.connections, step.alive)).collect::<Vec<_>>(),
        [(20, 20), (50, 50)]
    );
    assert!(result.steps.iter().all(|step| step.heartbeats >= step.connections && step.resident_bytes.is_some()));
    assert!(result.baseline_bytes.is_some_and(|bytes| bytes > 0));
    assert!(result.text().contains("\nbytes_per_connection: "), "{}", result.text());
}

#[test]
fn sends_reach_every_device_once() {
    let line = "send --senders 2 --devices 5 --seconds 1 --warm-up 100ms --prepare 1500 --sample 10 --compare 1s";
    let Command::Send(args) = command(line) else { panic!("not send") };
    let result = send::run(&args).expect("the measurement is made");
    assert!(result.is_clean(), "{}", result.text());
    assert!(result.seconds > 0.0 && result.accepted > 0, "{}", result.text());
    // Every accepted message makes one entry for each of the six devices; those of the warm-up are checked, too, but don't count.
    assert!(result.verified.opened >= result.accepted * 6, "{}", result.text());
    assert!(result.verified.decrypted >= 10, "{}", result.text());
    assert_eq!(result.delivery.count, result.answers.count * 5, "{}", result.text());
    assert!(result.delivery.p99_ms >= result.delivery.p50_ms);
    assert!(result.row_by_row.as_ref().is_some_and(|rows| rows.rows > 0));
    assert!(result.group_commit_gain.is_some_and(|gain| gain > 0.0));
    assert!(result.text().contains("\ngroup_commit_gain: "), "{}", result.text());
}

#[test]
fn large_content_and_a_window_of_one_work_too() {
    let line = "send --senders 1 --devices 1 --seconds 1 --warm-up 10ms --prepare 4000 --window 1 --text-bytes 20000 \
                --sample 1 --ack-entries 1 --compare 1s";
    let Command::Send(args) = command(line) else { panic!("not send") };
    let result = send::run(&args).expect("the measurement is made");
    assert!(result.is_clean(), "{}", result.text());
    assert_eq!(result.verified.decrypted * 2, result.verified.opened, "{}", result.text());
}

#[test]
fn all_kinds_arrive_once_and_in_order_and_make_a_page() {
    let line = "mixed --accounts 8 --second-devices 50 --groups 2 --direct-rate 40 --group-rate 20 --presence-rate 30 --seconds 2 \
                --warm-up 200ms --sample 2";
    let Command::Mixed(mut args) = command(line) else { panic!("not mixed") };
    let folder = tempfile::tempdir().expect("a folder");
    args.node.json = Some(folder.path().join("mixed.json"));
    args.node.html = Some(folder.path().join("mixed.html"));
    let result = mixed::run(&args).expect("the measurement is made");
    assert!(conclude(&args.node, &result).expect("the files are written"), "{}", result.text());
    assert_eq!((result.accounts, result.devices, result.groups), (8, 12, 2));
    let [direct, group, presence] =
        [&result.direct, &result.group, &result.presence].map(|kind| kind.as_ref().expect("there was a rate"));
    assert_eq!((direct.messages, group.messages, presence.messages), (88, 44, 66));
    // Four circles of three devices each: a stored message reaches all of them, the sending device's echo among them.
    assert_eq!((direct.accepted, direct.entries), (88, 88 * 3));
    assert_eq!((presence.accepted, presence.entries), (66, 66 * 2));
    // Both groups have half of the accounts, and their logs are followed by all devices of these.
    assert_eq!((group.accepted, group.entries), (44, 22 * 12));
    assert_eq!((direct.delivery.count, direct.answers.count), (80 * 2, 80));
    assert_eq!(result.verified.opened, direct.entries + presence.entries);
    assert!(result.verified.decrypted > 0 && result.costs.memory.is_some(), "{}", result.text());

    let json: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(folder.path().join("mixed.json")).expect("written")).expect("JSON");
    assert_eq!(json["measurement"], "mixed");
    assert_eq!(json["result"]["direct"]["accepted"], 88);
    let Command::Report(mut args) = command("report x") else { panic!("not report") };
    args.results = vec![folder.path().join("mixed.json")];
    args.out = folder.path().join("report.html");
    report::run(&args).expect("a page");
    for page in ["mixed.html", "report.html"] {
        let page = fs::read_to_string(folder.path().join(page)).expect("written");
        assert!(page.contains("delivery by percentile") && page.contains("direct · accepted"), "{page}");
    }
}

#[test]
fn at_a_kind_s_rate_of_nothing_it_is_left_out() {
    let Command::Mixed(args) = command(
        "mixed --accounts 2 --groups 1 --direct-rate 0 --group-rate 10 --presence-rate 0 --seconds 1 --warm-up 100ms",
    ) else {
        panic!("not mixed")
    };
    let result = mixed::run(&args).expect("the measurement is made");
    assert!(result.is_clean(), "{}", result.text());
    assert!(result.direct.is_none() && result.presence.is_none());
    assert_eq!(result.group.map(|group| (group.accepted, group.entries)), Some((11, 22)));
}

#[test]
fn a_node_that_is_not_there_is_an_error_in_words() {
    let Command::Send(mut args) = command("send --senders 1") else { panic!("not send") };
    args.node.node = Some("/no/such/martlet".into());
    let error = send::run(&args).expect_err("it can't start");
    assert!(format!("{error:#}").contains("/no/such/martlet can't be started"), "{error:#}");
    assert_eq!(args.warm_up, Duration::from_secs(3));
}
