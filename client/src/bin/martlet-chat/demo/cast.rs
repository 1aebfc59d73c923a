//! The demo's devices: each with a folder of its own, its SDK, and its running connection.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use martlet_client::{
    Client, ClientError, Clock, Event, Refused, StoredMessage,
    client::{NewDevice, Options},
    store::{KdfCost, Store},
    system_rng,
};
use martlet_protocol::{
    id::{ConversationId, DeviceId},
    rest::DeviceLabel,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::{CAST, PATIENCE, POLL};
use crate::home::store_path;

/// The demo's own secrets guard nothing but the demo.
const PASSPHRASE: &str = "the demo's stores";
const PASSWORD: &str = "the demo's password";
/// Cheap, because five stores are opened, more than once.
const COST: KdfCost = KdfCost { memory_kib: 8 * 1024, iterations: 1 };

type Name = (&'static str, &'static str);

/// What an interrupted demo needs to know beside the stores.
#[derive(Serialize, Deserialize)]
struct Script {
    /// Usernames are drawn, so that demos can share a server.
    suffix: String,
}

/// What a device's connection told.
#[derive(Default)]
struct Log {
    /// The node that its socket is on.
    node_id: Option<String>,
    refused: Vec<Refused>,
    end: Option<String>,
}

/// One device.
pub struct Player {
    pub device: Name,
    client: Option<Client>,
    listening: Option<JoinHandle<()>>,
    log: Arc<Mutex<Log>>,
    device_id: Option<DeviceId>,
}

impl Player {
    pub fn client(&self) -> anyhow::Result<&Client> {
        self.client.as_ref().with_context(|| format!("{}'s {} is off", self.device.0, self.device.1))
    }

    pub fn device_id(&self) -> anyhow::Result<DeviceId> {
        self.device_id.context("the device has no id yet")
    }

    pub fn has_ended(&self) -> bool {
        self.log.lock().end.is_some()
    }

    pub fn end(&self) -> Option<String> {
        self.log.lock().end.clone()
    }

    /// The node that its socket is on, or was on last.
    pub fn node_id(&self) -> Option<String> {
        self.log.lock().node_id.clone()
    }

    pub fn refused(&self) -> Vec<Refused> {
        self.log.lock().refused.clone()
    }

    fn take(&mut self, client: Client) {
        self.device_id = Some(client.device(|device| device.device_id()));
        self.client = Some(client);
    }

    /// Connects, and keeps an ear on what is told.
    fn start(&mut self) {
        let Some(client) = &self.client else { return };
        let mut running = client.start();
        let log = self.log.clone();
        self.listening = Some(tokio::spawn(async move {
            while let Some(event) = running.next().await {
                match event {
                    Event::Refused { refused, .. } | Event::SendHeld { refused, .. } => {
                        log.lock().refused.push(refused)
                    }
                    Event::Connected { node_id } => log.lock().node_id = Some(node_id),
                    Event::Ended { why } => log.lock().end = Some(why),
                    _ => {}
                }
            }
        }));
    }

    /// Pulls the plug: tasks, socket and store are gone, nothing is said to anybody.
    fn drop_dead(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
        self.client = None;
    }
}

/// All devices.
pub struct Cast {
    players: Vec<Player>,
}

impl Cast {
    /// Opens, registers and links until every device is there.
    pub async fn gather(home: &Path, server: &str) -> anyhow::Result<Self> {
        super::heading("Two accounts, five devices");
        let script = script(home)?;
        let players = CAST
            .iter()
            .map(|device| Player {
                device: *device,
                client: None,
                listening: None,
                log: Arc::default(),
                device_id: None,
            })
            .collect();
        let mut cast = Self { players };
        for (index, device) in CAST.into_iter().enumerate() {
            let client = match open(home, device, server)? {
                Some(client) => client,
                None => cast.make(home, device, server, &script).await?,
            };
            let own = client.device(|device| device.own_head());
            println!(
                "  {:15} device {}…, list {} of account {}…",
                format!("{}'s {}", device.0, device.1),
                crate::show::short(&client.device(|device| device.device_id()).to_text()),
                own.n,
                crate::show::short(&own.account_id.to_text()),
            );
            cast.players[index].take(client);
        }
        Ok(cast)
    }

    /// An account's first device registers, a further one is linked through the first.
    async fn make(&self, home: &Path, device: Name, server: &str, script: &Script) -> anyhow::Result<Client> {
        let username = format!("{}-{}", device.0, script.suffix);
        let label = DeviceLabel { name: device.1.to_owned(), platform: "demo".to_owned() };
        let first = self.players.iter().find(|player| player.device.0 == device.0 && player.client.is_some());
        let Some(first) = first else {
            let options = options(home, device, server)?;
            return Ok(Client::register(options, &username, PASSWORD, label).await?);
        };
        let existing = first.client()?;
        if let Some(client) = rescue(home, device, server).await? {
            return Ok(client);
        }
        let new = NewDevice::offer(options(home, device, server)?, label).await?;
        let code = new.code();
        let shown = existing.accept_link(&code, |offer| offer.name == device.1).await?;
        let answered = new.wait(POLL).await?;
        if answered.confirmation() != shown {
            bail!("the two screens differ");
        }
        let client = new.complete(answered).await?;
        existing.refresh_own_list().await?;
        Ok(client)
    }

    pub fn players(&self) -> &[Player] {
        &self.players
    }

    pub fn player(&self, device: Name) -> anyhow::Result<&Player> {
        self.players.iter().find(|player| player.device == device).context("nobody of that name")
    }

    pub fn client(&self, device: Name) -> anyhow::Result<&Client> {
        self.player(device)?.client()
    }

    pub fn start_all(&mut self) {
        self.players.iter_mut().for_each(Player::start);
    }

    pub async fn stop_all(&mut self) {
        for player in &mut self.players {
            player.drop_dead();
        }
        // The aborted tasks let go of their sockets at their next turn.
        tokio::time::sleep(POLL).await;
    }

    /// Kills a device; returns how much of `wanted` it had read.
    pub fn kill(&mut self, device: Name, conversation: ConversationId, wanted: &[String]) -> anyhow::Result<usize> {
        let count = self.count_read(device, conversation, wanted)?;
        if let Some(player) = self.players.iter_mut().find(|player| player.device == device) {
            player.drop_dead();
        }
        Ok(count)
    }

    /// Starts a killed device from nothing but its folder.
    pub async fn revive(&mut self, device: Name, home: &Path, server: &str) -> anyhow::Result<()> {
        let player = self.players.iter_mut().find(|player| player.device == device).context("nobody of that name")?;
        if player.client.is_some() {
            return Ok(());
        }
        // The killed tasks hold the store's file until the runtime has dropped them.
        let opened = tokio::time::timeout(PATIENCE, async {
            loop {
                match open(home, device, server) {
                    Ok(client) => return client.context("the device's folder is empty"),
                    Err(error) if is_in_use(&error) => tokio::time::sleep(Duration::from_millis(10)).await,
                    Err(error) => return Err(error),
                }
            }
        });
        let client = opened.await.context("the killed device still holds its store")??;
        println!("  {}'s {} starts again from its folder and resumes at its cursor", device.0, device.1);
        player.take(client);
        player.start();
        Ok(())
    }

    /// The texts of the conversation that a device has read, in its order.
    pub fn texts(&self, device: Name, conversation: ConversationId) -> anyhow::Result<Vec<StoredMessage>> {
        let mut messages = self.client(device)?.history(0, usize::MAX)?;
        messages.retain(|message| message.conversation_id == conversation && message.text().is_some());
        Ok(messages)
    }

    pub fn count_read(&self, device: Name, conversation: ConversationId, wanted: &[String]) -> anyhow::Result<usize> {
        let read = self.texts(device, conversation)?;
        Ok(wanted.iter().filter(|text| read.iter().any(|m| m.text().as_ref() == Some(text))).count())
    }

    pub fn has_read_all(&self, device: Name, conversation: ConversationId, wanted: &[String]) -> anyhow::Result<bool> {
        Ok(self.count_read(device, conversation, wanted)? == wanted.len())
    }

    /// Waits until every device that is not ended has read all of these.
    pub async fn wait_until_read(&self, conversation: ConversationId, wanted: Vec<String>) -> anyhow::Result<()> {
        let mut missing = BTreeMap::new();
        let reading = tokio::time::timeout(PATIENCE, async {
            loop {
                missing.clear();
                for player in self.players.iter().filter(|player| !player.has_ended()) {
                    let count = self.count_read(player.device, conversation, &wanted)?;
                    if count < wanted.len() {
                        missing.insert(player.title(), wanted.len() - count);
                    }
                }
                if missing.is_empty() {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
        });
        match reading.await {
            Ok(outcome) => outcome,
            Err(_) => bail!("messages did not arrive in time; missing: {missing:?}"),
        }
    }
}

fn is_in_use(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<ClientError>(), Some(ClientError::Store(martlet_client::store::StoreError::InUse)))
}

fn folder(home: &Path, device: Name) -> PathBuf {
    home.join(format!("{}-{}", device.0, device.1))
}

fn script(home: &Path) -> anyhow::Result<Script> {
    let path = home.join("demo.json");
    if let Ok(bytes) = std::fs::read(&path) {
        return serde_json::from_slice(&bytes).with_context(|| format!("{} is not of a demo", path.display()));
    }
    let drawn = martlet_protocol::id::EntryId::random(&mut system_rng());
    let suffix = drawn.as_bytes().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let script = Script { suffix };
    std::fs::create_dir_all(home)?;
    std::fs::write(&path, serde_json::to_vec(&script)?)?;
    Ok(script)
}

fn store(home: &Path, device: Name) -> Result<Store, ClientError> {
    Ok(Store::file(&store_path(&folder(home, device)), PASSPHRASE, COST, &mut system_rng())?)
}

fn options(home: &Path, device: Name, server: &str) -> anyhow::Result<Options> {
    Ok(Options { server: server.to_owned(), store: store(home, device)?, clock: Clock::System, rng: system_rng() })
}

/// A device that is there already, with a token.
fn open(home: &Path, device: Name, server: &str) -> anyhow::Result<Option<Client>> {
    if !store_path(&folder(home, device)).exists() {
        return Ok(None);
    }
    match Client::open_at(server, store(home, device)?, Clock::System, system_rng()) {
        Ok(client) if client.device(|device| !device.session().token.is_empty()) => Ok(Some(client)),
        Ok(_) | Err(ClientError::NoDevice) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A device whose link was interrupted at its last step: if the server took it, it can sign in; if not, it starts anew.
async fn rescue(home: &Path, device: Name, server: &str) -> anyhow::Result<Option<Client>> {
    let found = Client::open_at(server, store(home, device)?, Clock::System, system_rng());
    let client = match found {
        Ok(client) => client,
        Err(ClientError::NoDevice) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match client.sign_in(PASSWORD).await {
        Ok(()) => Ok(Some(client)),
        Err(ClientError::Problem(_)) => {
            drop(client);
            std::fs::remove_dir_all(folder(home, device))?;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
