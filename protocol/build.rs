//! Compiles the wire schema with protox, so that no protoc need be installed.

use std::{error::Error, path::PathBuf};

use protox::prost::Message as _;

const FILES: [&str; 9] = ["content", "control", "link", "log", "mailbox", "relay", "send", "socket", "trust"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files: Vec<PathBuf> = FILES.iter().map(|name| format!("proto/martlet/v1/{name}.proto").into()).collect();
    let descriptors = protox::compile(&files, ["proto"])?;

    prost_build::Config::new().bytes(["."]).compile_fds(descriptors.clone())?;
    pbjson_build::Builder::new().register_descriptors(&descriptors.encode_to_vec())?.build(&[".martlet.v1"])?;
    Ok(())
}
