//! Clients that go and come back: whether they get everything, and how soon.
//!
//! [`jitter`] cuts each of many sockets again and again, [`storm`] restarts the node under all of them. In both the clients follow the log of
//! one group to which messages are written by the clock; each keeps its cursor and subscribes with it when it is back. [`clients`] are the
//! clients, [`result`] says what it all came to.

mod clients;
mod jitter;
mod result;
mod storm;

pub use jitter::jitter;
pub use result::ComebackResult;
pub use storm::storm;
