//! Who ends the node, and when.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rand::{RngExt as _, rngs::StdRng};
use tokio::time::sleep;

use super::Shared;
use crate::node::Node;

/// How often, and between which times after the node serves again.
#[derive(Debug, Clone, Copy)]
pub struct KillPlan {
    /// Kills.
    pub kills: usize,
    /// Earliest.
    pub least: Duration,
    /// Latest.
    pub most: Duration,
}

impl KillPlan {
    /// As many kills as the environment variable says, or `kills`.
    ///
    /// # Errors
    /// The variable is no number.
    pub fn from_env(variable: &str, kills: usize) -> Result<Self> {
        let kills = match std::env::var(variable) {
            Ok(text) => text.parse().with_context(|| format!("{variable} is not a number"))?,
            Err(_) => kills,
        };
        Ok(Self { kills, least: Duration::from_millis(20), most: Duration::from_millis(900) })
    }
}

/// Ends the node again and again, at drawn moments; it serves when this returns.
///
/// One kill in six comes while the node starts, when it recovers its store.
///
/// # Errors
/// The node did not start again, or ended by itself.
pub async fn kill_many(node: &mut Node, plan: KillPlan, shared: &Shared, rng: &mut StdRng) -> Result<()> {
    for kill in 1..=plan.kills {
        sleep(rng.random_range(plan.least..=plan.most)).await;
        node.kill().await.with_context(|| format!("kill {kill}"))?;
        if rng.random_ratio(1, 6) {
            node.spawn()?;
            sleep(Duration::from_millis(rng.random_range(0..150))).await;
            node.kill().await.with_context(|| format!("kill {kill}, at its start"))?;
        }
        node.restart().await.with_context(|| format!("after kill {kill}"))?;
        if kill % 10 == 0 {
            println!("{kill} kills, {} sends accepted", shared.history.lock().accepted());
        }
    }
    Ok(())
}
