//! A device with its server: what applications call. Every call is one step for people: register, link, look up, create, send.
//!
//! The calls work without the running connection of [`crate::agent`] too, over REST alone; then nothing is received.

mod accounts;
mod conversations;
mod ephemeral;
mod fetch;
mod linking;
mod outbox;
mod upkeep;

use std::sync::Arc;

use martlet_protocol::{
    id::{AccountId, ClientMessageId, ConversationId},
    problem::Code,
    rest::DeviceLabel,
    wire::{self, content::Body},
};
use parking_lot::{Mutex, RwLock};
use rand::rngs::StdRng;
use tokio::sync::{Notify, mpsc};

pub use accounts::Contact;
pub use conversations::{ConversationView, MemberView};
use ephemeral::Presence;
pub use ephemeral::PresenceRules;
pub(crate) use fetch::FetchError;
pub use linking::{Confirmation, NewDevice};
pub(crate) use outbox::{SocketUplink, Submission, is_about_one_conversation, problem_from_wire};

use crate::{
    ambient::Clock,
    api::Api,
    device::{Device, Founding, ReceiptRules},
    error::ClientError,
    event::{Event, StoredMessage},
    identity::NewAccount,
    refused::Refused,
    store::Store,
};

/// What a device is made from.
pub struct Options {
    /// The server's address, such as `https://chat.example.org`.
    pub server: String,
    /// Where it keeps everything.
    pub store: Store,
    /// Where it gets the time from.
    pub clock: Clock,
    /// Where it gets randomness from.
    pub rng: StdRng,
}

/// A device that talks to its server. Clones are the same device.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    device: Mutex<Device>,
    api: Api,
    /// Rings when there is something to send.
    wake: Notify,
    /// Where events go while the agent runs.
    events: Mutex<Option<mpsc::Sender<Event>>>,
    /// The socket, while it is open.
    uplink: RwLock<Option<SocketUplink>>,
    /// One sender at a time, so that a device's messages keep their order.
    sending: tokio::sync::Mutex<()>,
    /// Conversations in which sending stopped until a human has looked, with the reason.
    held: Mutex<Vec<(ConversationId, Refused)>>,
    /// Conversations that the server refuses for now, and until when, in Unix milliseconds.
    waiting: Mutex<Vec<(ConversationId, u64)>>,
    /// What is told of how this device is, and to whom.
    presence: Mutex<Presence>,
}

impl Client {
    fn new(device: Device, api: Api) -> Self {
        api.set_token(&device.session().token);
        Self {
            inner: Arc::new(Inner {
                device: Mutex::new(device),
                api,
                wake: Notify::new(),
                events: Mutex::default(),
                uplink: RwLock::default(),
                sending: tokio::sync::Mutex::default(),
                held: Mutex::default(),
                waiting: Mutex::default(),
                presence: Mutex::default(),
            }),
        }
    }

    /// Makes an account whose first device this is. The keys are stored before the server hears of them, so that a registration whose
    /// answer was lost is finished by calling this again.
    ///
    /// # Errors
    /// [`ClientError::DeviceExists`], or a problem such as `username_taken`; then the store is empty again.
    pub async fn register(
        options: Options,
        username: &str,
        password: &str,
        label: DeviceLabel,
    ) -> Result<Self, ClientError> {
        let Options { server, store, clock, mut rng } = options;
        let api = Api::new(&server)?;
        if Device::exists(&store)? {
            let client = Self::new(Device::open(store, clock, rng)?, api);
            return client.finish_registration(username, password, label).await;
        }
        let one_time = crate::device::ONE_TIME_TARGET;
        let account = NewAccount::generate(username, password, label, one_time, clock.now_ms(), &mut rng)
            .map_err(Refused::from)?;
        let founding = Founding {
            keys: account.keys,
            prekeys: account.prekeys,
            lists: vec![account.list],
            username: username.to_owned(),
            server: api.base().to_owned(),
        };
        let client = Self::new(Device::found(store, founding, clock, rng)?, api);
        match client.send_registration(&account.request).await {
            Ok(()) => Ok(client),
            Err(error) => Err(client.abandon_if_refused(error)),
        }
    }

