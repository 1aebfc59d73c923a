//! `martlet`: the node and the operator's commands.

fn main() {}
