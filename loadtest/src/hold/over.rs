//! A node over a folder of data that is there already, with the settings that very many connections need.

use anyhow::{Context as _, Result, ensure};

use super::HoldArgs;
use crate::node::Node;

/// What a node is given that holds very many connections of few addresses; those of every load test come on top.
const SETTINGS: &[&str] = &[
    "server.max_connections=100000000",
    "socket.ping_interval=15m",
    "socket.pong_timeout=10m",
    "socket.head_check_interval=10m",
    "conversations.max_members_large=1000000",
];

/// Starts it, or takes the one that the arguments name.
///
/// # Errors
/// When the folder holds no store, or the node does not start over it.
pub fn node(args: &HoldArgs) -> Result<Node> {
    let mut node_args = args.node.clone();
    let Some(data) = &args.data else { return Node::start(&node_args) };
    let data = data.canonicalize().with_context(|| format!("{} is not there", data.display()))?;
    ensure!(data.join("martlet.db").is_file(), "{} holds no store; martlet import makes one", data.display());
    let given = std::mem::take(&mut node_args.settings);
    node_args.settings = SETTINGS.iter().map(|setting| (*setting).to_owned()).chain(given).collect();
    Node::start_over(&node_args, &data)
}
