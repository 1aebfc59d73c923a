//! What a mailbox brings: opened in the order of the protocol's step 7, judged, stored, and only then acknowledged.

use martlet_protocol::{
    id::{ConversationId, DeviceId},
    rest::PrekeyKind,
    suite1::{ForkContext, ForkHeader, Header, MessageKind, OpenedPlaintext},
    wire,
};
use prost::Message as _;

use super::{
    Device,
    contents::is_for_people,
    ephemeral::is_ephemeral,
    receipts::is_receipt,
    records::{AcceptedRecord, Counter, OutgoingState, SeenRecord},
};
use crate::{
    event::{Event, StoredMessage},
    judge::{Verdict, judge},
    open::{Envelope, diagnose, open_entry, open_fork},
    refused::{EnvelopeField, Refused},
    store::Table,
    trust::{Halt, Need},
};

/// Envelopes that are tried in place of one that does not open, to say what was done to it. Each costs 0.1 ms.
const MAX_DIAGNOSES: usize = 64;

impl Device {
    /// Deals with one entry and moves the cursor past it. Nothing is durable before [`Device::commit`].
    ///
    /// Entries at or before the cursor are passed over. What a dishonest server or device sent is refused with an event, and so is told what
    /// it left out between the cursor and this entry.
    ///
    /// # Errors
    /// [`Need`]: fetch that and call this again; nothing was changed.
    pub fn receive(&mut self, entry: &wire::MailboxEntry) -> Result<Vec<Event>, Need> {
        if entry.seq <= self.places.seq {
            return Ok(Vec::new());
        }
        let mut events: Vec<Event> = self.hole_before(entry.seq).into_iter().collect();
        events.extend(match open_entry(&mut self.opener, &self.keys, entry) {
            Err(refused) => self.refuse(entry.seq, refused, None),
            Ok(envelope) => match self.receive_envelope(entry.seq, &envelope) {
                Ok(events) => events,
                Err(Halt::Need(need)) => return Err(need),
                Err(Halt::Refused(refused)) => self.refuse(entry.seq, refused, Some(&envelope)),
            },
        });
        Ok(events)
    }

    /// A mailbox has no holes: what is neither there nor explained by a marker was lost or held back, and is told as such.
    fn hole_before(&self, seq: u64) -> Option<Event> {
        let (from_seq, to_seq) = (self.places.seq + 1, seq.checked_sub(1)?);
        let reason = wire::GapReason::Unexplained.into();
        (from_seq <= to_seq).then(|| Event::Gap(wire::Gap { from_seq, to_seq, count: to_seq - from_seq + 1, reason }))
    }

    /// Gives up an entry for which the server would not show what the entry names.
    pub fn refuse_entry(&mut self, entry: &wire::MailboxEntry, refused: Refused) -> Vec<Event> {
        let envelope = open_entry(&mut self.opener, &self.keys, entry).ok();
        self.refuse(entry.seq, refused, envelope.as_ref())
    }

    /// Moves the cursor past entries that the node discarded.
    pub fn receive_gap(&mut self, gap: &wire::Gap) -> Vec<Event> {
        if gap.to_seq <= self.places.seq {
            return Vec::new();
        }
        let hole = self.hole_before(gap.from_seq);
        self.move_to(gap.to_seq);
        let mut events = self.forget_echoes();
        events.extend(hole);
        if gap.reason() != wire::GapReason::Acked {
            events.push(Event::Gap(*gap));
        }
        events
    }

    /// The server's numbering went back: everything it has is read again, and repeats are recognised by their ids.
    pub fn restart_stream(&mut self) {
        self.move_to(0);
    }

    fn move_to(&mut self, seq: u64) {
        self.places.seq = seq;
        self.put_places();
    }

    fn refuse(&mut self, seq: u64, refused: Refused, envelope: Option<&Envelope>) -> Vec<Event> {
        self.move_to(seq);
        if let Some(envelope) = envelope {
            self.ask_again(refused, &envelope.context);
        }
        let sender_device = envelope.map(|envelope| envelope.context.sender_device);
        vec![Event::Refused { refused, seq, sender_device }]
    }

    fn receive_envelope(&mut self, seq: u64, envelope: &Envelope) -> Result<Vec<Event>, Halt> {
        if self.seen.message(&envelope.message_id) {
            self.move_to(seq);
            return Ok(Vec::new());
        }
        self.check_not_seen(&envelope.context)?;
        let header = match &envelope.header {
            Header::Echo => return Ok(self.receive_echo(seq, envelope)?),
            Header::Fork(header) => header,
        };
        let context = &envelope.context;
        if self.seen.by_sender(context.sender_device, context.client_message_id).is_some() {
            // It came before in answer to a resend request.
            self.move_to(seq);
            return Ok(Vec::new());
        }
        let opened = self.open_own_fork(header, envelope)?;
        let verdict = judge(&self.trust, &self.keys, context, &opened)?;
        if verdict.kind != MessageKind::Stored || is_ephemeral(&verdict.body) {
            return Err(Refused::EphemeralConfused.into());
        }
        let order = self.check_order(context, &verdict)?;
        Ok(self.take(seq, envelope, header, verdict, order))
    }

