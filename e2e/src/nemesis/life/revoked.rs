//! What a device does that has been revoked: it stays on its socket and asks whether anybody is there, and knocks at every door.

use anyhow::Result;
use martlet_protocol::wire::{self, client_frame};
use rand::RngExt as _;
use tokio::time::timeout;

use super::{Life, OPEN_PATIENCE, POKE};
use crate::wire::Socket;

/// For so long after its revocation a device tries to get in.
const KNOCK_MS: u64 = 8_000;
/// How long nothing may have disturbed a node that is to be blamed for serving a revoked device.
const CALM_MS: u64 = 3_000;
/// The same promise as for entries: a second.
const GRACE_MS: u64 = 1_000;

impl Life {
    /// Says something that a node answers.
    pub(super) async fn poke(&mut self, socket: &mut Socket) {
        let ack = wire::Ack { mailbox: Some(self.inbox.beyond()) };
        // A socket that broke is noticed by reading.
        drop(socket.say(POKE, client_frame::Frame::Ack(ack)).await);
    }

    /// Something came to this revoked device, written after that moment. Notes it if the node had no excuse.
    pub(super) fn served(&self, node: usize, written_after_ms: u64) -> bool {
        let now_ms = self.world.now_ms();
        let mut history = self.world.history.lock();
        let part = history.device(self.device.device_id);
        let Some(answered_ms) = part.revoked.and_then(|revocation| revocation.answered_ms) else { return false };
        let is_late = written_after_ms > answered_ms + GRACE_MS;
        let was_calm = self.world.calm.lasted_ms(node, now_ms) >= CALM_MS;
        if is_late && was_calm && part.served_after_revocation_ms.is_none() {
            part.served_after_revocation_ms = Some(written_after_ms);
        }
        is_late && was_calm
    }

    /// Tries to get in for a while.
    pub(super) async fn knock(&mut self) -> Result<()> {
        let until_ms = self.world.now_ms() + KNOCK_MS;
        while self.world.now_ms() < until_ms {
            let node = self.world.any_node(&mut self.rng);
            let base = self.world.nodes[node].base().to_owned();
            let before_ms = self.world.now_ms();
            let opening = Socket::open(&base, &self.device.token, self.sub_protocol);
            if matches!(timeout(OPEN_PATIENCE, opening).await, Ok(Ok(_))) && self.served(node, before_ms) {
                return Ok(());
            }
            let pause_ms = self.rng.random_range(200..280);
            self.pause(pause_ms, pause_ms + 1).await;
        }
        Ok(())
    }
}
