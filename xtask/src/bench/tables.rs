//! From the results of `martlet-load` to rows. Each takes the results of its measurement's runs in their order ([`super::set`]).

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

use super::{
    json::{Json, median},
    table::{Table, Target, grouped},
};

const MIB: f64 = 1_048_576.0;

/// Makes a table of a measurement's results.
pub type Maker = fn(&[Json]) -> Result<Table>;

/// `idle`: embedded, then in a cluster.
pub fn idle(results: &[Json]) -> Result<Table> {
    let mut table = Table::default();
    for (json, mode) in modes(results)? {
        let steps = json.list("/result/steps")?;
        let counts =
            steps.iter().map(|step| Ok(grouped(step.number("/connections")?, 0))).collect::<Result<Vec<_>>>()?;
        let last = steps.last().context("there are no steps")?;
        let conditions = format!("{mode}; {} connections, heartbeats on; slope", counts.join("; "));
        let per_connection = json.number("/result/bytes_per_connection")?;
        table.aimed("memory per connection", (per_connection, 0, " bytes"), Target::AtMost(3_500.0), conditions);
        let baseline = json.number("/result/baseline_bytes")? / MIB;
        table.row("without connections", format!("{baseline:.1} MiB"), mode);
        let alive = last.number("/alive")?;
        let all = last.number("/connections")?;
        table.aimed("alive at the end", (100.0 * alive / all, 1, " %"), Target::AtLeast(100.0), mode);
    }
    Ok(table)
}

/// `fanout` at a hundred messages a second.
pub fn fanout(results: &[Json]) -> Result<Table> {
    let [json] = results else { return Err(wrong_count(results)) };
    let mut table = Table::default();
    for step in json.list("/result/steps")? {
        let conditions = format!("{} readers, {} messages a second", members(json)?, whole(&step, "/rate")?);
        let entries = grouped(step.number("/entries_per_second")?, 0);
        table.row("deliveries a second", entries, &conditions);
        latencies(&mut table, "delivery", &step.at("/latency")?, &[("p95", Target::Below(250.0))], &conditions)?;
        latencies(&mut table, "durable", &step.at("/answers")?, &[], "from the moment it was due to the answer")?;
        table.aimed("lost", (step.number("/lost")?, 0, ""), Target::AtMost(0.0), &conditions);
        let node = step.number("/node_cpu_us_per_entry")?;
        table.row("node, per delivery", format!("{node:.2} µs"), "processor time");
        let (node, own) = (step.number("/node_cpu_percent")? / 100.0, step.number("/own_cpu_percent")? / 100.0);
        table.row("cores in use", format!("{node:.2}"), format!("node; load generator: {own:.2}"));
    }
    Ok(table)
}

/// `fanout` at one message a second.
pub fn fanout_one(results: &[Json]) -> Result<Table> {
    let [json] = results else { return Err(wrong_count(results)) };
    let mut table = Table::default();
    for step in json.list("/result/steps")? {
        let conditions = format!("{} readers, {} message a second", members(json)?, whole(&step, "/rate")?);
        let aims = [("p50", Target::AtMost(25.0)), ("p99", Target::AtMost(60.0))];
        latencies(&mut table, "delivery", &step.at("/latency")?, &aims, &conditions)?;
        table.aimed("lost", (step.number("/lost")?, 0, ""), Target::AtMost(0.0), &conditions);
    }
    Ok(table)
}

