//! Pages of results as they are written: nothing is missing, nothing comes from elsewhere, and nobody's text becomes markup.

use super::{Envelope, Outcome, page::page, taken::Taken};
use crate::{
    ambient,
    cli::NodeArgs,
    figures::{Percentiles, Times},
};
use serde::Serialize;
use std::time::Duration;

#[derive(Serialize)]
struct Step {
    rate: u32,
    latency: Percentiles,
    lost: u64,
}

#[derive(Serialize)]
struct Found {
    members: u32,
    steps: Vec<Step>,
    note: String,
}

impl Outcome for Found {
    fn measurement(&self) -> &'static str {
        "fanout"
    }

    fn text(&self) -> String {
        String::new()
    }

    fn is_clean(&self) -> bool {
        true
    }

    fn is_corrected(&self) -> Option<bool> {
        Some(true)
    }
}

fn found(slowest_ms: u64, note: &str) -> Found {
    let step = |rate| {
        let mut times = Times::new();
        (1..=slowest_ms).for_each(|ms| times.record(Duration::from_millis(ms)));
        Step { rate, latency: times.percentiles(), lost: 12_345 }
    };
    Found { members: 10_000, steps: vec![step(1), step(100)], note: note.to_owned() }
}

fn json(found: &Found) -> String {
    let args = NodeArgs { settings: vec!["log.filter=<b>".into()], ..NodeArgs::default() };
    let envelope = Envelope::new(found, &args, ambient::unix_ms()).expect("the time is in the calendar");
    serde_json::to_string(&envelope).expect("JSON")
}

fn taken(name: &str, found: &Found) -> Taken {
    Taken::read(name, &json(found)).expect("a result")
}

#[test]
fn an_envelope_says_where_a_result_comes_from() {
    let value: serde_json::Value = serde_json::from_str(&json(&found(10, ""))).expect("JSON");
    assert_eq!(value["measurement"], "fanout");
    assert_eq!(value["corrected_for_coordinated_omission"], true);
    assert_eq!(value["release"], env!("CARGO_PKG_VERSION"));
    assert!(value["machine"]["cores"].as_u64().is_some_and(|cores| cores > 0), "{value}");
    assert!(value["taken_at"].as_str().is_some_and(|at| at.starts_with("20") && at.ends_with('Z')), "{value}");
    let settings = value["settings"].as_array().expect("a list");
    assert_eq!(settings.last().and_then(|setting| setting.as_str()), Some("log.filter=<b>"));
    assert!(settings.len() > 1, "those of every node under load, too: {settings:?}");
    let times = &value["result"]["steps"][0]["latency"];
    assert!(times["histogram"].as_str().is_some_and(|text| !text.is_empty()), "{times}");
}

#[test]
fn a_page_has_the_figures_and_a_plot() {
    let page = page(&[taken("run", &found(250, "all well"))]).expect("a page");
    for part in
        ["fanout", "10,000", "12,345", "p50 125.1 ms", "max 250.1 ms", "all well", "latency by percentile", "99 %"]
    {
        assert!(page.contains(part), "{part} is missing");
    }
    assert_eq!(page.matches("<svg").count(), 1);
    assert_eq!(page.matches("<polyline").count(), 2 + axes(&page), "a line for each rate");
}

/// Lines of the plot that are no series: the axes are in ink.
fn axes(page: &str) -> usize {
    page.split("<polyline")
        .skip(1)
        .filter(|line| line.split('>').next().is_some_and(|tag| tag.contains("#111111")))
        .count()
}

#[test]
fn results_of_one_measurement_lie_over_each_other() {
    let page = page(&[taken("before", &found(250, "")), taken("after", &found(500, ""))]).expect("a page");
    assert_eq!(page.matches("<svg").count(), 1);
    assert_eq!(page.matches("<h2>").count(), 1);
    for part in ["before: rate 1", "after: rate 100", "p50 125.1 ms", "p50 250.1 ms"] {
        assert!(page.contains(part), "{part} is missing");
    }
}

#[test]
fn nothing_comes_from_elsewhere_and_hostile_text_stays_text() {
    let hostile = "</td><script src='https://evil.example/x.js'></script>\"&";
    let page = page(&[taken("<img src=x>", &found(20, hostile))]).expect("a page");
    for part in ["<script", "<img", "<link", "@import", "url(", "log.filter=<b>"] {
        assert!(!page.contains(part), "{part} is in the page");
    }
    assert!(page.contains("&lt;script src="), "the text is there all the same");
    // What is named besides is the SVG's own name space, which is not fetched.
    let addresses = page.matches("http").count() - page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count();
    assert_eq!(addresses, hostile.matches("http").count());
}

#[test]
fn hostile_numbers_do_no_harm() {
    let json = r#"{"measurement":"x","result":{"back":{"points":[[0,0],[1e300,1e300]]},
        "steps":[{"connections":0,"resident_bytes":-1},{"connections":1e18,"resident_bytes":1e300}],
        "a":{"p50_ms":-5,"points":[[-1e300,-7],[1e300,1e300]]},"b":{"p50_ms":1,"points":[[100,0]]}}}"#;
    let taken = Taken::read("x", json).expect("a result");
    assert!(page(&[taken]).is_ok());
    for wrong in ["", "[]", "{}", r#"{"measurement":"x"}"#, r#"{"measurement":1,"result":{}}"#] {
        assert!(Taken::read("x", wrong).is_err(), "{wrong}");
    }
}

#[test]
fn memory_who_is_back_and_shares_are_shown() {
    let json = r#"{"measurement":"all","clean":false,"debug_build":true,"corrected_for_coordinated_omission":false,"result":{
        "steps":[{"connections":5000,"resident_bytes":27000000},{"connections":10000,"resident_bytes":39500000}],
        "back":{"clients":2,"half_s":0.5,"points":[[0.5,1],[2.5,2]]},
        "parts":[{"part":"queue","mean_ms":1.0,"share_percent":25.0},{"part":"commit","mean_ms":3.0,"share_percent":75.0}],
        "troubles":{"refused: busy":3}}}"#;
    let taken = Taken::read("x", json).expect("a result");
    assert_eq!(taken.memory, [(5000.0, 27e6), (10_000.0, 39.5e6)]);
    assert_eq!(taken.back, [(0.5, 1.0), (2.5, 2.0)]);
    let page = page(&[taken]).expect("a page");
    for part in [
        "2,500 bytes per connection (slope)",
        "clients that are back",
        "shares: mean",
        "commit: 3 ms (75 %)",
        "queue: 1 ms (25 %)",
        "refused: busy",
        "debug build",
        "something was refused",
        "not corrected",
    ] {
        assert!(page.contains(part), "{part} is missing");
    }
}