    /// A registration that was interrupted: if the server took it, signing in works; if not, it is sent again with the same keys.
    async fn finish_registration(
        self,
        username: &str,
        password: &str,
        label: DeviceLabel,
    ) -> Result<Self, ClientError> {
        let (is_finished, stored_name) =
            self.device(|device| (!device.session().token.is_empty(), device.username().to_owned()));
        if is_finished {
            return Err(ClientError::DeviceExists);
        }
        if stored_name != username {
            let why = format!("registering {stored_name:?} was not finished here; repeat that, or use another --home");
            return Err(ClientError::NotAllowed(why));
        }
        match self.sign_in(password).await {
            Err(error) if error.code() == Some(Code::WrongCredentials) => {
                let request = self.device(|device| device.registration_request(password, label))?;
                self.send_registration(&request).await?;
            }
            other => other?,
        }
        Ok(self)
    }

    async fn send_registration(&self, request: &martlet_protocol::rest::RegisterRequest) -> Result<(), ClientError> {
        let session = self.inner.api.register(request).await?;
        self.take_session(&session)?;
        Ok(self.device(|device| device.on_prekeys_uploaded(&request.prekeys))?)
    }

    /// A definite refusal means that the server has nothing of this device, so the store needs not keep it.
    fn abandon_if_refused(self, error: ClientError) -> ClientError {
        if matches!(&error, ClientError::Problem(_))
            && !error.is_passing()
            && let Some(inner) = Arc::into_inner(self.inner)
            && let Err(store) = inner.device.into_inner().abandon()
        {
            return store.into();
        }
        error
    }

    /// Opens the device that a store holds.
    ///
    /// # Errors
    /// [`ClientError::NoDevice`], [`ClientError::Store`].
    pub fn open(store: Store, clock: Clock, rng: StdRng) -> Result<Self, ClientError> {
        let device = Device::open(store, clock, rng)?;
        let api = Api::new(device.server())?;
        Ok(Self::new(device, api))
    }

    /// Opens the device that a store holds, for a server that has another address by now than when the device was made.
    ///
    /// # Errors
    /// [`ClientError::NoDevice`], [`ClientError::Store`], [`ClientError::BadAddress`].
    pub fn open_at(server: &str, store: Store, clock: Clock, rng: StdRng) -> Result<Self, ClientError> {
        let api = Api::new(server)?;
        Ok(Self::new(Device::open(store, clock, rng)?, api))
    }

    /// Signs this device in again, after its token ended.
    ///
    /// # Errors
    /// A problem, above all `wrong_credentials`.
    pub async fn sign_in(&self, password: &str) -> Result<(), ClientError> {
        let request = self.device(|device| device.sign_in_request(password));
        let session = self.inner.api.sign_in(&request).await?;
        self.take_session(&session)
    }

    /// Ends this device's token. The device stays listed and can sign in again.
    ///
    /// # Errors
    /// A problem.
    pub async fn sign_out(&self) -> Result<(), ClientError> {
        self.inner.api.sign_out().await
    }

    pub(crate) fn take_session(&self, session: &martlet_protocol::rest::DeviceSession) -> Result<(), ClientError> {
        let mut device = self.inner.device.lock();
        if session.account_id != device.account_id() || session.device_id != device.device_id() {
            return Err(ClientError::BadAnswer("it is about another device".into()));
        }
        device.set_session(session);
        device.commit()?;
        self.inner.api.set_token(&session.token);
        Ok(())
    }

    /// Looks at the device, or drives it by hand. Nothing else of this device runs meanwhile, so be quick.
    pub fn device<T>(&self, look: impl FnOnce(&mut Device) -> T) -> T {
        look(&mut self.inner.device.lock())
    }

