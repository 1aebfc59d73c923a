//! What a device meets in its mailbox's life, over a real node: resume, retries, full mailboxes, expiry, shared content, revocation,
//! replacement and a node that shuts down.

use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use martlet_e2e::{
    clock::Stopwatch,
    copy::StolenCopy,
    node::{Node, NodeOptions},
    scene::{self, Scene, until},
    wire::{
        Account, Circle, Device, Heard, Reading, Rest, Socket, SubProtocol, acked,
        message::{Opened, Outgoing},
        username,
    },
};
use martlet_protocol::{
    id::{ClientMessageId, MessageId},
    problem::close,
    rest,
    wire::{GapReason, node_frame::Frame},
};
use rand::rngs::StdRng;

/// A node with two accounts and their direct conversation.
struct Stage {
    scene: Scene,
    node: Node,
    rest: Rest,
    rng: StdRng,
    one: Account,
    two: Account,
    circle: Circle,
}

impl Stage {
    async fn set(scene: Scene, options: NodeOptions, devices: [usize; 2]) -> Result<Self> {
        let node = Node::start(&scene, options).await?;
        let rest = Rest::new(node.url())?;
        let mut rng = scene.rng(0);
        let (one, two) = (username("one", &mut rng), username("two", &mut rng));
        let one = Account::register(&rest, &mut rng, &one, devices[0]).await?;
        let two = Account::register(&rest, &mut rng, &two, devices[1]).await?;
        let circle = Circle::direct(&rest, &mut rng, &one, &two).await?;
        Ok(Self { scene, node, rest, rng, one, two, circle })
    }

    fn message(&mut self, sender: &Device, size: usize) -> Outgoing {
        Outgoing::new(&self.circle, sender, ClientMessageId::random(&mut self.rng), vec![b'm'; size].into())
    }

    async fn post(&self, sender: &Device, message: &Outgoing) -> Result<rest::Accepted> {
        Ok(self.rest.post(&message.path(), Some(&sender.token), &message.body()?).await?)
    }

    /// Sends this many messages, one after the other.
    async fn send(&mut self, sender: &Device, count: usize) -> Result<Vec<rest::Accepted>> {
        let mut answers = Vec::new();
        for _ in 0..count {
            let message = self.message(sender, 300);
            answers.push(self.post(sender, &message).await?);
        }
        Ok(answers)
    }

    async fn read(&self, device: &Device, after: Option<u64>) -> Result<Reading> {
        Reading::start(&self.rest, device, after).await
    }
}

fn seqs(entries: &[Opened]) -> Vec<u64> {
    entries.iter().map(|entry| entry.seq).collect()
}

#[test]
fn a_device_resumes_where_it_says() {
    scene::run("resume", |scene| async move {
        let mut stage = Stage::set(scene, NodeOptions::default(), [1, 1]).await?;
        let (sender, reader) = (stage.one.devices[0].clone(), stage.two.devices[0].clone());
        stage.send(&sender, 10).await?;

        let mut reading = stage.read(&reader, None).await?;
        ensure!(seqs(&reading.backlog(&reader).await?.0) == (1..=10).collect::<Vec<_>>());
        let mut reading = stage.read(&reader, Some(5)).await?;
        ensure!(seqs(&reading.backlog(&reader).await?.0) == (6..=10).collect::<Vec<_>>());
        // What comes later is spliced on.
        stage.send(&sender, 1).await?;
        ensure!(reading.entry(&reader).await?.seq == 11);

        acked(&stage.rest, &reader, reading, 7).await?;
        let mut reading = stage.read(&reader, None).await?;
        ensure!(seqs(&reading.backlog(&reader).await?.0) == (8..=11).collect::<Vec<_>>(), "after an ack");
        // A device that asks for what it acknowledged is told so, and gets the rest.
        let mut reading = stage.read(&reader, Some(3)).await?;
        let (entries, gaps) = reading.backlog(&reader).await?;
        let told: Vec<_> = gaps.iter().map(|gap| (gap.from_seq, gap.to_seq, gap.reason())).collect();
        ensure!(told == [(4, 7, GapReason::Acked)], "{told:?}");
        ensure!(seqs(&entries) == (8..=11).collect::<Vec<_>>());
        Ok(())
    });
}

