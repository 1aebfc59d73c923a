//! A thief with the database, the log of writes and the logs tries to tell who sent each message, and must not beat chance.
//!
//! Three thefts. *At rest*: a group whose devices all write, nothing read yet; the thief looks at each message's rows. *Lone senders*:
//! conversations in which one device alone writes, so that whatever it does more than the others would show. *Live*: copies taken
//! while devices read and acknowledge. And the bytes of every file are searched for ids that should be inside seals only.
//!
//! What the copy does show, and the thief here is not told to guess, is in docs/PROTOCOL.md: devices, sizes, times, memberships.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use martlet_e2e::{
    copy::{Haystack, StolenCopy, writings},
    guess::Score,
    node::{Node, NodeOptions},
    scene::{self, Scene},
    wire::{Account, Circle, Device, Heard, Rest, Socket, SubProtocol, message::Outgoing, username},
};
use martlet_protocol::{
    id::{ClientMessageId, MessageId},
    rest,
    wire::{Cursor, node_frame::Frame},
};
use rand::{RngExt as _, rngs::StdRng};
use tokio::task::JoinHandle;

/// Messages of the theft at rest.
const MESSAGES: u32 = 300;
/// Conversations with one sender.
const LONE: u32 = 60;
/// Copies taken while devices read.
const LIVE: u32 = 80;

/// A row as the thief sees it, and the message it is of (which the thief sees too, by number and time).
#[derive(Debug, Clone)]
struct Row {
    device_key: i64,
    expires_at_s: i64,
    outside: i64,
    sealed: Vec<u8>,
    entry_id: Vec<u8>,
}

type Guess = fn(&[Row]) -> Option<i64>;

fn device(row: Option<&Row>) -> Option<i64> {
    row.map(|row| row.device_key)
}

fn counter(row: &Row) -> &[u8] {
    // Behind the encapsulated key.
    &row.sealed[32..40]
}

/// The row that differs from most others, if one does.
fn odd<K: PartialEq>(rows: &[Row], key: impl Fn(&Row) -> K) -> Option<i64> {
    let alone = rows.iter().min_by_key(|row| rows.iter().filter(|other| key(other) == key(row)).count());
    device(alone)
}

/// Ways to tell a message's sender by its rows.
const BY_ROWS: &[(&str, Guess)] = &[
    ("first row", |rows| device(rows.first())),
    ("last row", |rows| device(rows.last())),
    ("shortest seal", |rows| device(rows.iter().min_by_key(|row| row.sealed.len()))),
    ("longest seal", |rows| device(rows.iter().max_by_key(|row| row.sealed.len()))),
    ("odd length", |rows| odd(rows, |row| row.sealed.len())),
    ("lowest counter", |rows| device(rows.iter().min_by_key(|row| counter(row)))),
    ("highest counter", |rows| device(rows.iter().max_by_key(|row| counter(row)))),
    ("odd counter", |rows| odd(rows, |row| counter(row).to_vec())),
    ("odd expiry", |rows| odd(rows, |row| row.expires_at_s)),
    ("odd place of content", |rows| odd(rows, |row| row.outside)),
    ("lowest entry id", |rows| device(rows.iter().min_by_key(|row| &row.entry_id))),
    ("highest entry id", |rows| device(rows.iter().max_by_key(|row| &row.entry_id))),
];

/// Scores the guessers of rows against the truth.
fn score(messages: &[(Vec<Row>, i64)]) -> Vec<Score> {
    let score = |&(name, guess): &(&'static str, Guess)| {
        let hits = messages.iter().filter(|(rows, sender)| guess(rows) == Some(*sender)).count();
        let devices = messages.first().map_or(1, |(rows, _)| rows.len());
        Score { name, tries: messages.len() as u32, hits: hits as u32, chance: 1.0 / devices as f64 }
    };
    BY_ROWS.iter().map(score).collect()
}

fn judge(theft: &str, scores: &[Score]) -> Result<()> {
    for score in scores {
        println!(
            "{theft}: by {}: {} of {} right, {:.0} by chance",
            score.name,
            score.hits,
            score.tries,
            f64::from(score.tries) * score.chance
        );
    }
    let leaks: Vec<_> = scores.iter().filter(|score| score.knows(scores.len())).map(|score| score.name).collect();
    ensure!(leaks.is_empty(), "FINDING: a stolen copy shows who wrote, by {leaks:?} ({theft})");
    Ok(())
}

