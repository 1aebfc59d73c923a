//! Martlet's client: an SDK for devices and, in `src/bin`, the command-line messenger `martlet-chat`.

pub mod ambient;
pub mod api;
pub mod error;
pub mod identity;
pub mod refused;
pub mod secret;
pub mod socket;
pub mod store;
pub mod trust;