    /// The server, for calls that this type doesn't wrap.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.inner.api
    }

    /// This device's account.
    #[must_use]
    pub fn account_id(&self) -> AccountId {
        self.device(|device| device.account_id())
    }

    /// Takes a message over, durably. It goes out when it can, however often the program is restarted meanwhile.
    ///
    /// # Errors
    /// [`ClientError::NoSuchConversation`], [`ClientError::Store`].
    pub fn send(&self, conversation: ConversationId, content: &wire::Content) -> Result<ClientMessageId, ClientError> {
        self.send_for(conversation, content, 0)
    }

    /// The same for a message that mailboxes keep only so many seconds.
    ///
    /// # Errors
    /// [`ClientError::NoSuchConversation`], [`ClientError::Store`]; [`ClientError::NotAllowed`] for a large conversation, which needs a suite
    /// that this release does not have.
    pub fn send_for(
        &self,
        conversation: ConversationId,
        content: &wire::Content,
        lifetime_seconds: u32,
    ) -> Result<ClientMessageId, ClientError> {
        let id = self.device(|device| device.enqueue(conversation, content, lifetime_seconds))?;
        self.inner.wake.notify_one();
        Ok(id)
    }

    /// Sends a text.
    ///
    /// # Errors
    /// [`ClientError::NoSuchConversation`], [`ClientError::Store`].
    pub fn send_text(&self, conversation: ConversationId, text: &str) -> Result<ClientMessageId, ClientError> {
        self.send(conversation, &body(Body::Text(wire::Text { text: text.to_owned(), reply_to: None })))
    }

    /// Sets how receipts are made. Those of arrival are off unless this switches them on: they tell when a device is awake.
    pub fn set_receipt_rules(&self, rules: ReceiptRules) {
        self.device(|device| device.set_receipt_rules(rules));
        self.wake();
    }

    /// People have read these messages: their senders will be told, in few messages and also after a restart.
    ///
    /// # Errors
    /// [`ClientError::Store`].
    pub fn set_read(&self, messages: &[StoredMessage]) -> Result<(), ClientError> {
        self.device(|device| device.set_read(messages))?;
        self.wake();
        Ok(())
    }

    /// Puts receipts that still wait for others into the outbox: for a program that ends now.
    ///
    /// # Errors
    /// [`ClientError::Store`].
    pub fn hurry_receipts(&self) -> Result<(), ClientError> {
        self.device(|device| device.make_receipts(true))?;
        self.wake();
        Ok(())
    }

    /// Messages after a number of the history, at most `limit`: an application's own cursor makes it read each once.
    ///
    /// # Errors
    /// [`ClientError::Store`].
    pub fn history(&self, after: u64, limit: usize) -> Result<Vec<StoredMessage>, ClientError> {
        Ok(self.device(|device| device.history(after, limit))?)
    }

    pub(crate) async fn emit(&self, events: impl IntoIterator<Item = Event>) {
        let sender = self.inner.events.lock().clone();
        let Some(sender) = sender else { return };
        for event in events {
            // A full channel makes the agent wait for the application; a closed one means that nobody wants to know.
            if sender.send(event).await.is_err() {
                return;
            }
        }
    }

    pub(crate) fn set_events(&self, sender: Option<mpsc::Sender<Event>>) {
        *self.inner.events.lock() = sender;
    }

    pub(crate) fn set_uplink(&self, uplink: Option<SocketUplink>) {
        *self.inner.uplink.write() = uplink;
        // A new socket is there to be told of presence.
        self.wake();
    }

    pub(crate) async fn woken(&self) {
        self.inner.wake.notified().await;
    }

    pub(crate) fn wake(&self) {
        self.inner.wake.notify_one();
    }
}

fn body(body: Body) -> wire::Content {
    wire::Content { body: Some(body) }
}