/// Devices that each come from an address of their own, so that an address in a log would tell them apart.
struct Stage {
    scene: Scene,
    node: Node,
    rest: Rest,
    rng: StdRng,
    /// What must not stand in any file: what it is, and its bytes.
    sealed_ids: Vec<(&'static str, Vec<u8>)>,
}

impl Stage {
    async fn set(scene: Scene) -> Result<Self> {
        let node =
            Node::start(&scene, NodeOptions::default().set("log.filter=info,martlet=trace,martlet_storage=trace"))
                .await?;
        let rest = Rest::new(node.url())?;
        let rng = scene.rng(0);
        Ok(Self { scene, node, rest, rng, sealed_ids: Vec::new() })
    }

    async fn accounts(&mut self, count: usize, devices: usize) -> Result<Vec<Account>> {
        let mut accounts = Vec::new();
        for _ in 0..count {
            let name = username("member", &mut self.rng);
            accounts.push(Account::register(&self.rest, &mut self.rng, &name, devices).await?);
        }
        Ok(accounts)
    }

    /// Sends as this device and from its address.
    async fn send(&mut self, circle: &Circle, sender: &Device, size: usize) -> Result<()> {
        let message = Outgoing::new(circle, sender, ClientMessageId::random(&mut self.rng), vec![b'm'; size].into());
        let rest = Rest::from_address(self.node.url(), address(sender))?;
        let accepted: rest::Accepted = rest.post(&message.path(), Some(&sender.token), &message.body()?).await?;
        self.sealed_ids.push(("client message id", message.client_message_id.as_bytes().to_vec()));
        self.sealed_ids.push(("message id", accepted.message_id.as_bytes().to_vec()));
        Ok(())
    }

    fn size(&mut self) -> usize {
        if self.rng.random_ratio(1, 10) {
            self.rng.random_range(5_000..7_000)
        } else {
            self.rng.random_range(256..3_000)
        }
    }