#[test]
fn a_retry_over_another_transport_gets_the_first_answer() {
    scene::run("transports", |scene| async move {
        let mut stage = Stage::set(scene, NodeOptions::default(), [1, 1]).await?;
        let (sender, reader) = (stage.one.devices[0].clone(), stage.two.devices[0].clone());
        let (mut socket, _) = Socket::open(stage.rest.base(), &sender.token, SubProtocol::Json).await?;
        for socket_first in [true, false] {
            let message = stage.message(&sender, 300);
            let mut answers: Vec<(MessageId, u64)> = Vec::new();
            for attempt in 0..2_u64 {
                if (attempt == 0) == socket_first {
                    let accepted = socket.send(attempt + 1, message.request.clone()).await?;
                    let accepted = accepted.map_err(|problem| anyhow::anyhow!("{problem:?}"))?;
                    answers.push((accepted.message_id.as_ref().try_into()?, accepted.accepted_at_ms));
                } else {
                    let accepted = stage.post(&sender, &message).await?;
                    answers.push((accepted.message_id, accepted.accepted_at_ms));
                }
            }
            ensure!(answers[0] == answers[1], "the retry was answered otherwise: {answers:?}");
        }
        let mut reading = stage.read(&reader, None).await?;
        let (entries, _) = reading.backlog(&reader).await?;
        ensure!(seqs(&entries) == [1, 2], "a retry was delivered: {entries:?}");
        Ok(())
    });
}

#[test]
fn a_full_mailbox_holds_up_nobody_and_loses_nothing_silently() {
    const ROOM: u64 = 100;
    scene::run("quota", |scene| async move {
        let options = NodeOptions::default().set(&format!("mailbox.max_entries={ROOM}"));
        let mut stage = Stage::set(scene, options, [1, 2]).await?;
        let sender = stage.one.devices[0].clone();
        let (present, absent) = (stage.two.devices[0].clone(), stage.two.devices[1].clone());
        let over = 7;
        let mut accepted = Vec::new();
        for count in [60, ROOM as usize + over - 60] {
            accepted.extend(stage.send(&sender, count).await?);
            // The others read and acknowledge, the sender its echoes too, and so have room again.
            for device in [&sender, &present] {
                let mut reading = stage.read(device, None).await?;
                let (entries, gaps) = reading.backlog(device).await?;
                ensure!(entries.len() == count && gaps.is_empty(), "{} entries, {gaps:?}", entries.len());
                acked(&stage.rest, device, reading, accepted.len() as u64).await?;
            }
        }
        for (index, answer) in accepted.iter().enumerate() {
            let expected: &[_] = if index < ROOM as usize { &[] } else { &[absent.device_id] };
            ensure!(
                answer.partial_device_ids == expected,
                "message {index} names {} devices",
                answer.partial_device_ids.len()
            );
        }

        let mut reading = stage.read(&absent, None).await?;
        let (entries, gaps) = reading.backlog(&absent).await?;
        ensure!(seqs(&entries) == (1..=ROOM).collect::<Vec<_>>(), "what fitted is there");
        let told: Vec<_> = gaps.iter().map(|gap| (gap.from_seq, gap.to_seq, gap.count, gap.reason())).collect();
        ensure!(told == [(ROOM + 1, ROOM + over as u64, over as u64, GapReason::Quota)], "{told:?}");
        // With room again, it goes on.
        acked(&stage.rest, &absent, reading, ROOM + over as u64).await?;
        let answers = stage.send(&sender, 1).await?;
        ensure!(answers[0].partial_device_ids.is_empty(), "the mailbox is still full");
        let mut reading = stage.read(&absent, Some(ROOM + over as u64)).await?;
        ensure!(seqs(&reading.backlog(&absent).await?.0) == [ROOM + over as u64 + 1]);
        Ok(())
    });
}

