//! `martlet-chat`: the command-line messenger.

fn main() {}