    /// No sealed id in any file, and no name, address, id or token in the logs.
    fn search(&self, stolen: &StolenCopy, devices: &[Arc<Device>]) -> Result<()> {
        let log = self.node.log()?;
        for file in std::fs::read_dir(stolen.folder())? {
            let path = file?.path();
            let bytes = std::fs::read(&path)?;
            let haystack = Haystack::new(&bytes);
            let found = self.sealed_ids.iter().find(|(_, id)| haystack.has(id));
            ensure!(found.is_none(), "FINDING: {} shows a {}", path.display(), found.map_or("", |(what, _)| what));
        }
        let mut personal = self.sealed_ids.clone();
        for device in devices {
            personal.push(("device id", device.device_id.as_bytes().to_vec()));
            personal.push(("account id", device.account_id.as_bytes().to_vec()));
        }
        let texts = personal.iter().flat_map(|(what, id)| writings(id).map(|text| (*what, text)));
        let tokens = devices.iter().map(|device| ("token", device.token.clone()));
        let addresses = devices.iter().map(|device| ("address", address(device).to_string()));
        for (what, text) in texts.chain(tokens).chain(addresses) {
            ensure!(!log.contains(&text), "FINDING: the log shows a {what}: {text}");
        }
        Ok(())
    }
}

/// Where a device's requests come from.
fn address(device: &Device) -> Ipv4Addr {
    let [a, b, ..] = *device.device_id.as_bytes();
    Ipv4Addr::new(127, 200, a, b)
}

/// The rows of each message by the number that they have in every mailbox of the circle, in the order in which they lie.
fn rows(stolen: &mut StolenCopy) -> Result<Vec<Vec<Row>>> {
    let first = stolen.rows("device_key", "seq", "expires_at_s", "sealed", "mailbox_entries ORDER BY entry_key")?;
    let second = stolen.rows("0", "0", "COALESCE(content_key, 0)", "entry_id", "mailbox_entries ORDER BY entry_key")?;
    let mut messages: Vec<Vec<Row>> = Vec::new();
    for (first, second) in first.into_iter().zip(second) {
        let number = usize::try_from(first.b)?;
        messages.resize_with(messages.len().max(number), Vec::new);
        messages[number - 1].push(Row {
            device_key: first.a,
            expires_at_s: first.c,
            outside: second.c,
            sealed: first.bytes.context("a seal")?,
            entry_id: second.bytes.context("an entry id")?,
        });
    }
    Ok(messages)
}

#[test]
fn a_copy_at_rest_does_not_show_who_wrote() {
    scene::run("stolen-at-rest", |scene| async move {
        let mut stage = Stage::set(scene).await?;
        let accounts = stage.accounts(3, 2).await?;
        let circle = Circle::group(&stage.rest, &mut stage.rng, &accounts.iter().collect::<Vec<_>>()).await?;
        let devices: Vec<_> = accounts.iter().flat_map(|account| account.devices.iter().cloned()).collect();
        let mut senders = Vec::new();
        for _ in 0..MESSAGES {
            let sender = devices[stage.rng.random_range(0..devices.len())].clone();
            let size = stage.size();
            stage.send(&circle, &sender, size).await?;
            senders.push(sender.device_id);
        }

        let mut stolen = StolenCopy::take(&stage.scene, &stage.node)?;
        let mut messages = Vec::new();
        for (rows, sender) in rows(&mut stolen)?.into_iter().zip(&senders) {
            ensure!(rows.len() == devices.len(), "a message has {} rows", rows.len());
            messages.push((rows, stolen.device_key(sender)?));
        }
        ensure!(messages.len() == MESSAGES as usize, "{} messages rest", messages.len());
        judge("at rest", &score(&messages))?;
        stage.search(&stolen, &devices)?;

        // The same guessers find a sender who is given away.
        for (rows, sender) in &mut messages {
            rows.sort_by_key(|row| row.device_key != *sender);
            rows[0].sealed.push(0);
        }
        let found = score(&messages);
        let found: Vec<_> = found.iter().filter(|score| score.knows(found.len())).map(|score| score.name).collect();
        let planted = ["first row", "longest seal", "odd length"];
        ensure!(planted.iter().all(|name| found.contains(name)), "planted leaks were found by {found:?} only");
        Ok(())
    });
}

#[test]
fn lone_senders_do_not_stand_out() {
    scene::run("stolen-lone-senders", |scene| async move {
        let mut stage = Stage::set(scene).await?;
        let mut lone = Vec::new();
        for _ in 0..LONE {
            let mut accounts = stage.accounts(3, 1).await?;
            // Who creates the conversation is known, so it must tell nothing about who writes.
            let owner = stage.rng.random_range(0..3);
            accounts.swap(0, owner);
            let members: Vec<_> = accounts.iter().collect();
            let circle = Circle::group(&stage.rest, &mut stage.rng, &members).await?;
            let sender = accounts[stage.rng.random_range(0..3)].devices[0].clone();
            sender.claim(&Rest::from_address(stage.node.url(), address(&sender))?, &members).await?;
            for _ in 0..3 {
                let size = stage.size();
                stage.send(&circle, &sender, size).await?;
            }
            lone.push((accounts, sender));
        }

        let mut stolen = StolenCopy::take(&stage.scene, &stage.node)?;
        // Whatever can be counted per device.
        let counted = [
            ("one-time keys left", "COUNT(*)", "prekeys WHERE signed_prekey IS NOT NULL AND device_key ="),
            ("prekeys ever", "COUNT(*)", "prekeys WHERE device_key ="),
            ("highest key id left", "MAX(key_id)", "prekeys WHERE signed_prekey IS NOT NULL AND device_key ="),
            (
                "lowest key id left",
                "MIN(key_id)",
                "prekeys WHERE signed_prekey IS NOT NULL AND kind = 2 AND device_key =",
            ),
            ("bytes added", "added_bytes", "mailbox_heads WHERE device_key ="),
            ("entries added", "added_entries", "mailbox_heads WHERE device_key ="),
            ("acknowledged", "acked_seq", "mailbox_acks WHERE device_key ="),
            ("tokens", "COUNT(*)", "tokens WHERE device_key ="),
            ("end of the token", "MAX(expires_at_ms)", "tokens WHERE device_key ="),
            ("linked at", "linked_at_ms", "devices WHERE device_key ="),
            ("end of the signed prekey", "prekey_not_after_ms", "devices WHERE device_key ="),
            ("tickets", "COUNT(*)", "socket_tickets WHERE device_key ="),
        ];
        let mut scores = Vec::new();
        for (name, what, table) in counted {
            let (mut least, mut most) = (0, 0);
            for (accounts, sender) in &lone {
                let mut values = Vec::new();
                for account in accounts {
                    let device_id = account.devices[0].device_id;
                    let key = stolen.device_key(&device_id)?;
                    values.push((stolen.number(what, &format!("{table} {key}"))?, device_id));
                }
                // Of equal ones the first, which is the owner's: chance too.
                least += u32::from(
                    values.iter().min_by_key(|value| value.0).is_some_and(|value| value.1 == sender.device_id),
                );
                most += u32::from(
                    values.iter().rev().max_by_key(|value| value.0).is_some_and(|value| value.1 == sender.device_id),
                );
            }
            scores.extend([least, most].map(|hits| Score { name, tries: LONE, hits, chance: 1.0 / 3.0 }));
        }
        judge("lone senders", &scores)?;
        let devices: Vec<_> =
            lone.iter().flat_map(|(accounts, _)| accounts.iter().map(|account| account.devices[0].clone())).collect();
        stage.search(&stolen, &devices)
    });
}

#[test]
fn live_copies_do_not_show_who_wrote() {
    scene::run("stolen-live", |scene| async move {
        let mut stage = Stage::set(scene).await?;
        let accounts = stage.accounts(2, 2).await?;
        let circle = Circle::group(&stage.rest, &mut stage.rng, &accounts.iter().collect::<Vec<_>>()).await?;
        let devices: Vec<_> = accounts.iter().flat_map(|account| account.devices.iter().cloned()).collect();
        let readers: Vec<_> = devices.iter().map(|device| read_and_ack(stage.node.url(), device.clone())).collect();

        let queries = [
            ("acknowledged", "acked_seq", "mailbox_acks WHERE device_key ="),
            ("entries left", "COUNT(*)", "mailbox_entries WHERE device_key ="),
            ("bytes removed", "removed_bytes", "mailbox_acks WHERE device_key ="),
        ];
        let mut hits = [[0_u32; 2]; 3];
        for _ in 0..LIVE {
            let sender = devices[stage.rng.random_range(0..devices.len())].clone();
            let size = stage.size();
            stage.send(&circle, &sender, size).await?;
            tokio::time::sleep(Duration::from_millis(stage.rng.random_range(0..150))).await;
            let mut stolen = StolenCopy::take(&stage.scene, &stage.node)?;
            // Ties are broken by chance.
            let mut order: Vec<_> = (0..devices.len()).collect();
            order.sort_by_key(|_| stage.rng.random::<u32>());
            for ((_, what, table), hits) in queries.iter().zip(&mut hits) {
                let mut values = Vec::new();
                for device in order.iter().map(|index| &devices[*index]) {
                    let key = stolen.device_key(&device.device_id)?;
                    values.push((stolen.number(what, &format!("{table} {key}"))?, device.device_id));
                }
                hits[0] += u32::from(
                    values.iter().min_by_key(|value| value.0).is_some_and(|value| value.1 == sender.device_id),
                );
                hits[1] += u32::from(
                    values.iter().max_by_key(|value| value.0).is_some_and(|value| value.1 == sender.device_id),
                );
            }
        }
        readers.iter().for_each(JoinHandle::abort);
        let chance = 1.0 / devices.len() as f64;
        let scores = queries
            .iter()
            .zip(hits)
            .flat_map(|((name, ..), hits)| hits.map(|hits| Score { name, tries: LIVE, hits, chance }));
        judge("live", &scores.collect::<Vec<_>>())
    });
}

/// A device that reads and acknowledges at once.
fn read_and_ack(base: String, device: Arc<Device>) -> JoinHandle<Result<()>> {
    tokio::spawn(async move {
        let (mut socket, hello) = Socket::resume(&base, &device.token, SubProtocol::Proto, None).await?;
        let epoch = hello.mailbox.context("the mailbox's state")?.epoch;
        while let Heard::Frame(_, frame) = socket.hear().await? {
            if let Frame::Entry(entry) = frame {
                let _: MessageId = device.open(&entry)?.message_id;
                socket.ack(Cursor { epoch, seq: entry.seq }).await?;
            }
        }
        Ok(())
    })
}
