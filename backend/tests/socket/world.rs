//! Two people in a direct conversation, and messages between them.

use martlet::{clock::Clock, config::Config};
use martlet_protocol::{
    crypto::DhSecret,
    id::{Blob, ConversationId},
    seal::MailboxOpener,
    wire::{self, client_frame, node_frame::Frame},
};

use crate::{
    client::Client,
    harness::{TestDevice, TestNode},
};

pub struct World {
    pub node: TestNode,
    pub alice: TestDevice,
    pub bob: TestDevice,
    pub conversation: ConversationId,
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::at(Clock::System, change).await
    }

    pub async fn at(clock: Clock, change: impl FnOnce(&mut Config)) -> Self {
        let node = TestNode::start_at(clock, |config| {
            config.server.drain_window = std::time::Duration::from_secs(3);
            config.server.workers = 2;
            change(config);
        })
        .await;
        let alice = TestDevice::register(&node, "alice").await;
        let bob = TestDevice::register(&node, "bob").await;
        let conversation = alice.create(&node, &alice.direct_with(&node, &bob)).await.conversation_id;
        Self { node, alice, bob, conversation }
    }

    /// A message of so many bytes of content from Alice to Bob.
    pub fn message(&self, content_bytes: usize) -> wire::SendRequest {
        let mut request = self.alice.message(1, &[&self.bob]);
        request.content = Blob::from(vec![7; content_bytes]);
        request.into_wire(self.conversation)
    }

    /// Sends so many messages, many at a time, and waits for each to be accepted.
    pub async fn send_many(&self, client: &mut Client, count: usize, content_bytes: usize) {
        const AT_ONCE: usize = 50;
        let mut left = count;
        while left > 0 {
            let batch = left.min(AT_ONCE);
            let mut expected = Vec::new();
            for _ in 0..batch {
                expected.push(client.send(client_frame::Frame::Send(self.message(content_bytes))).await);
            }
            while !expected.is_empty() {
                match client.next().await {
                    (reference, Frame::Accepted(_)) => expected.retain(|waiting| *waiting != reference),
                    (_, Frame::Entry(_)) => {}
                    (reference, other) => panic!("send {reference} was answered with {other:?}"),
                }
            }
            left -= batch;
        }
    }

    /// What an entry of Bob's mailbox holds.
    pub fn open_bobs(&self, entry: &wire::MailboxEntry) -> wire::SealedMessage {
        let mut opener = MailboxOpener::new(DhSecret::from_bytes(&self.bob.mailbox.to_bytes()));
        let entry_id = entry.entry_id.as_ref().try_into().expect("an id");
        opener.open(&self.bob.device_id, &entry_id, &entry.sealed).expect("sealed for Bob")
    }

    /// Entries in Bob's mailbox that no publish ever tells of, as if the relay had lost them.
    pub fn commit_unpublished(&self, count: usize) {
        let store = self.node.store();
        let device = format!(
            "(SELECT device_key FROM devices WHERE device_id = {})",
            store.literal(self.bob.device_id.as_bytes())
        );
        for number in 0..count {
            let (id, sealed) = (store.literal(&[number as u8; 16]), store.literal(&[7; 100]));
            store.execute(&format!(
                "BEGIN;
                 UPDATE mailbox_heads SET head_seq = head_seq + 1, added_entries = added_entries + 1
                     WHERE device_key = {device};
                 INSERT INTO mailbox_entries (device_key, seq, entry_id, sealed, size_bytes, expires_at_s, own_lifetime)
                     SELECT device_key, head_seq, {id}, {sealed}, 100, 99999999999, 0
                     FROM mailbox_heads WHERE device_key = {device};
                 COMMIT"
            ));
        }
    }
}
