//! A day in a minute: direct messages, messages to large groups, and typing and presence, each at its own rate, on the same sockets.
//!
//! In reading order: [`scene`] (accounts, groups and who stands where), [`lane`] (the messages of one kind: when each is due and what became
//! of it), [`presence`] (writing and opening what is never stored), [`drive`] (sends by the clock and takes what comes), [`result`].
//!
//! The loop is open: a message is due at a given moment whatever became of those before it, and latencies count from that moment. It measures
//! no media, and no devices that are away.

mod drive;
mod lane;
mod presence;
mod result;
mod scene;

use std::time::Duration;

use anyhow::{Result, ensure};

pub use result::{KindResult, MixedResult};

use crate::{
    ambient,
    cli::MixedArgs,
    costs::{Clock, Costs},
    node::{Node, proc},
    progress::{Progress, say},
    send::verify::{self, Sent, Verified},
    socket::Fleet,
};
use drive::Drive;
use scene::Scene;

/// Open files beside the connections.
const OTHER_FILES: u64 = 200;
/// Connections being opened at once.
const AT_ONCE: usize = 128;
/// From the last preparation to the first message.
const AHEAD: Duration = Duration::from_millis(500);
/// Nothing moves for so long: what is missing then is lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the measurement.
///
/// # Errors
/// When it could not be made; what was refused, lost or repeated is part of the result.
pub fn run(args: &MixedArgs) -> Result<MixedResult> {
    ensure!(args.accounts.is_multiple_of(2), "--accounts must be even: each writes to another one, or is written to");
    ensure!(args.groups <= args.accounts, "--groups must leave an account for each");
    ensure!(args.direct_rate + args.group_rate + args.presence_rate > 0, "nothing is to be sent");
    let open_files = proc::raise_open_files()?;
    let needed = u64::from(args.accounts) * 2 + OTHER_FILES;
    ensure!(open_files >= needed, "this needs {needed} open files; this machine allows {open_files} (ulimit -Hn)");
    let mut node_args = args.node.clone();
    if node_args.server.is_none() {
        let members = args.accounts.div_ceil(args.groups);
        let own = [
            format!("conversations.max_members_large={}", members.max(2)),
            "limits.ephemeral_per_device_per_second=0".to_owned(),
            "limits.ephemeral_per_account_per_second=0".to_owned(),
            "limits.ephemeral_burst=0".to_owned(),
        ];
        node_args.settings.splice(0..0, own);
    }
    let node = Node::start(&node_args)?;
    let scene = Scene::make(args, node.url())?;
    let mut fleet = Fleet::new(node.url())?;
    let mut drive = Drive::new(&scene);
    connect(&scene, &mut fleet, &mut drive)?;
    let prepared = scene.prepare(args, || drive.turn(&mut fleet, Duration::from_millis(100)))?;
    drive.load(args, &scene, &prepared)?;
    let clock = measure(args, &node, &mut fleet, &mut drive)?;
    let costs = Costs::new(&clock, drive.in_time(), &node)?;
    drop(fleet);
    let verified = verify(args, &node, &scene, &prepared, &drive)?;
    node.stop()?;
    Ok(MixedResult::new(args, &scene, &drive, &clock, costs, verified))
}

/// Connects all devices, and has each follow its group's log.
fn connect(scene: &Scene, fleet: &mut Fleet, drive: &mut Drive) -> Result<()> {
    let devices = scene.devices.len();
    let progress = Progress::new("connecting devices", u64::try_from(devices)?);
    let show = progress.clone();
    fleet.open_all(scene.tokens(), AT_ONCE, drive, |live| show.set(u64::try_from(live).unwrap_or(0)))?;
    let since = ambient::now();
    while drive.subscribed < devices && drive.troubles.is_empty() && since.elapsed() < PATIENCE {
        drive.turn(fleet, Duration::from_millis(20))?;
    }
    progress.done("");
    ensure!(drive.troubles.is_empty(), "not all could connect and subscribe: {:?}", drive.troubles);
    ensure!(drive.subscribed == devices, "{} of {devices} subscribed in time", drive.subscribed);
    Ok(())
}

/// Sends by the clock, and waits for everything that was sent.
fn measure(args: &MixedArgs, node: &Node, fleet: &mut Fleet, drive: &mut Drive) -> Result<Clock> {
    say(&format!(
        "{} direct messages, {} messages to groups and {} of typing and presence a second: {:.1} s of warm-up, then {} s",
        args.direct_rate,
        args.group_rate,
        args.presence_rate,
        args.warm_up.as_secs_f64(),
        args.seconds
    ));
    let start = ambient::now() + AHEAD;
    let begin = start + args.warm_up;
    let span = (begin, begin + Duration::from_secs(args.seconds.into()));
    drive.start(start, span);
    let (mut clock, progress) = (Clock::default(), Progress::new("seconds", args.seconds.into()));
    while (ambient::now() < span.1 || !drive.is_complete()) && drive.quiet_for() < PATIENCE {
        clock.look(node, span)?;
        let next = drive.send_due(fleet)?;
        drive.turn(fleet, next.unwrap_or(Duration::from_millis(10)))?;
        let passed = ambient::now().saturating_duration_since(span.0).as_secs();
        progress.set(passed.min(args.seconds.into()));
    }
    clock.look(node, span)?;
    progress.done("");
    drive.acknowledge_all(fleet, PATIENCE)?;
    Ok(clock)
}

/// Opens everything that came and compares it with what was sent; asks the node whether anything is left.
fn verify(args: &MixedArgs, node: &Node, scene: &Scene, prepared: &scene::Prepared, drive: &Drive) -> Result<Verified> {
    let text_bytes = usize::try_from(args.text_bytes)?;
    let circles = scene.circles.iter().zip(&prepared.direct_ids).zip(drive.direct_accepted());
    let sent: Vec<Sent<'_>> =
        circles.map(|((circle, ids), accepted)| Sent { circle, ids, accepted, text_bytes }).collect();
    let mut verified = verify::open_all(&sent, drive.devices(), args.sample.into())?;
    presence::verify(scene, prepared, drive.devices(), args.sample.into(), &mut verified);
    verified.undrained = verify::undrained(node.url(), &sent)?;
    Ok(verified)
}
