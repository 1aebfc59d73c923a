//! What a page shows of one result, found in it by its shape.

use anyhow::{Context as _, Result};

use super::tree::Tree;
use crate::figures::{grouped, grouped_f64, mib};

/// A result, ready to be shown.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Taken {
    /// What it is called beside others of its measurement.
    pub name: String,
    /// The command that took it.
    pub measurement: String,
    /// When, where, by which release: a name and a value each.
    pub circumstances: Vec<(String, String)>,
    /// Whether its latencies are corrected for coordinated omission.
    pub corrected: Option<bool>,
    /// Whether nothing was refused, lost or repeated.
    pub clean: Option<bool>,
    /// It was taken by a program that was not optimised.
    pub debug_build: bool,
    /// A name and a value each, in the result's order.
    pub figures: Vec<(String, String)>,
    /// Latencies by percentile.
    pub curves: Vec<Curve>,
    /// Connections and the node's resident bytes with them.
    pub memory: Vec<(f64, f64)>,
    /// Seconds, and how many were back by then.
    pub back: Vec<(f64, f64)>,
    /// What a latency is made of.
    pub parts: Vec<Parts>,
}

/// Latencies by percentile.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// What was timed, such as `latency` or `answers`: the curves of one kind share a plot.
    pub kind: String,
    /// Which of them, such as `rate 100`; empty if there is only one.
    pub which: String,
    /// Percent and milliseconds.
    pub points: Vec<(f64, f64)>,
}

/// The parts of a latency, on average.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// Of what.
    pub of: String,
    /// A name and milliseconds each.
    pub parts: Vec<(String, f64)>,
}

/// Members that tell the items of a list from each other, the best first.
const LABELS: &[&str] = &["rate", "connections", "clients", "name", "part"];
/// Longer lists of plain values are data, not figures.
const LONGEST_LIST: usize = 12;

impl Taken {
    /// Reads the JSON that a measurement wrote.
    ///
    /// # Errors
    /// When it is not that.
    pub fn read(name: &str, json: &str) -> Result<Self> {
        let tree: Tree = serde_json::from_str(json)?;
        let measurement = tree.get("measurement").and_then(Tree::text).context("it names no measurement")?;
        let truth = |key| match tree.get(key) {
            Some(Tree::Truth(truth)) => Some(*truth),
            _ => None,
        };
        let mut taken = Self {
            name: name.to_owned(),
            measurement: measurement.to_owned(),
            circumstances: circumstances(&tree),
            corrected: truth("corrected_for_coordinated_omission"),
            clean: truth("clean"),
            debug_build: truth("debug_build").unwrap_or(false),
            ..Self::default()
        };
        let result = tree.get("result").context("it has no result")?;
        taken.take("", "", result);
        Ok(taken)
    }

    /// Takes a value that stands under `key` in the part of the result that `path` names.
    fn take(&mut self, path: &str, key: &str, value: &Tree) {
        match value {
            Tree::Nothing => {}
            Tree::Object(_) if value.get("p50_ms").is_some() => self.take_times(path, key, value),
            Tree::Object(members) => {
                let inside = joined(path, key);
                for (name, member) in members {
                    match member.points() {
                        Some(points) if key == "back" && name == "points" => self.back = points,
                        Some(points) if !points.is_empty() => {}
                        _ => self.take(&inside, name, member),
                    }
                }
            }
            Tree::List(items) if items.iter().any(|item| matches!(item, Tree::Object(_))) => {
                if key == "parts" {
                    self.take_parts(path, items);
                }
                for (place, item) in items.iter().enumerate() {
                    self.take_memory(item);
                    self.take(&joined(path, &label(key, place, item)), "", item);
                }
            }
            Tree::List(items) if items.len() > LONGEST_LIST => {}
            Tree::List(items) => {
                let items: Vec<String> = items.iter().map(|item| shown(key, item)).collect();
                self.figure(path, key, items.join(", "));
            }
            _ => self.figure(path, key, shown(key, value)),
        }
    }

    fn figure(&mut self, path: &str, key: &str, value: String) {
        if !value.is_empty() {
            self.figures.push((joined(path, key), value));
        }
    }

