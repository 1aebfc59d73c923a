//! The parts of a running node that requests and sockets call, in one place.
//!
//! Made once at start-up, shared by every worker, holds no logic.

use std::sync::Arc;

use crate::{
    accounts::Accounts, clock::Clock, config::Config, conversations::Conversations, health::Health, limits::Limits,
    measures::Measures, messages::Messages, streams::Streams,
};

/// What [`crate::http`] and [`crate::transport`] call.
pub struct Services {
    /// What the operator set.
    pub config: Arc<Config>,
    /// The node's time.
    pub clock: Clock,
    /// Accounts, devices, tokens, prekeys, links.
    pub accounts: Accounts,
    /// Conversations and memberships.
    pub conversations: Conversations,
    /// Accepts messages.
    pub messages: Messages,
    /// Delivers them.
    pub streams: Streams,
    /// Rates.
    pub limits: Limits,
    /// How the node is.
    pub health: Health,
    /// What it measures of itself.
    pub measures: Measures,
}
