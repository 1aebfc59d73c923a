//! Who takes part: for each sending device an account of its own and a peer, in a direct conversation.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use martlet_client::api::Api;
use tokio::runtime::Runtime;

use crate::{
    ambient,
    people::{self, Conversation, Device, Person},
    progress::Progress,
};

/// Circles made at once.
const AT_ONCE: usize = 32;

/// One sending device and everybody who gets its messages.
pub struct Circle {
    /// The sending device's account; its first device sends.
    pub person: Person,
    /// The other account.
    pub peer: Person,
    /// Their conversation, as the sending device sees it.
    pub conversation: Conversation,
}

impl Circle {
    /// All devices: the sending one, its account's others, the peer's.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.person.devices.iter().chain(&self.peer.devices)
    }

    /// The sending device.
    #[must_use]
    pub fn sender(&self) -> &Device {
        &self.person.devices[0]
    }
}

/// Registers accounts, links their devices and creates the conversations; `devices` is how many other devices a message reaches.
///
/// # Errors
/// When the node refuses.
pub fn make(url: &str, senders: usize, devices: usize) -> Result<Vec<Circle>> {
    let own_others = devices / 2;
    make_all(url, &vec![(1 + own_others, devices - own_others); senders])
}

/// The same for circles that differ: each has so many devices of the sending account, and so many of its peer.
///
/// # Errors
/// When the node refuses.
pub fn make_all(url: &str, sizes: &[(usize, usize)]) -> Result<Vec<Circle>> {
    let count: usize = sizes.iter().map(|(own, peer)| own + peer).sum();
    let runtime: Runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let progress = Progress::new("making accounts and devices", u64::try_from(count)?);
    let since = ambient::now();
    let api = Api::new(url)?;
    let run: Arc<str> = people::run_name().into();
    let circles = runtime.block_on(async {
        let make = |(i, size): (usize, (usize, usize))| {
            let (api, run, progress) = (api.clone(), run.clone(), progress.clone());
            let task = tokio::spawn(async move {
                let circle = circle(&api, &format!("{run}-{i}"), size).await?;
                circle.devices().for_each(|_| progress.one());
                anyhow::Ok(circle)
            });
            async move { task.await? }
        };
        stream::iter(sizes.iter().copied().enumerate()).map(make).buffered(AT_ONCE).try_collect::<Vec<Circle>>().await
    })?;
    let accounts = sizes.len() * 2;
    progress.done(&format!("{count} devices of {accounts} accounts in {:.1} s", since.elapsed().as_secs_f64()));
    Ok(circles)
}

async fn circle(api: &Api, name: &str, (own, others): (usize, usize)) -> Result<Circle> {
    let mut rng = ambient::system_rng();
    let person = people::register(api, &format!("{name}-a"), own, &mut rng).await.context("an account")?;
    let peer = people::register(api, &format!("{name}-b"), others, &mut rng).await.context("an account")?;
    let conversation = people::converse(api, &person, &peer, &mut rng).await.context("a conversation")?;
    Ok(Circle { person, peer, conversation })
}
