//! Devices that run the SDK as an application would, with their stores on disk, and that can die and be revived.

mod together;

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use martlet_client::{
    Client, ClientError, Clock, Event, StoredMessage,
    client::{NewDevice, Options},
    store::{KdfCost, Store, StoreError},
};
use martlet_protocol::{
    id::{ClientMessageId, ConversationId, DeviceId},
    rest::DeviceLabel,
};
use parking_lot::Mutex;
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::task::JoinHandle;

pub use together::{cast, judge, meet};

use crate::{clock::Stopwatch, scene::Scene, wire::PASSWORD};

/// Guards nothing but a test's messages.
const PASSPHRASE: &str = "passphrase";
const COST: KdfCost = KdfCost { memory_kib: 64, iterations: 1 };
const POLL: Duration = Duration::from_millis(20);

/// What a device's connection told that a test may care about.
#[derive(Debug, Default, Clone)]
pub struct Told {
    /// Everything that would worry a user: refused, dropped, reordered, gaps without explanation.
    pub worries: Vec<String>,
    /// Why the device was ended, if it was.
    pub ended: Option<String>,
    /// Times that the socket was opened.
    pub connected: usize,
    /// The node that it was opened on last.
    pub node_id: String,
    /// When the socket was lost last, if it has not been opened again, by the device's own watch.
    lost_at: Option<Duration>,
    /// The longest that the device was without a socket.
    pub longest_offline: Duration,
    /// When and why the socket was lost and opened, by the device's own watch; for people.
    pub journal: Vec<String>,
    /// Messages that the node accepted, and when, by the device's own watch.
    pub sent: HashMap<ClientMessageId, Duration>,
}

/// One device.
pub struct Player {
    store: PathBuf,
    server: String,
    rng: StdRng,
    client: Option<Client>,
    listening: Option<JoinHandle<()>>,
    told: Arc<Mutex<Told>>,
    watch: Stopwatch,
    device_id: DeviceId,
}

impl Player {
    /// Makes an account whose first device this is.
    ///
    /// # Errors
    /// The server refused.
    pub async fn register(scene: &Scene, server: &str, username: &str, rng: &mut StdRng) -> Result<Self> {
        let (store, options, rng) = prepare(scene, server, rng)?;
        let client = Client::register(options, username, PASSWORD, label(username)).await?;
        Ok(Self::new(store, server, client, rng))
    }

    /// Links a further device through this one.
    ///
    /// # Errors
    /// The server refused, or the two screens differ.
    pub async fn link(&self, scene: &Scene, name: &str, rng: &mut StdRng) -> Result<Self> {
        let (store, options, rng) = prepare(scene, &self.server, rng)?;
        let existing = self.client()?;
        let new = NewDevice::offer(options, label(name)).await?;
        let shown = existing.accept_link(&new.code(), |offer| offer.name == name).await?;
        let answered = new.wait(POLL).await?;
        ensure!(answered.confirmation() == shown, "the two screens differ");
        let client = new.complete(answered).await?;
        existing.refresh_own_list().await?;
        Ok(Self::new(store, &self.server, client, rng))
    }

    fn new(store: PathBuf, server: &str, client: Client, rng: StdRng) -> Self {
        let device_id = client.device(|device| device.device_id());
        let server = server.to_owned();
        let watch = Stopwatch::start();
        Self { store, server, rng, client: Some(client), listening: None, told: Arc::default(), watch, device_id }
    }

    /// The SDK.
    ///
    /// # Errors
    /// The device is dead.
    pub fn client(&self) -> Result<&Client> {
        self.client.as_ref().context("the device is dead")
    }

    /// Which device.
    #[must_use]
    pub fn device_id(&self) -> DeviceId {
        self.device_id
    }

    /// What was told so far, over all lives.
    #[must_use]
    pub fn told(&self) -> Told {
        self.told.lock().clone()
    }

    /// What the device's own watch shows.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.watch.elapsed()
    }

    /// Connects and stays connected.
    ///
    /// # Errors
    /// The device is dead.
    pub fn start(&mut self) -> Result<()> {
        let mut running = self.client()?.start();
        let (told, watch) = (self.told.clone(), self.watch);
        self.listening = Some(tokio::spawn(async move {
            while let Some(event) = running.next().await {
                let mut told = told.lock();
                match event {
                    Event::Ended { why } => told.ended = Some(why),
                    Event::Connected { node_id } => {
                        told.connected += 1;
                        let lost_at = told.lost_at.take();
                        let offline = lost_at.map_or(Duration::ZERO, |at| watch.elapsed().saturating_sub(at));
                        told.longest_offline = told.longest_offline.max(offline);
                        told.journal.push(format!("{:?} on {node_id}", watch.elapsed()));
                        told.node_id = node_id;
                    }
                    Event::Disconnected { retry_in_ms, why } => {
                        told.lost_at.get_or_insert(watch.elapsed());
                        told.journal.push(format!("{:?} off ({why}), again in {retry_in_ms} ms", watch.elapsed()));
                    }
                    Event::Sent { client_message_id, .. } => {
                        told.sent.insert(client_message_id, watch.elapsed());
                    }
                    Event::Refused { .. }
                    | Event::SendHeld { .. }
                    | Event::SendFailed { .. }
                    | Event::Gap(_)
                    | Event::Dropped { .. }
                    | Event::Reordered { .. }
                    | Event::HistoryDiffers { .. }
                    | Event::StreamRestarted => told.worries.push(format!("{event:?}")),
                    _ => {}
                }
            }
        }));
        Ok(())
    }

    /// Dies: tasks, socket and memory are gone, nothing is said to anybody.
    pub fn die(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
        self.client = None;
    }

    /// Starts again from nothing but its store.
    ///
    /// # Errors
    /// The store can't be opened.
    pub async fn revive(&mut self) -> Result<()> {
        // Tasks of the former life hold the store until the runtime has dropped them.
        let client = loop {
            match Store::file(&self.store, PASSPHRASE, COST, &mut self.rng) {
                Ok(store) => {
                    break Client::open_at(&self.server, store, Clock::System, StdRng::from_rng(&mut self.rng))?;
                }
                Err(StoreError::InUse) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => return Err(error.into()),
            }
        };
        self.client = Some(client);
        self.start()
    }

    /// Texts of a conversation as the application has them, in its order.
    ///
    /// # Errors
    /// The device is dead, or its store fails.
    pub fn texts(&self, conversation: ConversationId) -> Result<Vec<(StoredMessage, String)>> {
        let history = self.client()?.history(0, usize::MAX).map_err(|error: ClientError| anyhow::anyhow!(error))?;
        let here = history.into_iter().filter(|message| message.conversation_id == conversation);
        Ok(here.filter_map(|message| message.text().map(|text| (message, text))).collect())
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.die();
    }
}

fn label(name: &str) -> DeviceLabel {
    DeviceLabel { name: name.to_owned(), platform: "test".into() }
}

fn prepare(scene: &Scene, server: &str, rng: &mut StdRng) -> Result<(PathBuf, Options, StdRng)> {
    let drawn = martlet_protocol::id::EntryId::random(rng).to_text();
    let folder = scene.folder().join("devices").join(drawn);
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("device.store");
    let store = Store::file(&path, PASSPHRASE, COST, rng)?;
    let options = Options { server: server.to_owned(), store, clock: Clock::System, rng: StdRng::from_rng(rng) };
    Ok((path, options, StdRng::from_rng(rng)))
}
