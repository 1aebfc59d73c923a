//! Ephemeral messages and receipts between devices of the SDK and a real node.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use martlet_client::{Client, ClientError, Event, Running, client::PresenceRules, device::ReceiptRules};
use martlet_e2e::{
    node::{Node, NodeOptions},
    scene::{self, Scene, until},
    sdk::Player,
    wire::username,
};
use martlet_protocol::{
    id::{ClientMessageId, ConversationId, DeviceId},
    wire::{PresenceStatus, ReceiptKind},
};
use parking_lot::Mutex;

type Events = Arc<Mutex<Vec<Event>>>;

/// Connects, and collects what is told until the device is stopped.
struct Listening {
    events: Events,
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Listening {
    async fn start(client: &Client) -> Result<Self> {
        let mut running: Running = client.start();
        let events = Events::default();
        let collected = events.clone();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            tokio::pin!(stopped);
            loop {
                tokio::select! {
                    event = running.next() => match event {
                        Some(event) => collected.lock().push(event),
                        None => return,
                    },
                    _ = &mut stopped => return running.stop().await,
                }
            }
        });
        let listening = Self { events, stop, task };
        listening.heard("connected", |event| matches!(event, Event::CaughtUp)).await?;
        Ok(listening)
    }

    async fn heard(&self, what: &str, is_it: impl Fn(&Event) -> bool) -> Result<()> {
        until(what, || async { Ok(self.events.lock().iter().any(&is_it)) }).await
    }

    fn count(&self, is_it: impl Fn(&Event) -> bool) -> usize {
        self.events.lock().iter().filter(|event| is_it(event)).count()
    }

    async fn stop(self) -> Result<()> {
        // The task may have ended by itself.
        let _ = self.stop.send(());
        Ok(self.task.await?)
    }
}

fn is_typing(event: &Event) -> bool {
    matches!(event, Event::Typing { started: true, .. })
}

fn is_presence(event: &Event, expected: PresenceStatus) -> bool {
    matches!(event, Event::Presence { status, .. } if *status == expected)
}

async fn meet(one: &Client, other: &Client) -> Result<ConversationId> {
    let contact = one.look_up(&other.device(|device| device.username().to_owned())).await?;
    other.look_up(&one.device(|device| device.username().to_owned())).await?;
    let conversation = one.create_direct(contact.account_id).await?;
    other.sync_conversations().await?;
    Ok(conversation)
}

#[test]
fn typing_and_presence_reach_who_is_there() {
    scene::run("ephemeral", |scene: Scene| async move {
        let node = Node::start(&scene, NodeOptions::default()).await?;
        let mut rng = scene.rng(0);
        let alice = Player::register(&scene, &node.url(), &username("alice", &mut rng), &mut rng).await?;
        let bob = Player::register(&scene, &node.url(), &username("bob", &mut rng), &mut rng).await?;
        let away = bob.link(&scene, "away", &mut rng).await?;
        let (alice, away) = (alice.client()?, away.client()?);
        let conversation = meet(alice, bob.client()?).await?;
        away.sync_conversations().await?;
        let offline = alice.set_typing(conversation, true).await;
        ensure!(matches!(offline, Err(ClientError::NotConnected)), "{offline:?}");

        let speaking = Listening::start(alice).await?;
        let listening = Listening::start(bob.client()?).await?;
        alice.set_typing(conversation, true).await?;
        listening.heard("typing", is_typing).await?;
        alice.send_call_signal(conversation, vec![1; 16].into(), vec![2; 6000].into()).await?;
        listening
            .heard("the call", |e| matches!(e, Event::CallSignal { payload, .. } if payload.len() == 6000))
            .await?;

        // Bob's new device is unknown to Alice: the node says so, she follows the signed list, and both hear her.
        let phone = bob.link(&scene, "phone", &mut rng).await?;
        phone.client()?.sync_conversations().await?;
        let late = Listening::start(phone.client()?).await?;
        alice.set_typing(conversation, true).await?;
        late.heard("typing on the new device", is_typing).await?;
        until("typing again", || async { Ok(listening.count(is_typing) == 2) }).await?;
        ensure!(speaking.count(is_typing) == 0, "the sender hears no echo");

        ensure!(listening.count(|e| matches!(e, Event::Presence { .. })) == 0, "presence is off");
        alice.set_presence(Some(PresenceRules::new(vec![conversation])));
        listening.heard("presence", |e| is_presence(e, PresenceStatus::Online)).await?;
        speaking.stop().await?;
        listening.heard("the goodbye", |e| is_presence(e, PresenceStatus::Offline)).await?;

        // Who was away hears of all that nothing, and misses nothing by it.
        let back = Listening::start(away).await?;
        alice.send_text(conversation, "stored")?;
        alice.flush().await?;
        for (device, listening) in [(away, &back), (bob.client()?, &listening)] {
            listening.heard("the message", |e| matches!(e, Event::Message(_))).await?;
            ensure!(device.history(0, 10)?.len() == 1, "nothing but the message is kept");
            let worries = listening.count(|e| {
                matches!(
                    e,
                    Event::Refused { .. } | Event::Gap(_) | Event::Dropped { .. } | Event::HistoryDiffers { .. }
                )
            });
            ensure!(worries == 0, "{:?}", listening.events.lock());
        }
        ensure!(back.count(is_typing) == 0, "what was said to nobody is gone");
        back.stop().await?;
        late.stop().await?;
        listening.stop().await
    });
}

