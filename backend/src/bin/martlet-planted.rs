//! `martlet` with bugs planted on purpose: a test-only build (see `martlet_storage::planted`) that the nemesis runs and nobody else.

#[path = "../main.rs"]
mod node;

fn main() -> std::process::ExitCode {
    node::main()
}
