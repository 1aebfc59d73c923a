//! What is measured, and with which arguments. Figures of the quick arguments mean nothing: they show that everything works.

use anyhow::{Result, ensure};

use super::tables::{
    Maker, fanout, fanout_one, fanout_rates, idle, jitter, mixed, peers, send, send_open, stopped, storm,
};
use crate::tools::Need;

/// One measurement, which has one table.
pub struct Measurement {
    /// What it is asked for by, and what its place in the document is called.
    pub name: &'static str,
    /// For the line that says that it begins.
    pub what: &'static str,
    /// What must be installed.
    pub needs: Option<Need>,
    /// How it is taken.
    pub kind: Kind,
}

/// How a measurement is taken.
pub enum Kind {
    /// Runs of `martlet-load`, one after the other, the whole row of them as often as `times` says.
    Load {
        /// What is run.
        steps: &'static [Step],
        /// How often; once if quick.
        times: usize,
        /// From their results, in that order.
        table: Maker,
    },
    /// The benches of the crates.
    Criterion,
    /// The k6 check of the promises.
    K6,
}

/// One run of `martlet-load`.
pub struct Step {
    /// Its file, without ending.
    pub file: &'static str,
    /// What it is called with.
    pub arguments: &'static str,
    /// The same when it must be quick.
    pub quick: &'static str,
}

const fn step(file: &'static str, arguments: &'static str, quick: &'static str) -> Step {
    Step { file, arguments, quick }
}

const fn load(name: &'static str, what: &'static str, steps: &'static [Step], table: Maker) -> Measurement {
    Measurement { name, what, needs: None, kind: Kind::Load { steps, times: 1, table } }
}

impl Measurement {
    const fn needs(self, need: Need) -> Self {
        Self { needs: Some(need), ..self }
    }
}

