//! The node: accepts ciphertext, forks it per device, commits it, relays it to whoever holds the devices.
//!
//! A message's journey in reading order: [`transport`] (socket) or [`http`] (REST) → [`messages`] (authenticated, limited, forked,
//! sealed, committed) → [`streams`] → [`relay`] → [`subscribers`] → the device's socket → its ack, back through [`streams`].
//! [`server`] puts the parts together. Imports run in that one direction; a tidy test keeps them so.

pub mod accounts;
pub mod check;
pub mod clock;
pub mod config;
pub mod conversations;
pub mod health;
pub mod http;
pub mod limits;
mod listener;
pub mod measures;
pub mod messages;
pub mod relay;
pub mod secrets;
pub mod server;
pub mod services;
pub mod streams;
pub mod subscribers;
pub mod transfer;
pub mod transport;
mod vital;
