//! The sockets while the clock runs: what is due goes out, what comes is counted, timed and acknowledged.
//!
//! Every device gets direct messages of one sender, typing and presence of the same one, and one log that one device writes to. So the n-th
//! of each is the n-th that was sent, which gives it its time without opening it; afterwards all are opened to find out whether it was so.

use std::time::{Duration, Instant};

use anyhow::Result;
use martlet_protocol::wire::{self, client_frame, node_frame, subscribed_log};

use super::{
    lane::{Kind, Lane},
    scene::{Place, Prepared, Scene, schedule, share},
};
use crate::{
    ambient,
    cli::MixedArgs,
    costs::Troubles,
    group::{log::Log, writer},
    send::{
        ends::{AckPace, Mailbox},
        write::framed,
    },
    socket::{Connection, Fleet, Handler, log_frame, put},
};

/// When devices acknowledge …
const ACKS: AckPace = AckPace { entries: 64, delay: Duration::from_millis(500) };
/// … which is looked for so often.
const ACK_SWEEP: Duration = Duration::from_millis(50);
/// Longest wait for something to be due.
const TURN: Duration = Duration::from_millis(10);

/// What a device has got.
#[derive(Default)]
pub struct Device {
    mailbox: Mailbox,
    /// Of its group's log.
    from_log: usize,
    /// What is not stored, in the order of its coming.
    pub ephemerals: Vec<wire::Ephemeral>,
}

impl AsRef<[wire::MailboxEntry]> for Device {
    fn as_ref(&self) -> &[wire::MailboxEntry] {
        &self.mailbox.entries
    }
}

/// See the module.
pub struct Drive<'a> {
    scene: &'a Scene,
    devices: Vec<Device>,
    /// By [`Kind`]; none for a rate of 0.
    lanes: [Option<Lane>; 3],
    /// Each group's log, once it is known what is written to it.
    logs: Vec<Log>,
    /// Each group's last `seq` when its readers subscribed.
    heads: Vec<u64>,
    span: Option<(Instant, Instant)>,
    in_time: u64,
    moved_at: Instant,
    swept_at: Instant,
    /// Devices that follow their group's log.
    pub subscribed: usize,
    pub troubles: Troubles,
}

impl<'a> Drive<'a> {
    /// For devices that are still to connect.
    pub fn new(scene: &'a Scene) -> Self {
        let now = ambient::now();
        Self {
            scene,
            devices: scene.devices.iter().map(|_| Device::default()).collect(),
            lanes: [None, None, None],
            logs: Vec::new(),
            heads: vec![0; scene.groups.len()],
            span: None,
            in_time: 0,
            moved_at: now,
            swept_at: now,
            subscribed: 0,
            troubles: Troubles::default(),
        }
    }

    /// Takes what is to be sent.
    ///
    /// # Errors
    /// When less was prepared than is due.
    pub fn load(&mut self, args: &MixedArgs, scene: &Scene, prepared: &Prepared) -> Result<()> {
        let of_circle = |k: usize| scene.senders[k % scene.senders.len()];
        let circles = scene.senders.len();
        let reached = |circle: usize| scene.circles[circle].devices().count() as u64;
        // The sending device gets an echo of a stored message, and none of one that is not.
        let expected = |count: usize, but: u64| {
            (0..circles).map(|circle| share(count, circles, circle) as u64 * (reached(circle) - but)).sum::<u64>()
        };
        self.lanes[Kind::Direct as usize] = schedule(args, args.direct_rate).map(|schedule| {
            let frame = |k: usize| (of_circle(k), prepared.direct[k % circles][k / circles].clone());
            let frames: Vec<_> = (0..schedule.count()).map(frame).collect();
            Lane::new(schedule, circles, frames, expected(schedule.count(), 0))
        });
        self.lanes[Kind::Presence as usize] = schedule(args, args.presence_rate).map(|schedule| {
            let frames = prepared.presence.iter().enumerate().map(|(k, frame)| (of_circle(k), frame.clone())).collect();
            Lane::new(schedule, circles, frames, expected(schedule.count(), 1))
        });
        let groups = scene.groups.len();
        self.lanes[Kind::Group as usize] = schedule(args, args.group_rate).map(|schedule| {
            let frame = |k: usize| {
                let (group, number) = (&scene.groups[k % groups], k / groups);
                let request = writer::request(group.conversation, prepared.contents[k % groups][number].clone());
                (group.writer, framed(Kind::Group.reference(number), client_frame::Frame::Send(request)))
            };
            let readers = |k: usize| scene.groups[k % groups].readers;
            let count = schedule.count();
            Lane::new(schedule, groups, (0..count).map(frame).collect(), (0..count).map(readers).sum())
        });
        let logs = self.heads.iter().zip(&prepared.contents);
        self.logs = logs.map(|(head, contents)| Log::new(*head, contents.clone())).collect();
        Ok(())
    }

