//! The running device: keeps the socket open, reads the mailbox, acknowledges what is stored, sends what is due.
//!
//! Two tasks: one owns the socket ([`connection`]), one empties the outbox. Both end when [`Running`] is dropped, at any point: nothing
//! is lost by it, since whatever counts is stored before it is told or acknowledged.

mod backoff;
mod connection;
mod upkeep;

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

pub use backoff::Backoff;
use connection::{End, serve};

use crate::{Client, client::is_about_one_conversation, event::Event};

/// Events that wait for the application; past them the device stops reading until it is heard.
const EVENT_QUEUE: usize = 1024;
/// What a stop waits for those who are told that the device goes.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(1);
/// What a stop waits for the tasks to close the socket.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// A device that is running. Dropping it is like pulling the plug; [`Self::stop`] says goodbye.
pub struct Running {
    events: mpsc::Receiver<Event>,
    stop: watch::Sender<bool>,
    reader: Option<JoinHandle<()>>,
    sender: JoinHandle<()>,
    client: Client,
}

impl Client {
    /// Connects, and stays connected.
    #[must_use]
    pub fn start(&self) -> Running {
        let (event_sender, events) = mpsc::channel(EVENT_QUEUE);
        self.set_events(Some(event_sender));
        let (stop, stopped) = watch::channel(false);
        let (ready, is_ready) = watch::channel(false);
        let reader = tokio::spawn(read_on(self.clone(), stopped.clone(), ready));
        let sender = tokio::spawn(send_on(self.clone(), stopped, is_ready));
        Running { events, stop, reader: Some(reader), sender, client: self.clone() }
    }
}

impl Running {
    /// The next event; none when the device was ended.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Acknowledges what is stored, closes the socket and waits for that.
    pub async fn stop(mut self) {
        // Told while the socket is open; nobody waits long for it.
        let _ = tokio::time::timeout(GOODBYE_PATIENCE, self.client.say_goodbye()).await;
        // Both fail only if the tasks are gone already.
        let _ = self.stop.send(true);
        self.events.close();
        if let Some(reader) = self.reader.take() {
            let _ = tokio::time::timeout(STOP_PATIENCE, reader).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
        self.sender.abort();
        self.client.set_uplink(None);
        self.client.set_events(None);
    }
}

/// Opens the socket again and again until the device is stopped or ended.
async fn read_on(client: Client, mut stopped: watch::Receiver<bool>, ready: watch::Sender<bool>) {
    let mut backoff = Backoff::default();
    loop {
        let end = serve(&client, &mut stopped, &ready, &mut backoff).await;
        client.set_uplink(None);
        // Without a socket, what is due goes out by POST.
        let _ = ready.send(true);
        match end {
            End::Stopped => return,
            End::Ended(why) => {
                client.emit([Event::Ended { why }]).await;
                client.set_events(None);
                return;
            }
            End::Retry { after, why } => {
                let pause = after.unwrap_or_else(|| client.device(|device| backoff.next(device.rng())));
                let retry_in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                client.emit([Event::Disconnected { retry_in_ms, why }]).await;
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stopped.changed() => return,
                }
            }
        }
    }
}

/// Empties the outbox whenever something is due, and tells presence. It waits for the backlog first: the echo of a message whose answer was lost is there.
async fn send_on(client: Client, mut stopped: watch::Receiver<bool>, mut ready: watch::Receiver<bool>) {
    if ready.wait_for(|is_ready| *is_ready).await.is_err() {
        return;
    }
    let mut backoff = Backoff::default();
    loop {
        let pause = match client.flush_due().await {
            Ok(_) => {
                backoff.reset();
                client.tell_presence().await;
                None
            }
            // That conversation waits by itself; new messages of others needn't.
            Err(error) if is_about_one_conversation(&error) => None,
            Err(error) => {
                let own = client.device(|device| backoff.next(device.rng()));
                Some(error.retry_after_ms().map_or(own, |ms| own.max(Duration::from_millis(ms))))
            }
        };
        let rest = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => {
                    let due = due_in(&client);
                    tokio::select! {
                        () = client.woken() => {}
                        () = due => {}
                    }
                }
            }
        };
        tokio::select! {
            () = rest => {}
            _ = stopped.changed() => return,
        }
    }
}

/// Until receipts, presence or a conversation that had to wait fall due; for ever if none does.
async fn due_in(client: &Client) {
    let (now_ms, receipts) = client.device(|device| (device.now_ms(), device.receipts_due_at_ms()));
    let others = client.presence_due_at_ms().into_iter().chain(client.wait_ends_at_ms());
    match receipts.into_iter().chain(others).min() {
        Some(due_ms) => tokio::time::sleep(Duration::from_millis(due_ms.saturating_sub(now_ms))).await,
        None => std::future::pending().await,
    }
}
