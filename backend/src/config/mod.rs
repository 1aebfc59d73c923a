//! What an operator can set, in one documented struct: its defaults, its limits and where each value came from.
//!
//! In reading order: `sections` (with `rates`) declares every key once (documentation, type, default and what is allowed, in one place; the rustdoc
//! of a field and the comment that `martlet config` prints are the same words), `rules` says how values are written and which are
//! allowed, `load` puts defaults, file, environment and flags on top of each other, `combinations` refuses values that are fine alone
//! but not together, `print` shows the outcome and `secret` keeps passwords out of it.
//!
//! This module only knows values. It opens no socket and no database: that the values fit this machine is what `check` finds out.

#[macro_use]
mod declare;
mod addresses;
mod combinations;
mod load;
mod nearest;
mod print;
mod rates;
mod rules;
mod secret;
mod sections;
mod store;
#[cfg(test)]
mod tests;

pub use declare::Key;
pub use load::{ConfigError, ConfigErrors, DEFAULT_FILE, ENVIRONMENT_PREFIX, Flag, Loaded, Origin, Sources};
pub use print::{defaults, effective};
pub use rates::Limits;
pub use rules::{days, hours, kib, mib, millis, minutes, secs};
pub use secret::SecretUrl;
pub use sections::{
    Accounts, Cluster, Config, Conversations, Durability, Log, LogFormat, Logs, Mailbox, Messages, Prekeys, RedisKind,
    Registration, Relay, Server, Socket, Standbys, Storage,
};