#[test]
fn a_disappearing_message_leaves_a_gap_marker() {
    scene::run("expiry", |scene| async move {
        let mut stage = Stage::set(scene, NodeOptions::default().set("mailbox.sweep_interval=1s"), [1, 1]).await?;
        let (sender, reader) = (stage.one.devices[0].clone(), stage.two.devices[0].clone());
        stage.send(&sender, 1).await?;
        let mut message = stage.message(&sender, 300);
        message.request.lifetime_seconds = 2;
        stage.post(&sender, &message).await?;
        stage.send(&sender, 1).await?;

        let (rest, device): (&Rest, &Arc<Device>) = (&stage.rest, &reader);
        until("the message has expired", || async {
            let (entries, gaps) = Reading::start(rest, device, None).await?.backlog(device).await?;
            ensure!(seqs(&entries).starts_with(&[1]) && seqs(&entries).ends_with(&[3]), "{:?}", seqs(&entries));
            let told: Vec<_> = gaps.iter().map(|gap| (gap.from_seq, gap.to_seq, gap.count, gap.reason())).collect();
            ensure!(told.is_empty() || told == [(2, 2, 1, GapReason::Expired)], "{told:?}");
            Ok(!told.is_empty() && entries.len() == 2)
        })
        .await?;
        let (scene, node) = (&stage.scene, &stage.node);
        until("the expired rows are swept", || async {
            Ok(StolenCopy::take(scene, node)?.number("COUNT(*)", "mailbox_entries WHERE own_lifetime = 1")? == 0)
        })
        .await?;

        message.request.lifetime_seconds = 366 * 24 * 3600;
        message.client_message_id = ClientMessageId::random(&mut stage.rng);
        let refused =
            stage.rest.post::<_, rest::Accepted>(&message.path(), Some(&sender.token), &message.body()?).await;
        ensure!(refused.as_ref().is_err_and(|error| error.code() == Some("lifetime_invalid")), "{refused:?}");
        Ok(())
    });
}

#[test]
fn large_content_is_stored_once_for_five_devices() {
    const LARGE: usize = 6_000;
    scene::run("large", |scene| async move {
        let mut stage = Stage::set(scene, NodeOptions::default(), [3, 2]).await?;
        let sender = stage.one.devices[0].clone();
        let message = stage.message(&sender, LARGE);
        stage.post(&sender, &message).await?;
        let mut stolen = StolenCopy::take(&stage.scene, &stage.node)?;
        let contents = stolen.rows("content_key", "refs", "LENGTH(content)", "NULL", "contents")?;
        let stored: Vec<_> = contents.iter().map(|row| (row.b, row.c)).collect();
        ensure!(stored == [(5, LARGE as i64)], "references and length: {stored:?}");
        ensure!(stolen.number("MAX(LENGTH(sealed))", "mailbox_entries")? < 1_000, "the content lies in the seals too");

        let devices: Vec<_> = stage.one.devices.iter().chain(&stage.two.devices).cloned().collect();
        for device in &devices {
            let mut reading = stage.read(device, None).await?;
            let entry = reading.entry(device).await?;
            ensure!(entry.content == martlet_protocol::id::Hash::of(&message.request.content) && entry.header_is_right);
            acked(&stage.rest, device, reading, 1).await?;
        }
        let (scene, node) = (&stage.scene, &stage.node);
        until("the content goes with its last entry", || async {
            Ok(StolenCopy::take(scene, node)?.number("COUNT(*)", "contents")? == 0)
        })
        .await
    });
}

