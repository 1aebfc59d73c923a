//! What the k6 checks need and can't make themselves: accounts, a group of them, and messages that are encrypted already.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use martlet_protocol::wire::{self, client_frame};
use rand::Rng as _;
use serde::Serialize;

use crate::{
    ambient,
    cli::FixturesArgs,
    group::{stage, writer},
    progress::say,
};

/// The file, as `loadtest/k6/martlet.js` reads it. Ids are in base64 and numbers in strings, as proto3 JSON has them.
#[derive(Debug, Serialize)]
struct Fixtures {
    url: String,
    socket: String,
    conversation: String,
    epoch: String,
    head: String,
    writer: String,
    readers: Vec<String>,
    /// Whole frames, ready to be sent.
    messages: Vec<String>,
}

/// Makes them on a running node.
///
/// # Errors
/// When the node refuses, or the file can't be written.
pub fn run(args: &FixturesArgs) -> Result<()> {
    let url = args.server.trim_end_matches('/');
    let host = url.strip_prefix("http://").with_context(|| format!("{url}: the load generator speaks http:// only"))?;
    let mut rng = ambient::system_rng();
    let members = usize::try_from(args.members)?;
    let (writer, readers, conversation) = stage::make_group(url, members, &mut rng)?;
    let message = |n: u32| {
        let mut content = vec![0; args.content_bytes as usize];
        rng.fill_bytes(&mut content);
        let request = writer::request(conversation, content.into());
        let frame = wire::ClientFrame { r#ref: u64::from(n) + 1, frame: Some(client_frame::Frame::Send(request)) };
        Ok(serde_json::to_string(&frame)?)
    };
    let messages = (0..args.messages).map(message).collect::<Result<Vec<_>>>()?;
    let named = serde_json::to_value(wire::LogCursor { conversation_id: conversation.to_wire(), cursor: None })?;
    let conversation = named["conversationId"].as_str().context("an id in JSON")?.to_owned();
    let fixtures = Fixtures {
        url: url.to_owned(),
        socket: format!("ws://{host}/v1/socket"),
        conversation,
        // A group that was made just now: nothing was written to it.
        epoch: args.epoch.to_string(),
        head: "0".to_owned(),
        writer,
        readers,
        messages,
    };
    write(&args.out, &fixtures)?;
    say(&format!("{}: {members} readers, {} messages", args.out.display(), args.messages));
    Ok(())
}

/// For its owner only: it holds tokens.
fn write(file: &Path, fixtures: &Fixtures) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(file, serde_json::to_string(fixtures)?)
        .with_context(|| format!("{} can't be written", file.display()))?;
    Ok(fs::set_permissions(file, fs::Permissions::from_mode(0o600))?)
}
