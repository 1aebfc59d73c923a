//! What other nodes say: believed if it is authentic and not old, and then handed on without waiting. It runs where the connection is
//! read, so there is no queue between Redis and the subscribers' own bounded inboxes.

use std::{collections::HashSet, iter, sync::Arc, time::Duration};

use bytes::Bytes;
use martlet_protocol::{
    problem::close,
    wire::{self, relay_entry},
};
use martlet_storage::{ConversationKey, DeviceKey};
use parking_lot::Mutex;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use super::{
    Inner,
    channel::Channel,
    claims::Verdict,
    contents::Large,
    message::{BadMessage, Body, Opened},
    queue::Outgoing,
};
use crate::subscribers::{LiveEntry, LiveItem, LiveLogItem, LogChange, StreamKey, Whisper};

/// Of an entry whose sender does not say when it ends: whoever wants it later reads it from the store, which knows.
const END_UNKNOWN: u64 = 0;

/// What the connection for subscriptions and whoever hears its pushes tell each other.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// The connection is of no more use.
    pub(super) lost: Notify,
    /// Channels whose subscription this node is ending. Any other that ends was ended by Redis: its slot has moved.
    pub(super) ending: Mutex<HashSet<Vec<u8>>>,
}

impl Inner {
    /// Redis pushes something. Never blocks.
    pub(super) fn pushed(&self, info: PushInfo, link: &Link) {
        let mut data = info.data.into_iter();
        match (info.kind, data.next(), data.next()) {
            (
                PushKind::Message | PushKind::SMessage,
                Some(Value::BulkString(channel)),
                Some(Value::BulkString(message)),
            ) => self.received(&channel, message.into()),
            (PushKind::Disconnection, ..) => link.lost.notify_one(),
            (PushKind::Unsubscribe | PushKind::SUnsubscribe, Some(Value::BulkString(channel)), _)
                if !link.ending.lock().remove(&channel) =>
            {
                link.lost.notify_one();
            }
            _ => {}
        }
    }

    fn received(&self, name: &[u8], message: Bytes) {
        if message.is_empty() {
            // Of `martlet check`, which only tries whether it may.
            return;
        }
        let Some(channel) = Channel::parse(name, self.endpoint.naming()) else {
            return self.distrust(BadMessage::Mac);
        };
        match self.sealer.open(name, &message) {
            Ok(None) => {}
            Ok(Some(opened)) if self.is_old(&opened) => self.clocks_apart(),
            Ok(Some(opened)) => {
                self.counts.received();
                self.act_on(channel, opened);
            }
            Err(bad) => self.distrust(bad),
        }
    }

    fn is_old(&self, opened: &Opened) -> bool {
        let apart = self.clock.now_ms().abs_diff(opened.sent_at_ms);
        u128::from(apart) > self.config.relay.max_message_age.as_millis()
    }

    fn act_on(&self, channel: Channel, opened: Opened) {
        match (channel, opened.body) {
            (Channel::Stream(StreamKey::Mailbox(device_key)), Body::Entries(entries)) => {
                self.heard_entries(device_key, entries, opened.sent_at_ms);
            }
            (Channel::Stream(StreamKey::Mailbox(device_key)), Body::Claim(claim)) => {
                self.heard_claim(device_key, &claim);
            }
            (Channel::Stream(StreamKey::Mailbox(device_key)), Body::Whisper(whisper)) => {
                if whisper.expires_at_ms > self.clock.now_ms() {
                    let wire::RelayWhisper { expires_at_ms, payload } = whisper;
                    self.subscribers.whisper([Arc::new(Whisper { device_key, expires_at_ms, payload })]);
                }
            }
            (Channel::Stream(StreamKey::Log(key)), Body::LogEntries(entries)) => self.heard_log_entries(key, entries),
            (Channel::Control, Body::ControlHint) => self.control_hint.notify_one(),
            (Channel::Control, Body::CompareHeads) => self.ask_to_compare(),
            (
                Channel::Control | Channel::Stream(_),
                Body::Entries(_)
                | Body::Claim(_)
                | Body::Whisper(_)
                | Body::LogEntries(_)
                | Body::ControlHint
                | Body::CompareHeads,
            ) => self.distrust(BadMessage::Kind),
        }
    }

    fn heard_log_entries(&self, key: ConversationKey, entries: wire::RelayLogEntries) {
        let Some(log) = self.subscribers.logs().find(key) else { return };
        if entries.epoch != log.epoch || log.epoch != self.subscribers.epoch() {
            // As with mailboxes: the store is another one, and somebody has yet to notice.
            return self.subscribers.logs().doubt([key]);
        }
        let ends = entries.expires_at_s.into_iter().chain(iter::repeat(END_UNKNOWN));
        let items = entries.entries.into_iter().zip(ends).map(|(entry, end)| LiveLogItem::entry(entry, end)).collect();
        self.subscribers.change_log(&log, LogChange::Came(items));
        if log.end() < entries.head_seq {
            self.subscribers.change_log(&log, LogChange::HeadSeen(entries.head_seq));
        }
    }

    fn heard_entries(&self, device_key: DeviceKey, entries: wire::RelayEntries, sent_at_ms: u64) {
        if self.subscribers.find(device_key).is_none() {
            return;
        }
        if entries.epoch != self.subscribers.epoch() {
            // One of the two nodes has yet to find out that the store is another one. Its numbers mean other entries here.
            return self.subscribers.compare_heads([device_key]);
        }
        let epoch = entries.epoch;
        let on_the_line = Duration::from_millis(self.clock.now_ms().saturating_sub(sent_at_ms));
        let under_way_since = self.clock.elapsed().saturating_sub(on_the_line);
        let mut whole = Vec::with_capacity(entries.entries.len());
        for entry in entries.entries {
            let item = match entry.item {
                Some(relay_entry::Item::Entry(entry)) => LiveItem::Entry(entry),
                Some(relay_entry::Item::Gap(gap)) if gap.from_seq <= gap.to_seq => LiveItem::Gap(gap),
                Some(relay_entry::Item::Large(large)) => {
                    self.heard_large(device_key, epoch, large);
                    continue;
                }
                Some(relay_entry::Item::Gap(_)) | None => {
                    self.distrust(BadMessage::Payload);
                    continue;
                }
            };
            whole.push(Arc::new(LiveEntry { device_key, seq: item.span().1, item, under_way_since }));
        }
        self.subscribers.deliver(whole);
    }

    fn heard_large(&self, device_key: DeviceKey, epoch: u64, large: wire::RelayLargeEntry) {
        let wire::RelayLargeEntry { seq, entry_id, sealed, content_sha256 } = large;
        let Ok(content_sha256) = <[u8; 32]>::try_from(content_sha256.as_ref()) else {
            return self.distrust(BadMessage::Payload);
        };
        if !self.contents.put(Large { device_key, epoch, seq, entry_id, sealed, content_sha256 }) {
            self.subscribers.compare_heads([device_key]);
        }
    }

    fn heard_claim(&self, device_key: DeviceKey, theirs: &wire::RelayClaim) {
        let verdict = self.claims.lock().heard(device_key, theirs, self.now());
        match verdict {
            Verdict::None => {}
            Verdict::GiveUp(id) => self.subscribers.close_subscriber(id, close::REPLACED),
            Verdict::Contradict(claim) => self.queue.put([Outgoing::Claim(device_key, claim)]),
        }
    }
}
