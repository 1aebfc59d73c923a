//! The load generator: what a node costs at rest and what it carries under load, measured from outside.
//!
//! In reading order: [`cli`] (what is asked), [`node`] (a node to measure: found, built, started, read from `/proc`), [`people`]
//! (accounts and devices, registered and linked as anybody would), [`socket`] (many sockets on one thread), then the
//! measurements [`idle`], [`send`], [`fanout`], [`comeback`], [`mixed`] and [`peers`], [`fixtures`] (for the k6 checks), [`report`]
//! (what becomes of a result), and [`figures`], [`costs`] and [`progress`], which all use.
//!
//! It shares two cores with the node in most uses, so it is built to cost little: one thread, one read for many frames, frames
//! encoded before the clock starts. It does not use the node's own crates (but for the schema and the suite that clients use, too), so
//! that what it finds is what a client would find.

pub mod ambient;
pub mod cli;
pub mod comeback;
pub mod costs;
pub mod fanout;
pub mod figures;
pub mod fixtures;
mod group;
pub mod hold;
pub mod idle;
pub mod mixed;
pub mod node;
pub mod peers;
pub mod people;
pub mod population;
pub mod progress;
pub mod report;
pub mod send;
pub mod socket;
