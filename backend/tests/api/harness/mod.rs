//! What the tests are written with: a node, what rests in its store, and devices that speak the protocol.

mod device;
mod node;
pub mod store;

pub use device::{PASSWORD, TestDevice, TestLink, bundle_of, draw_account, unsigned_prekey};
pub use node::{Answer, TestNode};
pub use store::Mode;

use std::time::Duration;

/// Asks until the condition holds; for what follows from a control entry, which takes a moment.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    for _ in 0..1000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("did not happen in ten seconds and more: {what}");
}