#[test]
fn a_revoked_device_is_cut_off_and_its_mailbox_purged() {
    scene::run("revoke", |scene| async move {
        let mut stage = Stage::set(scene, NodeOptions::default(), [3, 2]).await?;
        let sender = stage.two.devices[0].clone();
        let (revoked, other) = (stage.one.devices[2].clone(), stage.one.devices[1].clone());
        stage.send(&sender, 3).await?;
        let large = stage.message(&sender, 6_000);
        stage.post(&sender, &large).await?;
        let mut reading = stage.read(&revoked, None).await?;
        ensure!(reading.backlog(&revoked).await?.0.len() == 4);

        let watch = Stopwatch::start();
        let closing = tokio::spawn(async move { reading.closed().await.map(|code| (code, watch.elapsed())) });
        stage.one.revoke(&stage.rest, revoked.device_id).await?;
        let answered = watch.elapsed();
        let (code, closed) = closing.await??;
        println!("revocation answered after {answered:?}, socket closed after {closed:?}");
        ensure!(code == Some(close::DEVICE_ENDED), "closed with {code:?}");

        let refused = stage.rest.get::<rest::OwnDevices>("/v1/devices", Some(&revoked.token)).await;
        ensure!(refused.as_ref().is_err_and(|error| error.code() == Some("unauthenticated")), "its token still works");
        ensure!(Socket::open(stage.rest.base(), &revoked.token, SubProtocol::Proto).await.is_err(), "its socket opens");
        let mut stolen = StolenCopy::take(&stage.scene, &stage.node)?;
        let key = stolen.device_key(&revoked.device_id)?;
        for table in ["mailbox_entries", "mailbox_gaps", "mailbox_heads", "tokens"] {
            let left = stolen.number("COUNT(*)", &format!("{table} WHERE device_key = {key}"))?;
            ensure!(left == 0, "{left} rows of the revoked device are left in {table}");
        }

        // A sender that does not know yet is told, stores nothing, and is accepted once it does.
        let stale = stage.message(&sender, 300);
        let refused = stage.post(&sender, &stale).await;
        ensure!(
            refused.is_err_and(|error| error.to_string().contains("mismatch")),
            "a fork for a revoked device was taken"
        );
        stage.circle =
            Circle::known(stage.circle.conversation_id, stage.circle.membership_m, &[&stage.one, &stage.two]);
        stage.send(&sender, 1).await?;
        let mut reading = stage.read(&other, None).await?;
        ensure!(seqs(&reading.backlog(&other).await?.0) == [1, 2, 3, 4, 5]);
        Ok(())
    });
}

#[test]
fn the_newest_socket_of_a_device_wins() {
    scene::run("replace", |scene| async move {
        let mut stage = Stage::set(scene, NodeOptions::default(), [1, 1]).await?;
        let (sender, reader) = (stage.one.devices[0].clone(), stage.two.devices[0].clone());
        let mut first = stage.read(&reader, None).await?;
        first.backlog(&reader).await?;
        let mut second = stage.read(&reader, None).await?;
        let code = first.closed().await?;
        ensure!(code == Some(close::REPLACED), "closed with {code:?}");
        stage.send(&sender, 1).await?;
        ensure!(second.entry(&reader).await?.seq == 1);
        Ok(())
    });
}

#[test]
fn a_node_that_shuts_down_says_when_to_come_back() {
    scene::run("drain", |scene| async move {
        let mut stage = Stage::set(scene, NodeOptions::default().set("server.drain_window=2s"), [3, 2]).await?;
        let sender = stage.two.devices[0].clone();
        let readers: Vec<_> = stage.one.devices.iter().chain(&stage.two.devices[1..]).cloned().collect();
        let mut readings = Vec::new();
        for reader in &readers {
            let mut reading = stage.read(reader, None).await?;
            reading.backlog(reader).await?;
            readings.push(reading);
        }
        let told: Vec<_> =
            readings.into_iter().map(|mut reading| tokio::spawn(async move { farewell(&mut reading).await })).collect();
        let status = stage.node.terminate().await?;
        ensure!(status.success(), "the node ended with {status}");
        let mut delays = Vec::new();
        for told in told {
            let (retry_after_ms, code) = told.await??;
            ensure!(code == Some(close::GOING_AWAY), "closed with {code:?}");
            delays.push(retry_after_ms);
        }
        println!("asked to come back after (ms): {delays:?}");
        ensure!(delays.iter().any(|delay| *delay != delays[0]), "the delays are not spread");

        stage.node.restart().await?;
        stage.send(&sender, 2).await?;
        for reader in &readers {
            let mut reading = stage.read(reader, Some(0)).await?;
            ensure!(seqs(&reading.backlog(reader).await?.0) == [1, 2]);
        }
        Ok(())
    });
}

/// What a device is told at the end: the delay to come back after, and the close code.
async fn farewell(reading: &mut Reading) -> Result<(u32, Option<u16>)> {
    let retry_after_ms = match reading.socket.hear_news().await? {
        Heard::Frame(_, Frame::Draining(draining)) => draining.retry_after_ms,
        other => bail!("instead of a farewell: {other:?}"),
    };
    Ok((retry_after_ms, reading.closed().await?))
}
