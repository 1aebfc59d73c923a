//! Results as `martlet-load` writes them, shortened to what tables are made of, and the exact Markdown that comes of them.

use super::*;

const HEAD: &str = "| measured | figure | target | conditions |\n|---|---|---|---|\n";

fn json(text: &str) -> Json {
    Json::parse("x.json", text).expect("JSON")
}

fn times(p50: f64, p95: f64, p99: f64) -> String {
    format!(r#"{{"count":9,"p50_ms":{p50},"p95_ms":{p95},"p99_ms":{p99},"p999_ms":1.0,"max_ms":1.0}}"#)
}

fn shown(table: Result<Table>) -> String {
    table.expect("a table").markdown()
}

fn fanout_result(steps: &[(u32, f64, f64, u64)]) -> Json {
    let step = |(rate, p95, p99, lost): &(u32, f64, f64, u64)| {
        format!(
            r#"{{"rate":{rate},"lost":{lost},"entries_per_second":992091.4,"latency":{},"answers":{},
                "bytes_for_stopped":6000000,"bytes_in_buffers":2500000,"node_cpu_percent":95.0,"node_cpu_us_per_entry":0.957,"own_cpu_percent":78.0,
                "memory":{{"resident_bytes":1,"peak_bytes":104857600}}}}"#,
            times(13.0, *p95, *p99),
            times(2.0, 3.0, 4.0)
        )
    };
    let steps: Vec<_> = steps.iter().map(step).collect();
    json(&format!(r#"{{"result":{{"members":10000,"stopped_for_s":60.0,"steps":[{}]}}}}"#, steps.join(",")))
}

#[test]
fn idle_has_memory_in_both_modes() {
    let result = |slope: f64| {
        json(&format!(
            r#"{{"result":{{"baseline_bytes":43096064,"bytes_per_connection":{slope},
                "steps":[{{"connections":5000,"alive":5000}},{{"connections":19000,"alive":18981}}]}}}}"#
        ))
    };
    assert_eq!(
        shown(idle(&[result(2606.4), result(3600.0)])),
        format!(
            "{HEAD}| memory per connection | 2,606 bytes | at most 3,500 bytes | embedded; 5,000; 19,000 connections, heartbeats on; slope |\n\
             | without connections | 41.1 MiB |  | embedded |\n\
             | alive at the end | 99.9 % | at least 100 % (**missed**) | embedded |\n\
             | memory per connection | 3,600 bytes | at most 3,500 bytes (**missed**) | cluster; 5,000; 19,000 connections, heartbeats on; slope |\n\
             | without connections | 41.1 MiB |  | cluster |\n\
             | alive at the end | 99.9 % | at least 100 % (**missed**) | cluster |\n"
        )
    );
}

#[test]
fn a_fan_out_has_rates_latencies_and_costs() {
    let on = "10,000 readers, 100 messages a second";
    assert_eq!(
        shown(fanout(&[fanout_result(&[(100, 246.0, 299.0, 0)])])),
        format!(
            "{HEAD}| deliveries a second | 992,091 |  | {on} |\n\
             | delivery p50 | 13.0 ms |  | {on} |\n\
             | delivery p95 | 246.0 ms | below 250 ms | {on} |\n\
             | delivery p99 | 299.0 ms |  | {on} |\n\
             | durable p50 | 2.0 ms |  | from the moment it was due to the answer |\n\
             | durable p95 | 3.0 ms |  | from the moment it was due to the answer |\n\
             | durable p99 | 4.0 ms |  | from the moment it was due to the answer |\n\
             | lost | 0 | at most 0 | {on} |\n\
             | node, per delivery | 0.96 µs |  | processor time |\n\
             | cores in use | 0.95 |  | node; load generator: 0.78 |\n"
        )
    );
}

#[test]
fn the_highest_rate_is_one_that_lost_nothing() {
    let result = fanout_result(&[(125, 240.0, 1.0, 0), (150, 249.0, 1.0, 3), (200, 260.0, 1.0, 0)]);
    assert_eq!(
        shown(fanout_rates(&[result])),
        format!(
            "{HEAD}| delivery p95 at 125 a second | 240 ms | below 250 ms | 992,091 deliveries a second; lost 0 |\n\
             | delivery p95 at 150 a second | 249 ms | below 250 ms | 992,091 deliveries a second; lost 3 |\n\
             | delivery p95 at 200 a second | 260 ms | below 250 ms (**missed**) | 992,091 deliveries a second; lost 0 |\n\
             | highest of these that holds p95 | 125 a second | at least 200 a second (**missed**) | 10,000 readers; 0: none of these does |\n"
        )
    );
}