/// All of it, in the order in which it is run.
pub const SET: &[Measurement] = &[
    Measurement {
        name: "criterion",
        what: "single steps: seal, fork, encode, hub pass, mailbox",
        needs: None,
        kind: Kind::Criterion,
    },
    load(
        "idle",
        "memory per connection at rest, embedded and in a cluster",
        &[
            step("idle", "idle --connections 5000,10000,19000", "idle --connections 200,400 --settle 2s"),
            step(
                "idle-cluster",
                "idle --cluster --connections 5000,10000,19000",
                "idle --cluster --connections 200,400 --settle 2s",
            ),
        ],
        idle,
    )
    .needs(Need::Cluster),
    load(
        "fanout",
        "a million deliveries a second to one group",
        &[step(
            "fanout",
            "fanout --members 10000 --rate 100 --seconds 30",
            "fanout --members 100 --rate 50 --seconds 2 --warm-up 500ms",
        )],
        fanout,
    ),
    load(
        "fanout-one",
        "one message a second to one group",
        &[step(
            "fanout-one",
            "fanout --members 10000 --rate 1 --seconds 60",
            "fanout --members 100 --rate 1 --seconds 3 --warm-up 1s",
        )],
        fanout_one,
    ),
    load(
        "fanout-rates",
        "the highest rate that one group can be written to",
        &[step(
            "fanout-rates",
            "fanout --members 10000 --rate 125,150,200 --seconds 20",
            "fanout --members 100 --rate 20,40 --seconds 2 --warm-up 500ms",
        )],
        fanout_rates,
    ),
    Measurement {
        name: "stopped",
        what: "one of 1,000 readers stops for a minute, five pairs",
        needs: None,
        kind: Kind::Load {
            steps: &[
                step(
                    "stopped-none",
                    "fanout --members 1000 --rate 100 --seconds 75 --content-bytes 1000",
                    "fanout --members 100 --rate 20 --seconds 4 --warm-up 500ms",
                ),
                step(
                    "stopped-one",
                    "fanout --members 1000 --rate 100 --seconds 75 --content-bytes 1000 --stop 1 --stop-for 60s",
                    "fanout --members 100 --rate 20 --seconds 4 --warm-up 500ms --stop 1 --stop-for 2s",
                ),
            ],
            times: 5,
            table: stopped,
        },
    },
    load(
        "send",
        "as many direct messages as a node takes, embedded and in a cluster of three",
        &[
            step(
                "send",
                "send --senders 200 --devices 5 --seconds 20",
                "send --senders 5 --devices 2 --seconds 2 --warm-up 500ms --compare 1s",
            ),
            step(
                "send-cluster",
                "send --cluster 3 --senders 200 --devices 5 --seconds 20",
                "send --cluster 2 --senders 5 --devices 2 --seconds 2 --warm-up 500ms --compare 1s",
            ),
        ],
        send,
    )
    .needs(Need::Cluster),
    load(
        "send-open",
        "1,000 direct messages a second between 10,000 devices, embedded and in a cluster of three",
        &[
            step(
                "send-open",
                "send --rate 1000 --senders 5000 --devices 1 --seconds 30",
                "send --rate 50 --senders 20 --devices 1 --seconds 2 --warm-up 500ms",
            ),
            step(
                "send-open-cluster",
                "send --cluster 3 --rate 1000 --senders 5000 --devices 1 --seconds 30",
                "send --cluster 2 --rate 50 --senders 20 --devices 1 --seconds 2 --warm-up 500ms",
            ),
        ],
        send_open,
    )
    .needs(Need::Cluster),
    load(
        "jitter",
        "10,000 clients whose sockets are cut again and again",
        &[step("jitter", "jitter", "jitter --clients 100 --messages 20 --over 6s --every 2s --away 500ms")],
        jitter,
    ),
    load(
        "storm",
        "15,000 clients return to a restarted node",
        &[step("storm", "storm --clients 15000", "storm --clients 200 --messages 5 --over 2s")],
        storm,
    ),
    load(
        "mixed",
        "direct and group messages and presence together",
        &[step(
            "mixed",
            "mixed",
            "mixed --accounts 40 --groups 2 --direct-rate 20 --group-rate 5 --presence-rate 5 --seconds 2",
        )],
        mixed,
    ),
    load("peers", "beside nchan, in turns", &[step("peers", "peers", "peers --turns 1 --subscribers 300")], peers)
        .needs(Need::Nchan),
    Measurement { name: "k6", what: "the promises, checked with k6", needs: Some(Need::K6), kind: Kind::K6 },
];

/// Those that are named, in their order; all if none is.
///
/// # Errors
/// There is none of a name.
pub fn choose(names: &[String]) -> Result<Vec<&'static Measurement>> {
    let all: Vec<_> = SET.iter().map(|measurement| measurement.name).collect();
    for name in names {
        ensure!(all.contains(&name.as_str()), "there is no measurement {name}; there are: {}", all.join(", "));
    }
    Ok(SET.iter().filter(|measurement| names.is_empty() || names.iter().any(|name| name == measurement.name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_and_unknown_ones_are_told() {
        assert_eq!(choose(&[]).expect("all").len(), SET.len());
        let two = choose(&["storm".into(), "idle".into()]).expect("both are there");
        assert_eq!(two.iter().map(|measurement| measurement.name).collect::<Vec<_>>(), ["idle", "storm"]);
        let told = choose(&["idel".into()]).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(told.starts_with("there is no measurement idel; there are: criterion, idle"), "{told}");
    }

    #[test]
    fn no_two_runs_write_the_same_file() {
        let steps = SET.iter().flat_map(|measurement| match measurement.kind {
            Kind::Load { steps, .. } => steps,
            Kind::Criterion | Kind::K6 => &[],
        });
        let files: Vec<_> = steps.map(|step| step.file).collect();
        let different: std::collections::BTreeSet<_> = files.iter().collect();
        assert_eq!(different.len(), files.len());
    }
}