/// How often each message was named in receipts of a kind.
fn named(listening: &Listening, wanted: ReceiptKind) -> BTreeMap<(DeviceId, ClientMessageId), usize> {
    let mut counts = BTreeMap::new();
    for event in listening.events.lock().iter() {
        if let Event::Receipt { kind, messages, .. } = event
            && *kind == wanted
        {
            for message in messages {
                *counts.entry(*message).or_default() += 1;
            }
        }
    }
    counts
}

#[test]
fn receipts_come_once_for_each_message_through_the_reader_s_death() {
    const TEXTS: usize = 30;
    scene::run("receipts", |scene: Scene| async move {
        let node = Node::start(&scene, NodeOptions::default()).await?;
        let mut rng = scene.rng(0);
        let alice = Player::register(&scene, &node.url(), &username("alice", &mut rng), &mut rng).await?;
        let mut bob = Player::register(&scene, &node.url(), &username("bob", &mut rng), &mut rng).await?;
        let conversation = meet(alice.client()?, bob.client()?).await?;
        let delay = Duration::from_millis(200);
        let rules = ReceiptRules { delivered: true, delay, max_per_message: 10 };
        for player in [&alice, &bob] {
            player.client()?.set_receipt_rules(rules);
        }
        let speaking = Listening::start(alice.client()?).await?;
        let mut sent = Vec::new();
        for number in 0..TEXTS {
            sent.push((alice.device_id(), alice.client()?.send_text(conversation, &format!("text {number}"))?));
        }
        sent.sort();
        let once = |counts: &BTreeMap<_, usize>| counts.keys().eq(&sent) && counts.values().all(|count| *count == 1);

        bob.start()?;
        until("all have arrived, and Alice knows it", || async { Ok(once(&named(&speaking, ReceiptKind::Delivered))) })
            .await?;
        let texts: Vec<_> = bob.texts(conversation)?.into_iter().map(|(message, _)| message).collect();
        ensure!(texts.len() == TEXTS);
        bob.client()?.set_read(&texts)?;
        bob.die();
        bob.revive().await?;
        until("all were read, and Alice knows it", || async { Ok(once(&named(&speaking, ReceiptKind::Read))) }).await?;

        // Alice tells of arrivals too, and had nothing to tell but receipts.
        ensure!(named(&speaking, ReceiptKind::Delivered).values().all(|count| *count == 1));
        ensure!(alice.client()?.device(|device| device.receipts_due_at_ms()).is_none(), "a receipt for a receipt");
        let kept = bob.client()?.history(0, usize::MAX).context("Bob's history")?;
        ensure!(kept.len() == TEXTS, "own receipts are no news");
        ensure!(bob.told().worries.is_empty(), "{:?}", bob.told().worries);
        speaking.stop().await
    });
}