/// `fanout` at ascending rates: each of them, and the highest that holds.
pub fn fanout_rates(results: &[Json]) -> Result<Table> {
    const LIMIT_MS: f64 = 250.0;
    let [json] = results else { return Err(wrong_count(results)) };
    let mut table = Table::default();
    let mut highest = 0.0_f64;
    for step in json.list("/result/steps")? {
        let (rate, p95) = (step.number("/rate")?, step.number("/latency/p95_ms")?);
        let (lost, entries) = (step.number("/lost")?, grouped(step.number("/entries_per_second")?, 0));
        if p95 < LIMIT_MS && lost == 0.0 {
            highest = highest.max(rate);
        }
        let conditions = format!("{entries} deliveries a second; lost {}", grouped(lost, 0));
        table.aimed(
            format!("delivery p95 at {rate:.0} a second"),
            (p95, 0, " ms"),
            Target::Below(LIMIT_MS),
            conditions,
        );
    }
    let conditions = format!("{} readers; 0: none of these does", members(json)?);
    table.aimed("highest of these that holds p95", (highest, 0, " a second"), Target::AtLeast(200.0), conditions);
    Ok(table)
}

/// Pairs of `fanout`, without and with a reader that stops.
pub fn stopped(results: &[Json]) -> Result<Table> {
    ensure!(!results.is_empty() && results.len().is_multiple_of(2), "{} results are no pairs", results.len());
    let pairs = results.len() / 2;
    let of = |offset: usize, pointer: &str| -> Result<f64> {
        median(results.iter().skip(offset).step_by(2).map(|json| json.number(pointer)).collect::<Result<Vec<_>>>()?)
    };
    let p99 = "/result/steps/0/latency/p99_ms";
    let (without, with) = (of(0, p99)?, of(1, p99)?);
    let conditions = format!("median of {pairs}; {} readers", members(&results[0])?);
    let mut table = Table::default();
    table.row("p99, nobody stops", format!("{without:.1} ms"), &conditions);
    let stops = format!("{conditions}; one stops for {:.0} s", results[1].number("/result/stopped_for_s")?);
    table.row("p99 of the others, one stops", format!("{with:.1} ms"), stops);
    table.aimed("that moves it by", (100.0 * (with / without - 1.0), 1, " %"), Target::AtMost(10.0), &conditions);
    let lost = results.iter().map(|json| json.number("/result/steps/0/lost")).sum::<Result<f64>>()?;
    table.aimed("lost", (lost, 0, ""), Target::AtMost(0.0), "all runs, the one that stopped included");
    let memory = "/result/steps/0/memory/peak_bytes";
    let (without, with) = (of(0, memory)? / MIB, of(1, memory)? / MIB);
    table.row("node's memory at most", format!("{with:.1} MiB"), format!("{without:.1} MiB if nobody stops"));
    let (written, buffered) = (of(1, "/result/steps/0/bytes_for_stopped")?, of(1, "/result/steps/0/bytes_in_buffers")?);
    let held_back =
        format!("of {} bytes written meanwhile; what is over it the node had not sent", grouped(written, 0));
    table.row(
        "for the one that stopped, in the system's buffers",
        format!("{} bytes", grouped(buffered, 0)),
        held_back,
    );
    Ok(table)
}

/// `send` in a closed loop: embedded, then in a cluster.
pub fn send(results: &[Json]) -> Result<Table> {
    let mut table = Table::default();
    for (json, mode) in modes(results)? {
        let loop_is = format!(
            "{mode}; {} senders, {} other devices, {} unanswered each",
            whole(json, "/result/senders")?,
            whole(json, "/result/devices")?,
            whole(json, "/result/window")?
        );
        table.row("accepted sends a second", grouped(json.number("/result/sends_per_second")?, 0), &loop_is);
        table.row("forks a second", grouped(json.number("/result/forks_per_second")?, 0), mode);
        latencies(&mut table, "delivery", &json.at("/result/delivery")?, &[], &format!("{mode}; every queue full"))?;
        let gain = json.number("/result/group_commit_gain")?;
        table.row(
            "forks over rows written one by one",
            format!("{gain:.1}"),
            format!("{mode}; same disk, same durability"),
        );
        let node = json.number("/result/node_cpu_us_per_fork")?;
        table.row("node, per fork", format!("{node:.1} µs"), format!("{mode}; processor time"));
        table.aimed("lost or repeated", (wrong_entries(json)?, 0, ""), Target::AtMost(0.0), mode);
    }
    Ok(table)
}

