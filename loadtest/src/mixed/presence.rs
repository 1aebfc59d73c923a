//! Typing and presence: composed, signed and forked as any message, sent without being stored. Written before the clock starts, opened and
//! compared after it has stopped.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::Bytes;
use martlet_protocol::{
    id::{ClientMessageId, EntryId, Hash},
    rest::PrekeyKind,
    seal::MailboxOpener,
    suite1::{Header, parse_header},
    wire::{self, client_frame, content::Body},
};

use super::{
    drive::Device,
    lane::Kind,
    scene::{Prepared, Scene},
};
use crate::{
    ambient,
    send::{
        crowd::Circle,
        verify::{Verified, open_signed},
        write::{compose, context, framed, plaintext},
    },
};

/// How long they are worth something, by their sender. Written ahead, they outlive their own time here; the node does not see it.
const LIFETIME_MS: u64 = 10_000;

/// A sender's message of this number: somebody types, has stopped, is there; and so on.
fn body(number: usize) -> Body {
    match number % 3 {
        0 => Body::Typing(wire::Typing { state: wire::TypingState::Started.into() }),
        1 => Body::Typing(wire::Typing { state: wire::TypingState::Stopped.into() }),
        _ => Body::Presence(wire::Presence { status: wire::PresenceStatus::Online.into() }),
    }
}

/// Writes so many, for all circles in turn: frames in the order in which they are due, and the ids by circle.
///
/// # Errors
/// When a prekey is weak.
pub fn write_all(circles: &[Circle], count: usize) -> Result<(Vec<Bytes>, Vec<Vec<ClientMessageId>>)> {
    let mut rng = ambient::system_rng();
    let mut ids = vec![Vec::new(); circles.len()];
    let mut write = |k: usize| {
        let (circle, number) = (&circles[k % circles.len()], k / circles.len());
        let id = ClientMessageId::random(&mut rng);
        ids[k % circles.len()].push(id);
        let plaintext = plaintext(circle, id, body(number));
        let plaintext =
            wire::Plaintext { ephemeral_until_ms: plaintext.sent_at_ms.saturating_add(LIFETIME_MS), ..plaintext };
        let request = compose(&mut rng, circle, id, &plaintext, false)?;
        Ok(framed(Kind::Presence.reference(number), client_frame::Frame::SendEphemeral(request)))
    };
    let frames = (0..count).map(&mut write).collect::<Result<_>>()?;
    Ok((frames, ids))
}

/// Opens all that came to every device: each must have exactly what was sent, in order. Of every so many, header, content and signature,
/// too.
pub fn verify(scene: &Scene, prepared: &Prepared, devices: &[Device], sample: u64, verified: &mut Verified) {
    for (place, device) in scene.devices.iter().zip(devices) {
        let circle = &scene.circles[place.circle];
        let ids = &prepared.presence_ids[place.circle];
        // The sender gets none: there are no echoes.
        let due = if place.place == 0 { &[][..] } else { &ids[..] };
        verified.lost += due.len().saturating_sub(device.ephemerals.len()) as u64;
        let Some(keys) = circle.devices().nth(place.place) else { continue };
        let mut opener = MailboxOpener::new(keys.keys.mailbox.clone());
        for (number, came) in device.ephemerals.iter().enumerate() {
            verified.opened += 1;
            let whole = (number as u64).is_multiple_of(sample);
            match open(circle, place.place, &mut opener, came, (number, due.get(number)), whole) {
                Ok(()) => verified.decrypted += u64::from(whole),
                Err(error) => verified.fault(format!(
                    "typing or presence {number} of device {} of circle {}: {error:#}",
                    place.place, place.circle
                )),
            }
        }
    }
}

fn open(
    circle: &Circle,
    place: usize,
    opener: &mut MailboxOpener,
    came: &wire::Ephemeral,
    (number, id): (usize, Option<&ClientMessageId>),
    whole: bool,
) -> Result<()> {
    let id = id.ok_or_else(|| anyhow!("more than was sent"))?;
    let device = circle.devices().nth(place).ok_or_else(|| anyhow!("no such device"))?;
    let entry_id = EntryId::try_from(came.entry_id.as_ref())?;
    let message = opener.open(&device.keys.device_id, &entry_id, &came.sealed).context("the seal")?;
    ensure!(message.client_message_id == id.to_wire(), "lost, repeated or out of order: it is another message");
    ensure!(message.conversation_id == circle.conversation.id.to_wire(), "another conversation");
    if !whole {
        return Ok(());
    }
    let Header::Fork(header) = parse_header(&message.fork_header).context("the header")? else { bail!("an echo") };
    ensure!(header.kind == PrekeyKind::Signed, "sealed to a one-time prekey");
    let content = if message.content.is_empty() { &came.content } else { &message.content };
    let context = context(circle, *id, Hash::of(content));
    let opened = open_signed(circle, device, &header, &context, content)?;
    ensure!(opened.plaintext.sender_counter == 0 && opened.plaintext.ephemeral_until_ms > 0, "it is no ephemeral one");
    ensure!(opened.plaintext.body.and_then(|content| content.body) == Some(body(number)), "another body");
    Ok(())
}