    /// The same content under a new message id is a replay, or something worse.
    fn check_not_seen(&self, context: &ForkContext) -> Result<(), Refused> {
        let Some(seen) = self.seen.content(&context.content_hash) else { return Ok(()) };
        Err(if seen.conversation_id != context.conversation_id {
            Refused::ForkMoved
        } else if seen.sender_device != context.sender_device {
            Refused::EnvelopeAltered(EnvelopeField::Sender)
        } else if seen.client_message_id != context.client_message_id {
            Refused::EnvelopeAltered(EnvelopeField::ClientMessageId)
        } else {
            Refused::ForkReplayed
        })
    }

    pub(super) fn open_own_fork(&self, header: &ForkHeader, envelope: &Envelope) -> Result<OpenedPlaintext, Halt> {
        let context = &envelope.context;
        let Some(prekey) = self.ring.secret(header.kind, header.key_id) else {
            let used_up = header.kind == PrekeyKind::OneTime && self.ring.was_given_out(header.key_id);
            return Err(if used_up { Refused::PrekeyUsedUp } else { Refused::PrekeyUnknown }.into());
        };
        match open_fork(&self.keys, &prekey, header, envelope) {
            Ok(opened) => Ok(opened),
            Err(Refused::ForkNotForThisDevice) => {
                let others = self.other_contexts(context);
                Err(diagnose(&self.keys, &prekey, header, context, others).into())
            }
            Err(refused) => Err(refused.into()),
        }
    }

    /// The same message under other conversations, and under other senders of its conversation.
    fn other_contexts(&self, context: &ForkContext) -> Vec<ForkContext> {
        let elsewhere = self
            .trust
            .conversations()
            .filter(|known| known.id() != context.conversation_id)
            .map(|known| ForkContext { conversation_id: known.id(), ..*context });
        let members = self.trust.conversation(&context.conversation_id).map(|known| known.head().members.keys());
        let by_others = members
            .into_iter()
            .flatten()
            .filter_map(|account_id| self.trust.account(account_id))
            .flat_map(|account| account.chain().list().devices.iter().map(move |device| (account, device.device_id)))
            .filter(|(_, device_id)| *device_id != context.sender_device)
            .map(|(account, sender_device)| ForkContext {
                sender_account: *account.chain().account_id(),
                sender_device,
                ..*context
            });
        elsewhere.chain(by_others).take(MAX_DIAGNOSES).collect()
    }

    /// What the sender's own numbering says: events about what is missing or out of order.
    fn check_order(&self, context: &ForkContext, verdict: &Verdict) -> Result<Vec<Event>, Refused> {
        let (conversation_id, sender_device) = (context.conversation_id, context.sender_device);
        let counter = verdict.counter;
        // The first message that this device reads of another may have any number: it may have joined later.
        let Some(last) = self.counters.get(&(conversation_id, sender_device)) else { return Ok(Vec::new()) };
        if counter == last.counter {
            return Err(Refused::CounterReused);
        }
        if counter < last.counter {
            return Ok(vec![Event::Reordered { conversation_id, sender_device, counter }]);
        }
        if counter > last.counter + 1 {
            let count = counter - last.counter - 1;
            return Ok(vec![Event::Dropped { conversation_id, sender_device, count }]);
        }
        if verdict.previous != Some(last.hash) {
            return Ok(vec![Event::HistoryDiffers { conversation_id, sender_device, counter }]);
        }
        Ok(Vec::new())
    }

    /// Everything that an accepted message changes, in one batch: the message, its one-time key's end, counters, cursor.
    fn take(
        &mut self,
        seq: u64,
        envelope: &Envelope,
        header: &ForkHeader,
        verdict: Verdict,
        order: Vec<Event>,
    ) -> Vec<Event> {
        let context = envelope.context;
        if header.kind == PrekeyKind::OneTime {
            self.ring.remove(header.kind, header.key_id);
            self.put_prekey(header.kind, header.key_id);
        }
        self.mark_seen(envelope);
        self.move_to(seq);
        let mut events = order;
        let is_next = !events.iter().any(|event| matches!(event, Event::Reordered { .. }));
        if is_next {
            let counter = Counter { counter: verdict.counter, hash: context.content_hash };
            self.put_counter(context.conversation_id, context.sender_device, counter);
        }
        if verdict.from_removed_device {
            let sender_device = Some(context.sender_device);
            events.push(Event::Refused { refused: Refused::DeviceRemoved, seq, sender_device });
        } else {
            self.note_lists(&context.conversation_id, &verdict.heads);
        }
        let message = stored(seq, envelope, &verdict);
        events.extend(self.act(&context, &verdict, message));
        events
    }