/// `send` in an open loop: embedded, then in a cluster.
pub fn send_open(results: &[Json]) -> Result<Table> {
    let mut table = Table::default();
    for (json, mode) in modes(results)? {
        let conditions = format!(
            "{mode}; {} sends a second by {} devices, each to {} other",
            whole(json, "/result/rate")?,
            whole(json, "/result/senders")?,
            whole(json, "/result/devices")?
        );
        let aims = [("p50", Target::AtMost(5.0)), ("p99", Target::AtMost(25.0))];
        latencies(&mut table, "delivery", &json.at("/result/delivery")?, &aims, &conditions)?;
        for part in json.list("/result/parts")? {
            let (mean, share) = (part.number("/mean_ms")?, part.number("/share_percent")?);
            table.row(
                format!("of it: {}", part.text("/part")?),
                format!("{share:.0} %"),
                format!("{mode}; {mean:.2} ms on average"),
            );
        }
        table.aimed("lost or repeated", (wrong_entries(json)?, 0, ""), Target::AtMost(0.0), mode);
    }
    Ok(table)
}

/// `jitter`.
pub fn jitter(results: &[Json]) -> Result<Table> {
    let [json] = results else { return Err(wrong_count(results)) };
    let mut table = Table::default();
    let conditions =
        format!("{} clients, {} returns", whole(json, "/result/clients")?, whole(json, "/result/returns")?);
    let delivered = json.number("/result/delivered_percent")?;
    table.aimed("delivered", (delivered, 2, " %"), Target::AtLeast(100.0), &conditions);
    let aims = [("p99", Target::Below(100.0))];
    latencies(&mut table, "return to caught up", &json.at("/result/catching_up")?, &aims, &conditions)?;
    let aims = [("p99", Target::Below(2_500.0))];
    latencies(&mut table, "delivery", &json.at("/result/latency")?, &aims, "the absence is in it")?;
    latencies(&mut table, "of what was missed", &json.at("/result/replay_latency")?, &[], "the absence is in it")?;
    Ok(table)
}

/// `storm`.
pub fn storm(results: &[Json]) -> Result<Table> {
    let [json] = results else { return Err(wrong_count(results)) };
    let mut table = Table::default();
    let clients = json.number("/result/clients")?;
    let conditions = format!("{} clients, the node killed and started again", grouped(clients, 0));
    let back = 100.0 * json.number("/result/back/clients")? / clients;
    table.aimed("back and caught up", (back, 1, " %"), Target::AtLeast(100.0), &conditions);
    for (what, place) in [("half of them after", "half_s"), ("99 of 100 after", "p99_s"), ("all after", "all_s")] {
        let seconds = json.number(&format!("/result/back/{place}"));
        // Without an end if not all came back; the row above says so.
        let seconds = if back < 100.0 { seconds.ok() } else { Some(seconds?) };
        table.row(what, seconds.map_or_else(|| "never".to_owned(), |s| format!("{s:.1} s")), "from the node's return");
    }
    table.aimed("lost", (json.number("/result/lost")?, 0, ""), Target::AtMost(0.0), &conditions);
    Ok(table)
}

/// `mixed`.
pub fn mixed(results: &[Json]) -> Result<Table> {
    let [json] = results else { return Err(wrong_count(results)) };
    let mut table = Table::default();
    let devices =
        format!("{} devices of {} accounts", whole(json, "/result/devices")?, whole(json, "/result/accounts")?);
    for kind in ["direct", "group", "presence"] {
        let found = json.at(&format!("/result/{kind}"))?;
        let conditions = format!("{} a second; {devices}", whole(&found, "/due_per_second")?);
        latencies(&mut table, &format!("{kind}: delivery"), &found.at("/delivery")?, &[], &conditions)?;
        let lost = found.number("/lost")? + found.number("/surplus")?;
        table.aimed(format!("{kind}: lost or repeated"), (lost, 0, ""), Target::AtMost(0.0), "");
    }
    table.row("entries a second", grouped(json.number("/result/entries_per_second")?, 0), devices);
    Ok(table)
}

