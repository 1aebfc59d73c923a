//! What all parts of Martlet agree on: the wire schema, ids, error codes, the REST shapes, signature chains, the built-in suite and
//! the mailbox seal. No I/O, no clock, no randomness of its own: both are arguments.
//!
//! In reading order: [`wire`] and [`rest`] (shapes), [`id`] and [`problem`] (names), [`crypto`] (signatures and keys),
//! [`chain`] (device lists and memberships), [`suite1`] (client to client), [`link`] (a further device), [`seal`] (node to device).

pub mod chain;
pub mod crypto;
pub mod id;
pub mod link;
pub mod problem;
pub mod rest;
pub mod seal;
pub mod suite1;

/// The wire schema, generated from `proto/martlet/v1`.
#[expect(
    missing_docs,
    clippy::all,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/martlet.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/martlet.v1.serde.rs"));
}
