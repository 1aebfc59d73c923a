//! What the node keeps: the seam [`Db`] and every query that runs over it.
//!
//! In reading order: [`db`] (the handle: connections that are lent, one transaction per call), then one module per table family:
//! [`accounts`], [`devices`], [`tokens`], [`tickets`], [`links`], [`prekeys`], [`conversations`], [`sends`] (the commit of
//! messages), [`mailbox`] (ranges, acks, expiry), [`logs`] (the same for large conversations), [`control`], [`sweep`], [`transfer`] (moving a store to another database). [`planted`] is for a test-only build.
//!
//! It decides nothing about who may do what, verifies no signature, and has no clock and no randomness of its own: times are arguments.

pub mod db;
pub mod planted;

pub use db::{
    AccountKey, Conn, ContentKey, ConversationKey, DatabaseUrl, Db, DbConfig, DeviceKey, Durability, NodeLock, Place,
    SchemaState, ServerFacts, Standbys, StorageError, accounts, control, conversations, devices, links, logs, mailbox,
    prekeys, sends, store, sweep, tickets, tokens, transfer,
};
