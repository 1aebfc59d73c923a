//! Devices that speak to a node by the protocol alone, without the SDK: a test decides every frame, retry and cursor itself.
//!
//! What they send is opaque to the node, so contents are plain test bytes and fork headers only look like those of suite 1
//! ([`message`]); signatures, chains and the mailbox seal are real, since the node or the device checks them. The cryptography
//! between clients is the SDK's, and tested there.

pub mod message;
mod people;
mod reading;
mod rest;
mod socket;

pub use people::{Account, Circle, Device, PASSWORD, Revocation, username};
pub use reading::{Reading, acked};
pub use rest::{Rest, RestError};
pub use socket::{Heard, Socket, SubProtocol};
