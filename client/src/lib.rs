//! Martlet's client: an SDK for devices and, in `src/bin`, the command-line messenger `martlet-chat`.
//!
//! In reading order. Pure, usable without a server: [`identity`] (a device's keys, registering), [`trust`] (pinned chains),
//! [`targets`] (others' prekeys), [`mod@compose`] (a message out), [`open`] and [`judge`] (a message in), [`store`] (records on disk),
//! [`device`] (all of it as a state machine). With a server: [`api`] (REST), [`socket`] (frames), [`client`] (what applications
//! call), [`agent`] (the running connection). [`refused`] lists what a dishonest server is caught at.
//!
//! It does not draw the time or randomness anywhere but in [`ambient`], and shows nothing to people; the binary does.

pub mod agent;
pub mod ambient;
pub mod api;
pub mod client;
pub mod compose;
pub mod device;
pub mod error;
pub mod event;
pub mod identity;
pub mod judge;
pub mod open;
pub mod refused;
pub mod secret;
pub mod socket;
pub mod store;
pub mod targets;
pub mod title;
pub mod trust;

pub use agent::Running;
pub use ambient::{Clock, system_rng};
pub use client::Client;
pub use device::Device;
pub use error::ClientError;
pub use event::{Event, StoredMessage};
pub use refused::Refused;
