//! What each connection has come to: subscribed to its log, and given the one message. A few bits per connection, whatever it is.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use martlet_protocol::{
    id::ConversationId,
    wire::{self, client_frame, node_frame, subscribed_log},
};

use crate::{
    ambient,
    figures::Times,
    population::people::People,
    socket::{Connection, Handler, log_frame, put},
};

/// Kinds of trouble told apart; after that many, further ones count as "something else".
const TROUBLES: usize = 20;

/// Bits of a connection.
mod is {
    pub(super) const SUBSCRIBED: u8 = 1;
    pub(super) const DELIVERED: u8 = 2;
}

/// A log and what is written to it.
pub struct Written {
    /// Which.
    pub conversation: ConversationId,
    /// Its one message.
    pub content: Bytes,
    /// The log's last `seq` before that, once a reader was told.
    pub head: Option<u64>,
    /// When it was sent.
    pub sent_at: Option<Instant>,
    /// The node said that it is durable.
    pub is_accepted: bool,
}

/// See the module. A connection's index is its account's number.
pub struct Holder {
    people: People,
    logs: Vec<Written>,
    connections: Vec<u8>,
    moved_at: Instant,
    /// How many are subscribed.
    pub subscribed: usize,
    /// How many have their message.
    pub delivered: usize,
    /// Pings of the node that were answered.
    pub pings: u64,
    /// From the moment a log's message was sent to its arrival.
    pub latency: Times,
    /// Connections that were lost or refused before they were subscribed, to be opened again.
    turned_away: Vec<usize>,
    /// How often that was, by reason. It is no trouble if they come in the end.
    pub refusals: BTreeMap<String, u64>,
    /// What went wrong, and how often.
    pub troubles: BTreeMap<String, u64>,
}

impl Holder {
    /// For the logs with these messages.
    pub fn new(people: People, logs: Vec<Written>) -> Self {
        Self {
            people,
            logs,
            connections: Vec::new(),
            moved_at: ambient::now(),
            subscribed: 0,
            delivered: 0,
            pings: 0,
            latency: Times::new(),
            turned_away: Vec::new(),
            refusals: BTreeMap::new(),
            troubles: BTreeMap::new(),
        }
    }

    /// Those that are to be opened again.
    pub fn take_turned_away(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.turned_away)
    }

    /// So many connections are to be held.
    pub fn expect(&mut self, connections: usize) {
        self.connections.resize(connections, 0);
        self.moved_at = ambient::now();
    }

    /// How many connections are to be held.
    pub fn count(&self) -> usize {
        self.connections.len()
    }

    /// The logs.
    pub fn logs(&mut self) -> &mut [Written] {
        self.moved_at = ambient::now();
        &mut self.logs
    }

    /// Messages that the node has accepted.
    pub fn accepted(&self) -> usize {
        self.logs.iter().filter(|log| log.is_accepted).count()
    }

    /// For how long nothing has come.
    pub fn quiet_for(&self) -> Duration {
        self.moved_at.elapsed()
    }

    fn log_of(&self, index: usize) -> usize {
        self.people.log_of(u32::try_from(index).unwrap_or(u32::MAX)) as usize
    }

    fn trouble(&mut self, what: String) {
        count(&mut self.troubles, what);
    }

    fn take(&mut self, index: usize, entry: log_frame::Entry<'_>, at: Instant) -> Result<(), String> {
        let log = &self.logs[self.log_of(index)];
        let due = log.head.map(|head| head + 1);
        if due != Some(entry.seq) || log.content != entry.content {
            return Err(format!("entry {} is not what was written", entry.seq));
        }
        let since_sent = log.sent_at.map(|sent_at| at.saturating_duration_since(sent_at));
        let bits = &mut self.connections[index];
        if *bits & is::DELIVERED != 0 {
            self.trouble("a message came twice".to_owned());
            return Ok(());
        }
        *bits |= is::DELIVERED;
        self.delivered += 1;
        self.latency.record(since_sent.unwrap_or_default());
        Ok(())
    }

    fn subscribed(&mut self, index: usize, answer: Option<subscribed_log::Outcome>) {
        let Some(subscribed_log::Outcome::State(state)) = answer else {
            return self.trouble(format!("the node answered a subscription with {answer:?}"));
        };
        let log = self.log_of(index);
        if *self.logs[log].head.get_or_insert(state.head_seq) != state.head_seq {
            return self.trouble("somebody else writes to a log".to_owned());
        }
        self.connections[index] |= is::SUBSCRIBED;
        self.subscribed += 1;
    }

    fn accepted_as(&mut self, index: usize, accepted: &wire::Accepted) {
        let log = self.log_of(index);
        let log = &mut self.logs[log];
        log.is_accepted = true;
        if log.head.map(|head| head + 1) != Some(accepted.log_seq) {
            self.trouble(format!("a message became entry {}", accepted.log_seq));
        }
    }
}