    /// The first messages are due at `start`; what comes in the span counts.
    pub fn start(&mut self, start: Instant, span: (Instant, Instant)) {
        self.lanes.iter_mut().flatten().for_each(|lane| lane.start(start));
        self.span = Some(span);
        self.moved_at = start;
    }

    /// Sends what is due, and tells how long it is until something else is.
    ///
    /// # Errors
    /// When the system's poll fails.
    pub fn send_due(&mut self, fleet: &mut Fleet) -> Result<Option<Duration>> {
        let now = ambient::now();
        for kind in Kind::ALL {
            while let Some((index, frame)) = self.lanes[kind as usize].as_mut().and_then(|lane| lane.take(now)) {
                if let Some(connection) = fleet.connection(index) {
                    connection.put_framed(&frame);
                    fleet.flush(index, self);
                }
            }
        }
        let now = ambient::now();
        Ok(self.lanes.iter().flatten().filter_map(|lane| lane.wait(now)).min().map(|wait| wait.min(TURN)))
    }

    /// Serves the sockets for a moment.
    ///
    /// # Errors
    /// When the system's poll fails.
    pub fn turn(&mut self, fleet: &mut Fleet, wait: Duration) -> Result<()> {
        fleet.turn(wait, self)?;
        let now = ambient::now();
        if now.duration_since(self.swept_at) >= ACK_SWEEP {
            self.swept_at = now;
            self.ack_older_than(fleet, now, ACKS.delay);
        }
        Ok(())
    }

    /// Acknowledges everything, and waits until it is written to the sockets.
    ///
    /// # Errors
    /// When the system's poll fails.
    pub fn acknowledge_all(&mut self, fleet: &mut Fleet, patience: Duration) -> Result<()> {
        let since = ambient::now();
        self.ack_older_than(fleet, since, Duration::ZERO);
        // Also what comes now, which would be once too often.
        while since.elapsed() < patience && (since.elapsed() < ACKS.delay || self.has_unacked()) {
            self.turn(fleet, Duration::from_millis(10))?;
            self.ack_older_than(fleet, ambient::now(), Duration::ZERO);
        }
        Ok(())
    }

    fn has_unacked(&self) -> bool {
        self.devices.iter().any(|device| device.mailbox.has_unacked())
    }

    fn ack_older_than(&mut self, fleet: &mut Fleet, now: Instant, age: Duration) {
        for index in 0..self.devices.len() {
            let mailbox = &mut self.devices[index].mailbox;
            if mailbox.is_unacked_for(age, now)
                && let Some(connection) = fleet.connection(index)
            {
                mailbox.ack(connection);
                fleet.flush(index, self);
            }
        }
    }

    /// Everything was sent and answered, and came.
    pub fn is_complete(&self) -> bool {
        self.lanes.iter().flatten().all(Lane::is_complete)
    }

    /// For how long nothing has come.
    pub fn quiet_for(&self) -> Duration {
        ambient::now().saturating_duration_since(self.moved_at)
    }

    /// Entries of all kinds that came in the time that counts, without echoes.
    pub fn in_time(&self) -> u64 {
        self.in_time
    }

    /// What every device has got, by its socket.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The messages of a kind, if there are any.
    pub fn lane(&self, kind: Kind) -> Option<&Lane> {
        self.lanes[kind as usize].as_ref()
    }

    /// Direct messages that were accepted, by circle.
    pub fn direct_accepted(&self) -> Vec<u64> {
        let none = || vec![0; self.scene.circles.len()];
        self.lane(Kind::Direct).map_or_else(none, |lane| lane.accepted.clone())
    }

    fn count_in(&mut self, at: Instant) {
        self.in_time += u64::from(self.span.is_some_and(|(start, end)| at >= start && at < end));
    }

    fn accepted(&mut self, index: usize, reference: u64, log_seq: Option<u64>, at: Instant) {
        let Some((kind, number)) = Kind::of(reference) else {
            return self.troubles.add("an answer to nothing");
        };
        let Place { circle, group, .. } = self.scene.devices[index];
        let sender = if kind == Kind::Group { group } else { circle };
        let Some(lane) = &mut self.lanes[kind as usize] else {
            return self.troubles.add("an answer to a kind that is not sent");
        };
        if !lane.accept(sender, number, at) {
            self.troubles.add("answers out of order");
        }
        let is_place =
            |seq: u64| kind != Kind::Group || self.logs.get(group).is_some_and(|log| log.seq(number + 1) == seq);
        if !log_seq.is_none_or(is_place) {
            self.troubles.add("a message stands in another place of its log than it was written to");
        }
    }