#[test]
fn pairs_are_compared_by_their_medians() {
    let with_p99 = |p99: f64| fanout_result(&[(100, 1.0, p99, 0)]);
    let results: Vec<_> = [40.0, 41.0, 50.0, 54.0, 60.0, 90.0].map(with_p99).into();
    assert_eq!(
        shown(stopped(&results)),
        format!(
            "{HEAD}| p99, nobody stops | 50.0 ms |  | median of 3; 10,000 readers |\n\
             | p99 of the others, one stops | 54.0 ms |  | median of 3; 10,000 readers; one stops for 60 s |\n\
             | that moves it by | 8.0 % | at most 10 % | median of 3; 10,000 readers |\n\
             | lost | 0 | at most 0 | all runs, the one that stopped included |\n\
             | node's memory at most | 100.0 MiB |  | 100.0 MiB if nobody stops |\n\
             | for the one that stopped, in the system's buffers | 2,500,000 bytes |  | \
             of 6,000,000 bytes written meanwhile; what is over it the node had not sent |\n"
        )
    );
    assert!(stopped(&results[..3]).is_err(), "half a pair");
}

#[test]
fn an_open_loop_has_its_parts() {
    let result = |p50: f64| {
        json(&format!(
            r#"{{"result":{{"senders":5000,"devices":1,"rate":1000,"delivery":{},
                "parts":[{{"part":"commit","mean_ms":1.234,"share_percent":61.0}}],
                "verified":{{"lost":1,"fault_count":2}}}}}}"#,
            times(p50, 9.0, 24.0)
        ))
    };
    let rows = |mode: &str, p50: &str| {
        let on = format!("{mode}; 1,000 sends a second by 5,000 devices, each to 1 other");
        format!(
            "| delivery p50 | {p50} | {on} |\n| delivery p95 | 9.0 ms |  | {on} |\n\
             | delivery p99 | 24.0 ms | at most 25 ms | {on} |\n\
             | of it: commit | 61 % |  | {mode}; 1.23 ms on average |\n\
             | lost or repeated | 3 | at most 0 (**missed**) | {mode} |\n"
        )
    };
    let (first, second) =
        (rows("embedded", "4.0 ms | at most 5 ms"), rows("cluster", "6.0 ms | at most 5 ms (**missed**)"));
    assert_eq!(shown(send_open(&[result(4.0), result(6.0)])), format!("{HEAD}{first}{second}"));
}

#[test]
fn a_storm_that_never_ends_says_so() {
    let result = json(
        r#"{"result":{"clients":15000,"lost":0,"back":{"clients":14999,"half_s":7.7,"p99_s":11.0,"all_s":null}}}"#,
    );
    let on = "15,000 clients, the node killed and started again";
    assert_eq!(
        shown(storm(&[result])),
        format!(
            "{HEAD}| back and caught up | 100.0 % | at least 100 % (**missed**) | {on} |\n\
             | half of them after | 7.7 s |  | from the node's return |\n\
             | 99 of 100 after | 11.0 s |  | from the node's return |\n\
             | all after | never |  | from the node's return |\n\
             | lost | 0 | at most 0 | {on} |\n"
        )
    );
}

#[test]
fn peers_stand_beside_each_other() {
    let turn = |bytes: f64, deliveries: f64| {
        format!(
            r#"{{"bytes_per_connection":{bytes},"bytes_per_connection_since_start":{},"deliveries_per_second":{deliveries},
                "missing":0,"server_cpu_us_per_delivery":0.23,"own_cpu_us_per_delivery":0.17}}"#,
            bytes + 100.0
        )
    };
    let result = json(&format!(
        r#"{{"result":{{"subscribers":15000,"messages":100,"content_bytes":200,"nchan_workers":1,
            "ours":[{},{},{}],"nchan":[{}],"memory_ratio":0.255,"deliveries_ratio":18.43}}}}"#,
        turn(2600.0, 2e6),
        turn(2500.0, 3e6),
        turn(2700.0, 2.5e6),
        turn(10_200.0, 135_000.0)
    ));
    let on = "15,000 subscribers, 100 messages of 200 bytes; nchan with 1 worker(s)";
    let costs = "processor time each: server 0.23 µs, load generator 0.17 µs";
    assert_eq!(
        shown(peers(&[result])),
        format!(
            "{HEAD}| Martlet: memory per connection | 2,600 bytes |  | median of 3 turns; 2,700 with all that is allocated once |\n\
             | Martlet: deliveries a second | 2,500,000 |  | median of 3 turns; {costs} |\n\
             | Martlet: missing | 0 | at most 0 | all turns |\n\
             | nchan: memory per connection | 10,200 bytes |  | median of 1 turns; 10,300 with all that is allocated once |\n\
             | nchan: deliveries a second | 135,000 |  | median of 1 turns; {costs} |\n\
             | nchan: missing | 0 | at most 0 | all turns |\n\
             | memory, of nchan's | 0.26 | at most 0.35 | {on} |\n\
             | deliveries, times nchan's | 18.4 | at least 10 | {on} |\n"
        )
    );
}

#[test]
fn what_is_missing_is_an_error_and_no_table() {
    let empty = json(r#"{"result":{}}"#);
    let tables: [Maker; 7] = [fanout, fanout_one, fanout_rates, jitter, storm, mixed, peers];
    for table in tables {
        assert!(table(std::slice::from_ref(&empty)).is_err());
        assert!(table(&[]).is_err());
    }
    for table in [idle, send, send_open, stopped] {
        assert!(table(&[empty.clone(), empty.clone()]).is_err());
        assert!(table(&[]).is_err());
    }
}