impl Handler for Holder {
    fn live(&mut self, index: usize, _: &wire::Hello, connection: &mut Connection) {
        self.moved_at = ambient::now();
        let conversation = self.logs[self.log_of(index)].conversation;
        let logs = vec![wire::LogCursor { conversation_id: conversation.to_wire(), cursor: None }];
        put(connection, 1, client_frame::Frame::Subscribe(wire::Subscribe { logs }));
    }

    fn raw(&mut self, index: usize, payload: &[u8], at: Instant) -> Result<bool, String> {
        self.moved_at = at;
        log_frame::entries(payload, |entry| self.take(index, entry, at))
    }

    fn frame(&mut self, index: usize, frame: node_frame::Frame, _: u64, at: Instant, _: &mut Connection) {
        self.moved_at = at;
        match frame {
            node_frame::Frame::Subscribed(wire::Subscribed { logs }) => {
                self.subscribed(index, logs.into_iter().next().and_then(|log| log.outcome));
            }
            node_frame::Frame::Accepted(accepted) => self.accepted_as(index, &accepted),
            node_frame::Frame::Problem(problem) => {
                self.trouble(format!("refused: {} {}", problem.code, problem.detail));
            }
            other => self.trouble(format!("the node sent {other:?}")),
        }
    }

    fn pinged(&mut self, _: usize) {
        self.pings += 1;
    }

    fn ponged(&mut self, _: usize) {}

    fn gone(&mut self, index: usize, why: &str) {
        if let Some(bits) = self.connections.get_mut(index)
            && *bits & is::SUBSCRIBED != 0
        {
            *bits &= !is::SUBSCRIBED;
            self.subscribed -= 1;
            return self.trouble(format!("a connection was lost: {why}"));
        }
        count(&mut self.refusals, why.to_owned());
        self.turned_away.push(index);
    }
}

fn count(of: &mut BTreeMap<String, u64>, what: String) {
    let is_known = of.contains_key(&what) || of.len() < TROUBLES;
    let what = if is_known { what } else { "something else".to_owned() };
    *of.entry(what).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder() -> Holder {
        let people = People { accounts: 4, logs: 2, seed: 1 };
        let log = |n: u8| Written {
            conversation: ConversationId::new([n; 32]),
            content: Bytes::from(vec![n; 8]),
            head: None,
            sent_at: None,
            is_accepted: false,
        };
        let mut holder = Holder::new(people, vec![log(0), log(1)]);
        holder.expect(4);
        for index in 0..4 {
            let state = wire::LogState { head_seq: 6, ..wire::LogState::default() };
            holder.subscribed(index, Some(subscribed_log::Outcome::State(state)));
        }
        holder
    }

    fn entry(seq: u64, content: &[u8]) -> log_frame::Entry<'_> {
        log_frame::Entry { seq, content }
    }

    #[test]
    fn each_connection_gets_its_own_log_s_message_once() {
        let mut holder = holder();
        let now = ambient::now();
        assert_eq!(holder.subscribed, 4);
        assert_eq!(holder.take(0, entry(7, &[0; 8]), now), Ok(()));
        assert_eq!(holder.take(3, entry(7, &[1; 8]), now), Ok(()));
        assert_eq!((holder.delivered, holder.troubles.len()), (2, 0));
        assert_eq!(holder.take(0, entry(7, &[0; 8]), now), Ok(()));
        assert_eq!((holder.delivered, holder.troubles["a message came twice"]), (2, 1));
    }

    #[test]
    fn another_log_s_message_or_number_is_an_error() {
        let mut holder = holder();
        let now = ambient::now();
        assert!(holder.take(1, entry(7, &[1; 8]), now).is_err());
        assert!(holder.take(1, entry(8, &[0; 8]), now).is_err());
        assert_eq!(holder.delivered, 0);
    }

    #[test]
    fn whoever_goes_is_no_longer_subscribed() {
        let mut holder = holder();
        holder.gone(2, "the node closed");
        assert_eq!((holder.subscribed, holder.troubles.len(), holder.take_turned_away().len()), (3, 1, 0));
        // Before it is subscribed again, it is one that was turned away and may come once more.
        holder.gone(2, "busy");
        assert_eq!((holder.subscribed, holder.troubles.len(), holder.refusals["busy"]), (3, 1, 1));
        assert_eq!((holder.take_turned_away(), holder.take_turned_away()), (vec![2], vec![]));
    }

    #[test]
    fn kinds_of_trouble_are_bounded() {
        let mut holder = holder();
        (0..1000).for_each(|n| holder.trouble(format!("trouble {n}")));
        assert_eq!(holder.troubles.len(), TROUBLES + 1);
        assert_eq!(holder.troubles.values().sum::<u64>(), 1000);
    }
}
