//! No answer leaves before what it promises is on disk, shown by the node's system calls.
//!
//! Two ways of looking. One sender at a time with small messages: nothing in the log may be unsynced when an answer leaves. Several
//! senders and receivers at once with messages that lie recognisably in the log: for each, its own transaction must be synced before
//! its own answer leaves, and before any device gets it. Both must find fault with a node that was told not to sync.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use martlet_e2e::{
    node::{Node, NodeOptions},
    scene::{self, Scene},
    trace::{Tracer, proof::Fault},
    wire::{Account, Circle, Heard, Rest, Socket, SubProtocol, message::Outgoing, username},
};
use martlet_protocol::{
    id::{ClientMessageId, MessageId, to_base64},
    rest,
    wire::node_frame,
};
use tokio::task::JoinSet;

const ALONE: usize = 25;
const SENDERS: usize = 5;
const EACH: usize = 12;
/// Over the size up to which content lies inside the seal.
const LARGE: usize = 4_600;

#[test]
fn answers_leave_after_their_sync() {
    scene::run("durability", |scene| async move {
        let run = traced_run(&scene, "full").await?;
        let faults = run.faults();
        println!(
            "answers alone: {}, answers of concurrent senders: {}, entries delivered: {}, transactions: {}, syncs: {}, faults: {}",
            run.alone.len(),
            run.marked.len(),
            run.delivered.len(),
            run.trace.counts().0,
            run.trace.counts().1,
            faults.len()
        );
        ensure!(faults.is_empty(), "answers were not proved to be durable: {faults:?}");
        ensure!(run.delivered.len() >= SENDERS * EACH, "entries were not seen being delivered");
        Ok(())
    });
}

#[test]
fn a_node_that_does_not_sync_is_found_out() {
    scene::run("durability-normal", |scene| async move {
        let run = traced_run(&scene, "normal").await?;
        let faults = run.faults();
        println!("faults of a node that does not sync: {} of {}", faults.len(), run.alone.len() + run.marked.len());
        let syncs = |fault: &&Fault| matches!(fault, Fault::NeverSynced | Fault::LeftBefore | Fault::LogDirty);
        let found = faults.iter().filter(syncs).count();
        // A checkpoint may sync now and then.
        ensure!(2 * found > run.alone.len() + run.marked.len(), "only {found} faults were found: {faults:?}");
        ensure!(faults.len() == found, "faults of another kind: {faults:?}");
        Ok(())
    });
}

/// What was answered and delivered, as it is recognised in the trace.
struct Run {
    trace: martlet_e2e::trace::proof::Trace,
    alone: Vec<String>,
    /// Mark in the log, answer on a socket.
    marked: Vec<(String, String)>,
    /// Mark in the log, entry on a socket.
    delivered: Vec<(String, String)>,
}

impl Run {
    fn faults(&self) -> Vec<Fault> {
        let mut faults = self.trace.one_by_one(&self.alone);
        let pairs = self.marked.iter().chain(&self.delivered);
        faults.extend(pairs.filter_map(|(written, left)| self.trace.synced_before(written, left).err()));
        faults
    }
}

async fn traced_run(scene: &Scene, durability: &str) -> Result<Run> {
    let tracer = Tracer::new(scene, durability)?;
    let options = NodeOptions::default().set(&format!("storage.durability={durability}")).under(tracer.wrapper.clone());
    let mut node = Node::start(scene, options).await?;
    let rest = Rest::new(node.url())?;
    let mut rng = scene.rng(1);
    let mut accounts = Vec::new();
    for devices in [2, 2, 2] {
        let name = username("durable", &mut rng);
        accounts.push(Account::register(&rest, &mut rng, &name, devices).await?);
    }
    let everybody: Vec<_> = accounts.iter().collect();
    let circle = Circle::group(&rest, &mut rng, &everybody).await?;

    let alone = send_alone(&rest, &accounts, &circle, &mut rng).await?;
    let (marked, delivered) = send_together(&rest, &accounts, &circle, &mut rng).await?;
    node.terminate().await?;
    Ok(Run { trace: tracer.read().await?, alone, marked, delivered })
}

