//! A dishonest server against the SDK: every attack is refused with its own typed error, and changes nothing that was believed.
//!
//! The server here is a handful of functions ([`world`]) that honestly carry lists, keys and messages; each test lets it lie once. It
//! exists only as the adversary: how the SDK works with the real node is tested in `e2e`.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails its test by panicking")]

mod claims;
mod envelopes;
mod ephemeral;
mod forks;
mod linking;
mod lists;
mod memberships;
mod order;
mod prekeys;
mod recipients;
mod resend;
mod world;
