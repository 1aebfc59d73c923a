//! When a connected device looks after its prekeys and its token: once an hour, when a hello has counted its prekeys, and again after a
//! while if that failed. A device without one-time prekeys on the server is worse off for as long as that lasts.

use std::time::Duration;

use tokio::time::Instant;

use super::Backoff;
use crate::{Client, ClientError};

/// See the module.
#[derive(Default)]
pub struct Upkeep {
    /// One-time prekeys that a hello counted, and nothing was done about it yet.
    stock: Option<usize>,
    /// It failed, and is tried again then.
    again_at: Option<Instant>,
    backoff: Backoff,
}

impl Upkeep {
    /// A hello says how many one-time prekeys the server has left.
    pub fn counted(&mut self, stock: usize) {
        self.stock = Some(stock);
    }

    /// Whether there is something to be done now.
    pub fn is_due(&self) -> bool {
        self.stock.is_some() && self.again_at.is_none()
    }

    /// When it is to be tried again, if it failed.
    pub fn again_at(&self) -> Option<Instant> {
        self.again_at
    }

    /// Does what is due. What the server refuses for good waits for the next hour or hello.
    ///
    /// # Errors
    /// [`ClientError::Store`]: the device can't go on.
    pub async fn run(&mut self, client: &Client) -> Result<(), ClientError> {
        let stock = self.stock.take();
        self.again_at = None;
        match client.upkeep(stock).await {
            Ok(()) => self.backoff.reset(),
            Err(error @ ClientError::Store(_)) => return Err(error),
            Err(error @ ClientError::Problem(_)) if error.retry_after_ms().is_none() => {
                tracing::warn!(%error, "upkeep was refused");
            }
            Err(error) => {
                let own = client.device(|device| self.backoff.next(device.rng()));
                let pause = error.retry_after_ms().map_or(own, |ms| own.max(Duration::from_millis(ms)));
                tracing::warn!(%error, ?pause, "upkeep has to wait");
                self.stock = stock;
                self.again_at = Some(Instant::now() + pause);
            }
        }
        Ok(())
    }
}