/// One message after the other, by turns over a socket and REST, while no device reads.
async fn send_alone(
    rest: &Rest,
    accounts: &[Account],
    circle: &Circle,
    rng: &mut rand::rngs::StdRng,
) -> Result<Vec<String>> {
    let device = &accounts[0].devices[0];
    let (mut socket, _) = Socket::open(rest.base(), &device.token, SubProtocol::Json).await?;
    let mut answers = Vec::new();
    for number in 1..=ALONE {
        let outgoing = Outgoing::new(circle, device, ClientMessageId::random(rng), Bytes::from(vec![7; 300]));
        if number % 2 == 0 {
            let accepted: rest::Accepted = rest.post(&outgoing.path(), Some(&device.token), &outgoing.body()?).await?;
            answers.push(in_json(&accepted.message_id));
        } else {
            let accepted =
                socket.send(number as u64, outgoing.request).await?.map_err(|problem| anyhow::anyhow!(problem.code))?;
            answers.push(in_socket_json(&accepted.message_id));
        }
    }
    Ok(answers)
}

/// All at once, each waiting for its answers only; one device reads.
async fn send_together(
    rest: &Rest,
    accounts: &[Account],
    circle: &Circle,
    rng: &mut rand::rngs::StdRng,
) -> Result<(Vec<(String, String)>, Vec<(String, String)>)> {
    let devices: Vec<_> = accounts.iter().flat_map(|account| account.devices.iter().cloned()).collect();
    let (reader, senders) = devices.split_last().context("six devices")?;
    ensure!(senders.len() == SENDERS);
    let reading = tokio::spawn(read_marked(rest.base().to_owned(), reader.clone(), SENDERS * EACH));
    let mut sending = JoinSet::new();
    for (number, device) in senders.iter().enumerate() {
        let messages: Vec<_> = (0..EACH)
            .map(|_| {
                let id = ClientMessageId::random(rng);
                (mark(&id), Outgoing::new(circle, device, id, marked_content(&id)))
            })
            .collect();
        sending.spawn(send_marked(rest.clone(), device.token.clone(), messages, number % 2 == 0));
    }
    let mut marked = Vec::new();
    while let Some(answers) = sending.join_next().await {
        marked.extend(answers??);
    }
    Ok((marked, reading.await??))
}

async fn send_marked(
    rest: Rest,
    token: String,
    messages: Vec<(String, Outgoing)>,
    over_rest: bool,
) -> Result<Vec<(String, String)>> {
    let mut answers = Vec::new();
    let (mut socket, _) = Socket::open(rest.base(), &token, SubProtocol::Json).await?;
    for (number, (mark, outgoing)) in (1..).zip(messages) {
        if over_rest {
            let accepted: rest::Accepted = rest.post(&outgoing.path(), Some(&token), &outgoing.body()?).await?;
            answers.push((mark, in_json(&accepted.message_id)));
        } else {
            let accepted =
                socket.send(number, outgoing.request).await?.map_err(|problem| anyhow::anyhow!(problem.code))?;
            answers.push((mark, in_socket_json(&accepted.message_id)));
        }
    }
    Ok(answers)
}

/// Reads until it has as many large messages; gives each one's mark and how its entry looks on the socket.
async fn read_marked(
    base: String,
    device: std::sync::Arc<martlet_e2e::wire::Device>,
    wanted: usize,
) -> Result<Vec<(String, String)>> {
    let (mut socket, _) = Socket::resume(&base, &device.token, SubProtocol::Json, None).await?;
    let mut delivered = Vec::new();
    while delivered.len() < wanted {
        match socket.hear().await? {
            Heard::Frame(_, node_frame::Frame::Entry(entry)) if !entry.content.is_empty() => {
                let opened = device.open(&entry)?;
                delivered.push((mark(&opened.client_message_id), standard_base64(&entry.entry_id)));
            }
            Heard::Frame(..) => {}
            Heard::Closed(code) => anyhow::bail!("the reader's socket closed with {code:?}"),
        }
    }
    Ok(delivered)
}

/// Text that stands nowhere else.
fn mark(id: &ClientMessageId) -> String {
    format!("<<mark {}>>", id.to_text())
}

/// The mark again and again, so that every page with part of the content shows it.
fn marked_content(id: &ClientMessageId) -> Bytes {
    mark(id).bytes().cycle().take(LARGE).collect()
}

fn in_json(id: &MessageId) -> String {
    id.to_text()
}

fn in_socket_json(id: &[u8]) -> String {
    standard_base64(id)
}

/// How proto3 JSON writes bytes, without the padding, since the text is only searched for.
fn standard_base64(bytes: &[u8]) -> String {
    to_base64(bytes).replace('-', "+").replace('_', "/")
}