    fn take_times(&mut self, path: &str, key: &str, times: &Tree) {
        let percentiles =
            [("p50", "p50_ms"), ("p95", "p95_ms"), ("p99", "p99_ms"), ("p99.9", "p999_ms"), ("max", "max_ms")];
        let of = |(name, key): (&str, &str)| Some(format!("{name} {}", milliseconds(times.get(key)?.number()?)));
        let text: Vec<String> = percentiles.into_iter().filter_map(of).collect();
        let count = times.get("count").map_or_else(String::new, |count| format!(" of {}", shown("count", count)));
        self.figures.push((joined(path, key), text.join(" · ") + &count));
        let points = times.get("points").and_then(Tree::points).unwrap_or_default();
        if !points.is_empty() {
            self.curves.push(Curve { kind: words(key), which: path.to_owned(), points });
        }
    }

    fn take_parts(&mut self, path: &str, parts: &[Tree]) {
        let part = |part: &Tree| Some((words(part.get("part")?.text()?), part.get("mean_ms")?.number()?));
        let parts: Vec<(String, f64)> = parts.iter().filter_map(part).collect();
        if parts.iter().map(|(_, ms)| ms).sum::<f64>() > 0.0 {
            self.parts.push(Parts { of: joined(path, "mean"), parts });
        }
    }

    fn take_memory(&mut self, item: &Tree) {
        let number = |key| item.get(key).and_then(Tree::number);
        self.memory.extend(number("connections").zip(number("resident_bytes")));
    }
}

fn circumstances(tree: &Tree) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let list = |key: &str| {
        let items = tree.get(key).map_or(&[][..], Tree::items);
        items.iter().map(|item| shown(key, item)).collect::<Vec<_>>().join(" ")
    };
    let mut add = |name: &str, value: String| {
        if !value.is_empty() {
            found.push((name.to_owned(), value));
        }
    };
    let text = |key: &str| tree.get(key).map_or_else(String::new, |value| shown(key, value));
    add("taken at", text("taken_at"));
    add("release", text("release"));
    add("command", list("command"));
    if let Some(Tree::Object(machine)) = tree.get("machine") {
        machine.iter().for_each(|(key, value)| add(&words(key), shown(key, value)));
    }
    add("settings of the node", list("settings"));
    found
}

fn label(key: &str, place: usize, item: &Tree) -> String {
    let found = LABELS.iter().find_map(|name| Some((*name, item.get(name)?)));
    match found {
        Some((name, value)) => format!("{} {}", words(name), shown(name, value)),
        None => format!("{} {}", words(key), place + 1),
    }
}

fn joined(path: &str, key: &str) -> String {
    match (path, key) {
        ("", key) => words(key),
        (path, "") => path.to_owned(),
        (path, key) => format!("{path} · {}", words(key)),
    }
}

/// A member's name as it is read by people.
fn words(key: &str) -> String {
    key.replace('_', " ")
}

/// A plain value as it is read by people; the member's name tells its unit.
fn shown(key: &str, value: &Tree) -> String {
    let is_size = key.ends_with("_bytes") || matches!(key, "resident" | "peak");
    match value {
        Tree::Whole(bytes) if is_size && *bytes >= 1 << 20 => format!("{} MiB", mib(*bytes)),
        Tree::Whole(number) => grouped(*number),
        Tree::Number(percent) if key.ends_with("_percent") => format!("{} %", rounded(*percent)),
        Tree::Number(number) => rounded(*number),
        Tree::Truth(truth) => if *truth { "yes" } else { "no" }.to_owned(),
        Tree::Text(text) => text.clone(),
        Tree::Nothing | Tree::List(_) | Tree::Object(_) => String::new(),
    }
}

/// With as many digits as matter.
fn rounded(number: f64) -> String {
    match number.abs() {
        0.0 => "0".to_owned(),
        small if small < 10.0 => format!("{number:.3}").trim_end_matches('0').trim_end_matches('.').to_owned(),
        medium if medium < 1000.0 => format!("{number:.1}").trim_end_matches(".0").to_owned(),
        _ => grouped_f64(number),
    }
}

/// In the unit that suits it.
pub fn milliseconds(ms: f64) -> String {
    match ms {
        micro if micro < 1.0 => format!("{:.0} µs", micro * 1000.0),
        milli if milli < 1000.0 => format!("{} ms", rounded(milli)),
        long => format!("{} s", rounded(long / 1000.0)),
    }
}