/// `peers`.
pub fn peers(results: &[Json]) -> Result<Table> {
    let [json] = results else { return Err(wrong_count(results)) };
    let mut table = Table::default();
    let conditions = format!(
        "{} subscribers, {} messages of {} bytes; nchan with {} worker(s)",
        whole(json, "/result/subscribers")?,
        whole(json, "/result/messages")?,
        whole(json, "/result/content_bytes")?,
        whole(json, "/result/nchan_workers")?
    );
    for (side, name) in [("ours", "Martlet"), ("nchan", "nchan")] {
        let turns = json.list(&format!("/result/{side}"))?;
        let of = |pointer: &str| median(turns.iter().map(|turn| turn.number(pointer)).collect::<Result<Vec<_>>>()?);
        let turns_are = format!("median of {} turns", turns.len());
        let (bytes, cold) = (of("/bytes_per_connection")?, of("/bytes_per_connection_since_start")?);
        let memory = format!("{turns_are}; {} with all that is allocated once", grouped(cold, 0));
        table.row(format!("{name}: memory per connection"), format!("{} bytes", grouped(bytes, 0)), memory);
        let own = of("/own_cpu_us_per_delivery")?;
        let server = of("/server_cpu_us_per_delivery")?;
        let costs = format!("{turns_are}; processor time each: server {server:.2} µs, load generator {own:.2} µs");
        table.row(format!("{name}: deliveries a second"), grouped(of("/deliveries_per_second")?, 0), costs);
        let missing = turns.iter().map(|turn| turn.number("/missing")).sum::<Result<f64>>()?;
        table.aimed(format!("{name}: missing"), (missing, 0, ""), Target::AtMost(0.0), "all turns");
    }
    let memory = json.number("/result/memory_ratio")?;
    table.aimed("memory, of nchan's", (memory, 2, ""), Target::AtMost(0.35), &conditions);
    let deliveries = json.number("/result/deliveries_ratio")?;
    table.aimed("deliveries, times nchan's", (deliveries, 1, ""), Target::AtLeast(10.0), &conditions);
    Ok(table)
}

/// Percentiles of times; those with an aim beside it.
fn latencies(table: &mut Table, what: &str, times: &Json, aims: &[(&str, Target)], conditions: &str) -> Result<()> {
    let aims: BTreeMap<_, _> = aims.iter().copied().collect();
    for name in ["p50", "p95", "p99"] {
        let ms = times.number(&format!("/{name}_ms"))?;
        match aims.get(name) {
            Some(aim) => table.aimed(format!("{what} {name}"), (ms, 1, " ms"), *aim, conditions),
            None => table.row(format!("{what} {name}"), format!("{} ms", grouped(ms, 1)), conditions),
        }
    }
    Ok(())
}

/// Two results: of one node on the embedded default, and of a cluster.
fn modes(results: &[Json]) -> Result<[(&Json, &'static str); 2]> {
    let [embedded, cluster] = results else { return Err(wrong_count(results)) };
    Ok([(embedded, "embedded"), (cluster, "cluster")])
}

fn wrong_count(results: &[Json]) -> anyhow::Error {
    anyhow::anyhow!("{} results are not as many as there are runs", results.len())
}

fn members(json: &Json) -> Result<String> {
    whole(json, "/result/members")
}

fn whole(json: &Json, pointer: &str) -> Result<String> {
    Ok(grouped(json.number(pointer)?, 0))
}

/// Entries that `send` found missing or wrong afterwards.
fn wrong_entries(json: &Json) -> Result<f64> {
    Ok(json.number("/result/verified/lost")? + json.number("/result/verified/fault_count")?)
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
