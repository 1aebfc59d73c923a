//! Hearing a socket, and knowing before when a frame can't have been written.

use anyhow::Result;
use futures_util::FutureExt as _;
use tokio::task::unconstrained;

use crate::{
    nemesis::world::World,
    wire::{Heard, Socket},
};

/// The next frame. Safe to cancel.
///
/// `empty_ms` is the last moment at which nothing waited to be read; a frame that comes was written after it. This is what lets a busy
/// reader accuse nobody of its own slowness. The look is taken outside of tokio's budget, whose end would look like emptiness.
pub(super) async fn hear(socket: &mut Socket, empty_ms: &mut u64, world: &World) -> Result<Heard> {
    let before_ms = world.now_ms();
    if let Some(heard) = unconstrained(socket.hear()).now_or_never() {
        return heard;
    }
    *empty_ms = before_ms;
    socket.hear().await
}
