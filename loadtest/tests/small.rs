//! Both measurements in small, against a real node: they must run, find nothing wrong, and their figures must add up. How fast it was
//! is not looked at.

use std::time::Duration;

use clap::Parser as _;
use martlet_loadtest::{
    cli::{Cli, Command},
    idle, send,
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
    assert!(result.row_by_row.rows > 0 && result.group_commit_gain > 0.0);
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
fn a_node_that_is_not_there_is_an_error_in_words() {
    let Command::Send(mut args) = command("send --senders 1") else { panic!("not send") };
    args.node.node = Some("/no/such/martlet".into());
    let error = send::run(&args).expect_err("it can't start");
    assert!(format!("{error:#}").contains("/no/such/martlet can't be started"), "{error:#}");
    assert_eq!(args.warm_up, Duration::from_secs(3));
}