    fn entry(&mut self, index: usize, entry: wire::MailboxEntry, at: Instant, connection: &mut Connection) {
        let Place { circle, place, .. } = self.scene.devices[index];
        let mailbox = &mut self.devices[index].mailbox;
        let number = mailbox.entries.len();
        if let Err(what) = mailbox.take(entry, at, ACKS, connection) {
            return self.troubles.add(what);
        }
        if let Some(lane) = &mut self.lanes[Kind::Direct as usize] {
            lane.arrive(circle, number, at, place == 0);
        }
        if place > 0 {
            self.count_in(at);
        }
    }

    fn ephemeral(&mut self, index: usize, ephemeral: wire::Ephemeral, at: Instant) {
        let number = self.devices[index].ephemerals.len();
        self.devices[index].ephemerals.push(ephemeral);
        if let Some(lane) = &mut self.lanes[Kind::Presence as usize] {
            lane.arrive(self.scene.devices[index].circle, number, at, false);
        }
        self.count_in(at);
    }

    fn log_entry(&mut self, index: usize, entry: log_frame::Entry<'_>, at: Instant) -> Result<(), String> {
        let group = self.scene.devices[index].group;
        let log = self.logs.get(group).ok_or("an entry of a log that nobody has written to")?;
        let number = self.devices[index].from_log;
        if let Some(what) = log.check(number, entry)? {
            self.troubles.add(what);
            return Ok(());
        }
        self.devices[index].from_log += 1;
        if let Some(lane) = &mut self.lanes[Kind::Group as usize] {
            lane.arrive(group, number, at, self.scene.groups[group].writer == index);
        }
        self.count_in(at);
        Ok(())
    }

    fn subscribed(&mut self, index: usize, outcome: Option<subscribed_log::Outcome>) {
        match outcome {
            Some(subscribed_log::Outcome::State(state)) => {
                self.subscribed += 1;
                let head = &mut self.heads[self.scene.devices[index].group];
                *head = state.head_seq.max(*head);
            }
            other => self.troubles.add(format!("the node answered a subscription with {other:?}")),
        }
    }
}

impl Handler for Drive<'_> {
    fn live(&mut self, index: usize, hello: &wire::Hello, connection: &mut Connection) {
        if let Some(state) = &hello.mailbox {
            self.devices[index].mailbox.epoch = state.epoch;
        }
        let group = &self.scene.groups[self.scene.devices[index].group];
        let logs = vec![wire::LogCursor { conversation_id: group.conversation.to_wire(), cursor: None }];
        put(connection, 0, client_frame::Frame::Subscribe(wire::Subscribe { logs }));
    }

    fn raw(&mut self, index: usize, payload: &[u8], at: Instant) -> Result<bool, String> {
        let taken = log_frame::entries(payload, |entry| self.log_entry(index, entry, at))?;
        if taken {
            self.moved_at = at;
        }
        Ok(taken)
    }

    fn frame(
        &mut self,
        index: usize,
        frame: node_frame::Frame,
        reference: u64,
        at: Instant,
        connection: &mut Connection,
    ) {
        self.moved_at = self.moved_at.max(at);
        match frame {
            node_frame::Frame::Entry(entry) => self.entry(index, entry, at, connection),
            node_frame::Frame::Ephemeral(ephemeral) => self.ephemeral(index, ephemeral, at),
            node_frame::Frame::Accepted(accepted) => {
                if !accepted.partial_device_ids.is_empty() {
                    self.troubles.add("a mailbox was full");
                }
                self.accepted(index, reference, Some(accepted.log_seq), at);
            }
            node_frame::Frame::AcceptedEphemeral(_) => self.accepted(index, reference, None, at),
            node_frame::Frame::Subscribed(wire::Subscribed { logs }) => {
                self.subscribed(index, logs.into_iter().next().and_then(|log| log.outcome));
            }
            node_frame::Frame::Problem(problem) => {
                self.troubles.add(format!("refused: {} {}", problem.code, problem.detail));
            }
            other => self.troubles.add(format!("the node sent {other:?}")),
        }
    }

    fn pinged(&mut self, _: usize) {}

    fn ponged(&mut self, _: usize) {}

    fn gone(&mut self, _: usize, why: &str) {
        self.troubles.add(format!("a connection was lost: {why}"));
    }
}