    fn mark_seen(&mut self, envelope: &Envelope) {
        let record = SeenRecord {
            conversation_id: envelope.context.conversation_id,
            sender_device: envelope.context.sender_device,
            client_message_id: envelope.context.client_message_id,
            content_hash: envelope.context.content_hash,
            at_ms: self.now_ms(),
        };
        self.batch.put(Table::Seen, envelope.message_id.as_bytes(), &record);
        self.seen.insert(envelope.message_id, record);
    }

    /// The node's proof that it accepted an own message, and its place among the others.
    fn receive_echo(&mut self, seq: u64, envelope: &Envelope) -> Result<Vec<Event>, Refused> {
        let context = envelope.context;
        if context.sender_device != self.keys.device_id || context.sender_account != self.keys.account_id {
            return Err(Refused::EnvelopeAltered(EnvelopeField::Sender));
        }
        let found = self.outbox.iter().find(|(_, outgoing)| outgoing.client_message_id == context.client_message_id);
        let Some((number, outgoing)) = found.map(|(number, outgoing)| (*number, outgoing.clone())) else {
            // Of a message that a gap marker had already settled.
            self.mark_seen(envelope);
            self.move_to(seq);
            return Ok(Vec::new());
        };
        if outgoing.conversation_id != context.conversation_id {
            return Err(Refused::EnvelopeAltered(EnvelopeField::Conversation));
        }
        let (content_hash, content_bytes, forks, counter) = match &outgoing.state {
            OutgoingState::Waiting => return Err(Refused::ContentAltered),
            OutgoingState::Composed(sent) => (sent.content_hash, sent.content_bytes, sent.forks, sent.counter),
            OutgoingState::Accepted(sent) => (sent.content_hash, sent.content_bytes, sent.forks, sent.counter),
        };
        if content_hash != context.content_hash {
            return Err(Refused::ContentAltered);
        }
        let mut events = Vec::new();
        if let OutgoingState::Composed(composed) = &outgoing.state {
            // The answer was lost; the echo says as much.
            self.settle(&outgoing, composed);
            events.push(Event::Sent {
                client_message_id: context.client_message_id,
                message_id: envelope.message_id,
                partial: Vec::new(),
            });
        }
        self.mark_seen(envelope);
        self.move_to(seq);
        self.remove_outbox(number);
        events.extend(self.keep_own(StoredMessage {
            number: 0,
            message_id: envelope.message_id,
            client_message_id: context.client_message_id,
            conversation_id: context.conversation_id,
            sender_account: context.sender_account,
            sender_device: context.sender_device,
            counter,
            sent_at_ms: outgoing.created_at_ms,
            accepted_at_ms: envelope.accepted_at_ms,
            seq,
            content_bytes,
            forks,
            apart: false,
            body: outgoing.body.clone(),
        }));
        Ok(events)
    }

    /// After a gap, echoes of accepted messages may never come: the messages go to the history without one.
    fn forget_echoes(&mut self) -> Vec<Event> {
        let accepted: Vec<_> = self
            .outbox
            .iter()
            .filter_map(|(number, outgoing)| match &outgoing.state {
                OutgoingState::Accepted(record) => Some((*number, outgoing.clone(), record.clone())),
                _ => None,
            })
            .collect();
        let mut events = Vec::new();
        for (number, outgoing, record) in accepted {
            let AcceptedRecord { message_id, accepted_at_ms, content_bytes, forks, counter, .. } = *record;
            self.remove_outbox(number);
            events.extend(self.keep_own(StoredMessage {
                number: 0,
                message_id,
                client_message_id: outgoing.client_message_id,
                conversation_id: outgoing.conversation_id,
                sender_account: self.keys.account_id,
                sender_device: self.keys.device_id,
                counter,
                sent_at_ms: outgoing.created_at_ms,
                accepted_at_ms,
                seq: self.places.seq,
                content_bytes,
                forks,
                apart: false,
                body: outgoing.body,
            }));
        }
        events
    }

    /// Own receipts are no news to the device that made them.
    fn keep_own(&mut self, message: StoredMessage) -> Option<Event> {
        let content = message.content();
        (is_for_people(&content) && !is_receipt(&content)).then(|| self.remember(message))
    }

    /// The last number read of a device in a conversation.
    #[must_use]
    pub fn last_counter(&self, conversation_id: ConversationId, device_id: DeviceId) -> Option<u64> {
        self.counters.get(&(conversation_id, device_id)).map(|last| last.counter)
    }
}

fn stored(seq: u64, envelope: &Envelope, verdict: &Verdict) -> StoredMessage {
    let context = envelope.context;
    StoredMessage {
        number: 0,
        message_id: envelope.message_id,
        client_message_id: context.client_message_id,
        conversation_id: context.conversation_id,
        sender_account: context.sender_account,
        sender_device: context.sender_device,
        counter: verdict.counter,
        sent_at_ms: verdict.sent_at_ms,
        accepted_at_ms: envelope.accepted_at_ms,
        seq,
        content_bytes: envelope.content.len() as u64,
        forks: 0,
        apart: verdict.from_removed_device,
        body: bytes::Bytes::from(verdict.body.encode_to_vec()).into(),
    }
}
