//! The weather: draws faults, lets them overlap, counts them, and looks after nodes that end by themselves.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Result;
use rand::{RngExt as _, rngs::StdRng};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    cluster::{Cluster, supervise},
    faults::{Fault, Kind, Target},
    world::World,
};

/// Between two faults.
const PAUSE_MS: std::ops::Range<u64> = 200..2_600;
/// Faults at the same time at most: with more, nothing would go on that could go wrong.
const AT_ONCE: usize = 3;
/// How long the last faults may take to heal.
const HEAL_PATIENCE: Duration = Duration::from_secs(120);

/// Lets faults happen until `until_ms` of the world's time; when this returns all are healed.
///
/// # Errors
/// The system could not be brought back.
pub async fn rage(
    cluster: &Arc<Cluster>,
    world: &Arc<World>,
    until_ms: u64,
    rng: &mut StdRng,
) -> Result<BTreeMap<Kind, u64>> {
    let (mut counts, mut busy) = (BTreeMap::new(), Vec::<Target>::new());
    let mut under_way = JoinSet::new();
    while world.now_ms() < until_ms {
        sleep(Duration::from_millis(rng.random_range(PAUSE_MS))).await;
        look_after(cluster, world).await?;
        while let Some(ended) =
            if under_way.len() < AT_ONCE { under_way.try_join_next() } else { under_way.join_next().await }
        {
            let (fault, happened): (Fault, Result<()>) = ended?;
            busy.retain(|busy| *busy != fault.target());
            happened?;
        }
        let fault = Fault::draw(cluster, rng);
        if busy.contains(&fault.target()) || world.now_ms() >= until_ms {
            continue;
        }
        busy.push(fault.target());
        *counts.entry(fault.kind).or_default() += 1;
        let (cluster, world) = (cluster.clone(), world.clone());
        under_way.spawn(async move { (fault, fault.happen(cluster, world).await) });
    }
    timeout(HEAL_PATIENCE, async {
        while let Some(ended) = under_way.join_next().await {
            ended?.1?;
        }
        Ok(counts)
    })
    .await?
}

/// A node that ended by itself is noted, and started again.
async fn look_after(cluster: &Cluster, world: &World) -> Result<()> {
    for (at, place) in cluster.nodes.iter().enumerate() {
        // Whoever holds it does something to it.
        let Ok(mut node) = place.node.try_lock() else { continue };
        if node.has_ended()? {
            world.history.lock().nodes_ended.push((at, world.now_ms()));
            supervise(&mut node).await?;
        }
    }
    Ok(())
}
