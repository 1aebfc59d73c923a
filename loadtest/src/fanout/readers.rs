//! The readers: each must get every entry once, in order and with the content that was written.

use std::time::{Duration, Instant};

use martlet_protocol::wire::{self, node_frame};

use crate::{
    ambient,
    costs::Troubles,
    figures::Times,
    group::{log::Log, writer::Schedule},
    socket::{Connection, Fleet, Handler, log_frame},
};

/// See the module.
pub struct Readers {
    log: Log,
    /// Messages that each has got.
    got: Vec<usize>,
    complete: usize,
    schedule: Option<Schedule>,
    /// The first so many stop reading for a while.
    stop: usize,
    stopping: Stopping,
    /// What stood in the system's buffers for those who stopped, when they went on; in bytes.
    pub held_by_the_system: Option<u64>,
    moved_at: Instant,
    /// Entries that came, and those of them that count.
    pub entries: u64,
    /// Those that came within the time that counts.
    pub in_time: u64,
    /// From the moment a message was due to its arrival, for those who read all the time.
    pub latency: Times,
    /// The same, for those who stopped.
    pub latency_of_stopped: Times,
    pub troubles: Troubles,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopping {
    Ahead,
    Stopped(Instant),
    Over,
}

impl Readers {
    pub fn new(readers: usize, log: Log, stop: usize) -> Self {
        Self {
            log,
            got: vec![0; readers],
            complete: 0,
            schedule: None,
            stop,
            stopping: if stop == 0 { Stopping::Over } else { Stopping::Ahead },
            held_by_the_system: None,
            moved_at: ambient::now(),
            entries: 0,
            in_time: 0,
            latency: Times::new(),
            latency_of_stopped: Times::new(),
            troubles: Troubles::default(),
        }
    }

    /// When messages are due.
    pub fn schedule(&mut self, schedule: Schedule) {
        self.schedule = Some(schedule);
        self.moved_at = ambient::now();
    }

    /// Everybody has everything.
    pub fn is_complete(&self) -> bool {
        self.complete == self.got.len()
    }

    /// How much the one has that has least.
    pub fn least(&self) -> Option<u64> {
        self.got[self.stop..].iter().min().map(|got| *got as u64)
    }

    /// What was not received.
    pub fn missing(&self) -> u64 {
        self.got.iter().map(|got| (self.log.len() - got) as u64).sum()
    }

    /// For how long nothing has come.
    pub fn quiet_for(&self) -> Duration {
        self.moved_at.elapsed()
    }

    /// Stops those who are to stop when the warm-up is over, and has them go on after so long.
    pub fn stop_and_go(&mut self, fleet: &mut Fleet, stop_for: Duration) {
        let Some(schedule) = self.schedule else { return };
        match self.stopping {
            Stopping::Ahead if ambient::now() >= schedule.span().0 => {
                (0..self.stop).for_each(|index| fleet.pause(index));
                self.stopping = Stopping::Stopped(ambient::now());
            }
            Stopping::Stopped(since) if since.elapsed() >= stop_for => {
                self.stopping = Stopping::Over;
                self.held_by_the_system = (0..self.stop).map(|index| fleet.in_the_systems_buffers(index)).sum();
                self.moved_at = ambient::now();
                (0..self.stop).for_each(|index| fleet.resume(index, self));
            }
            // The silence of those who stopped is not the node's.
            Stopping::Stopped(_) => self.moved_at = ambient::now(),
            Stopping::Ahead | Stopping::Over => {}
        }
    }

    fn take(&mut self, index: usize, entry: log_frame::Entry<'_>, at: Instant) -> Result<(), String> {
        let n = self.got[index];
        if let Some(what) = self.log.check(n, entry)? {
            self.troubles.add(what);
            return Ok(());
        }
        self.got[index] += 1;
        self.complete += usize::from(self.got[index] == self.log.len());
        self.entries += 1;
        if let Some(schedule) = self.schedule
            && schedule.counts(n)
        {
            let took = at.saturating_duration_since(schedule.due(n));
            let times = if index < self.stop { &mut self.latency_of_stopped } else { &mut self.latency };
            times.record(took);
            let (start, end) = schedule.span();
            self.in_time += u64::from(at >= start && at < end);
        }
        Ok(())
    }
}

impl Handler for Readers {
    fn live(&mut self, _: usize, _: &wire::Hello, _: &mut Connection) {}

    fn raw(&mut self, index: usize, payload: &[u8], at: Instant) -> Result<bool, String> {
        self.moved_at = at;
        log_frame::entries(payload, |entry| self.take(index, entry, at))
    }

    fn frame(&mut self, _: usize, frame: node_frame::Frame, _: u64, _: Instant, _: &mut Connection) {
        self.troubles.add(format!("the node sent a reader {frame:?}"));
    }

    fn pinged(&mut self, _: usize) {}

    fn ponged(&mut self, _: usize) {}

    fn gone(&mut self, _: usize, why: &str) {
        self.troubles.add(format!("a connection was lost: {why}"));
    }
}
