//! Draws the vectors. All bytes are hexadecimal; `error` is the name of the refusal in this crate.

use bytes::Bytes;
use martlet_protocol::{
    crypto::{check_signing_key, safety_number, sign_in_proof},
    id::{EntryId, Hash},
    rest::{PrekeyKind, Role, SignedDeviceList, SignedMembershipLink, SignedPrekey},
    seal::MailboxSealer,
    suite1::padded_len,
};
use prost::Message as _;
use serde_json::{Value, json};

use crate::{
    devices,
    link::Linking,
    members::{self, World},
    seal, spec, strict,
    suite1::{Sent, content_refusals},
    world::{Account, Device, NOW_MS, hex, rng, variant},
};

/// Longer ones say nothing more and would only fill the files.
const MAX_REFUSED_BYTES: usize = 4096;

pub fn all() -> [(&'static str, Value); 7] {
    [
        ("ed25519_strict", ed25519_strict()),
        ("device_lists", device_lists()),
        ("membership", membership()),
        ("prekeys", prekeys()),
        ("suite1", suite1()),
        ("seal", sealed_entries()),
        ("link", link()),
    ]
}

fn device(device: &Device) -> Value {
    json!({
        "device_id": hex(device.id.as_bytes()),
        "signing_seed": hex(device.signing.to_bytes().as_slice()),
        "signing_key": hex(device.signing.public().as_bytes()),
        "mailbox_secret": hex(device.mailbox.to_bytes().as_slice()),
        "mailbox_key": hex(device.mailbox.public().as_bytes()),
    })
}

fn list(signed: &SignedDeviceList) -> Value {
    let signatures: Vec<_> = signed
        .signatures
        .iter()
        .map(|by| json!({"device_id": hex(by.device_id.as_bytes()), "signature": hex(by.signature.as_bytes())}))
        .collect();
    json!({
        "list": hex(&signed.list.0),
        "hash": hex(Hash::of(&signed.list.0).as_bytes()),
        "signatures": signatures,
    })
}

fn account(account: &Account) -> Value {
    json!({
        "account_id": hex(account.id().as_bytes()),
        "fingerprint": hex(account.chain.fingerprint().as_bytes()),
        "devices": account.devices.iter().map(device).collect::<Vec<_>>(),
        "lists": account.lists.iter().map(list).collect::<Vec<_>>(),
    })
}

fn ed25519_strict() -> Value {
    let cases: Vec<_> = strict::cases()
        .into_iter()
        .map(|case| {
            json!({
                "name": case.name,
                "public_key": hex(case.key.as_bytes()),
                "message": hex(&case.message),
                "signature": hex(case.signature.as_bytes()),
                "error": case.verdict.err().map(|error| variant(&error)),
                "may_be_listed": check_signing_key(&case.key).is_ok(),
            })
        })
        .collect();
    json!({
        "about": "Signatures over label \"message\" and the length-prefixed message. error: null if it verifies, else which part \
                  is refused. may_be_listed: whether a device list may hold the key.",
        "cases": cases,
    })
}

fn device_lists() -> Value {
    let mut rng = rng(101);
    let (good, gone) = devices::history(&mut rng);
    let refused: Vec<_> = devices::refusals(&mut rng, &good, &gone)
        .into_iter()
        .filter(|case| case.signed.list.0.len() <= MAX_REFUSED_BYTES)
        .map(|case| {
            let list = list(&case.signed);
            json!({"name": case.name, "after_n": case.head_n, "list": list, "error": variant(&case.error)})
        })
        .collect();
    json!({
        "about": "A chain of four lists: one device, two, three, and the third removed. Each of `refused` is tried as list 1 \
                  (after_n 0) or after the whole chain.",
        "account": account(&good),
        "removed_device": device(&gone),
        "refused": refused,
    })
}

fn membership() -> Value {
    let world = World::new(&mut rng(102));
    let link = |signed: &SignedMembershipLink| {
        json!({
            "link": hex(&signed.link.0),
            "hash": hex(Hash::of(&signed.link.0).as_bytes()),
            "signature": hex(signed.signature.as_bytes()),
        })
    };
    let refused: Vec<_> = members::refusals(&world)
        .into_iter()
        .filter(|case| case.signed.link.0.len() <= MAX_REFUSED_BYTES)
        .map(|case| {
            let on = variant(&case.on).to_lowercase();
            json!({"name": case.name, "on": on, "link": link(&case.signed), "error": variant(&case.error)})
        })
        .collect();
    let added = world.change(members::BOB, vec![members::add(world.member(members::ERIN, Role::Member))]);
    json!({
        "about": "Accounts in the order Alice (owner), Bob (admin), Carol and Dave (members), Erin (outside). group: creation, then \
                  a good link in which Bob adds Erin. Each of `refused` is tried on nothing, on the group's or on the direct \
                  conversation's creation.",
        "accounts": world.accounts.iter().map(account).collect::<Vec<_>>(),
        "group": [link(&world.creation), link(&added)],
        "direct": [link(&world.direct_creation)],
        "refused": refused,
    })
}

fn prekey(secret: &martlet_protocol::crypto::DhSecret, key: &SignedPrekey) -> Value {
    json!({
        "secret": hex(secret.to_bytes().as_slice()),
        "suite": key.suite,
        "kind": match key.kind { PrekeyKind::Signed => 1, PrekeyKind::OneTime => 2 },
        "key_id": key.key_id,
        "public_key": hex(key.public_key.as_bytes()),
        "not_after_ms": key.not_after_ms,
        "list_n": key.list_n,
        "list_hash": hex(key.list_hash.as_bytes()),
        "signature": hex(key.signature.as_bytes()),
    })
}

fn prekeys() -> Value {
    let mut rng = rng(103);
    let (one, other) = (Account::new(&mut rng), Account::new(&mut rng));
    let kinds = [(PrekeyKind::Signed, 1), (PrekeyKind::OneTime, 2), (PrekeyKind::OneTime, u32::MAX)];
    let keys: Vec<_> = kinds
        .into_iter()
        .map(|(kind, key_id)| {
            let (secret, key) = one.prekey(&mut rng, 0, kind, key_id);
            prekey(&secret, &key)
        })
        .collect();
    let signer = &one.devices[0];
    json!({
        "about": "Prekeys and a sign-in proof of the first account's device, and the safety number of both accounts.",
        "accounts": [account(&one), account(&other)],
        "prekeys": keys,
        "sign_in": {
            "username": "alice",
            "signed_at_ms": NOW_MS,
            "proof": hex(sign_in_proof("alice", &signer.id, NOW_MS, &signer.signing).as_bytes()),
        },
        "safety_number": safety_number(&one.chain.fingerprint(), &other.chain.fingerprint()),
    })
}

fn suite1() -> Value {
    let sent = Sent::new(&mut rng(104));
    let k = *sent.key.to_bytes();
    let headers: Vec<_> = sent
        .forks
        .iter()
        .enumerate()
        .map(|(index, (secret, _, header))| {
            json!({
                "device_id": hex(sent.bob.devices[index].id.as_bytes()),
                "prekey_secret": hex(secret.to_bytes().as_slice()),
                "header": hex(header),
            })
        })
        .collect();
    let refused: Vec<_> = content_refusals(&sent)
        .into_iter()
        .map(|(name, key, content, error)| {
            json!({"name": name, "content_key": hex(&key), "content": hex(&content), "error": variant(&error)})
        })
        .collect();
    let lengths = [0, 1, 254, 255, 256, 271, 272, 1000, 4096, 65_535, 65_536, 1_000_000];
    json!({
        "about": "Alice's first device sends one message to Bob's two devices. plaintext is what was signed; padded is plaintext, \
                  signature, padding.",
        "alice": account(&sent.alice),
        "bob": account(&sent.bob),
        "conversation_id": hex(sent.context.conversation_id.as_bytes()),
        "client_message_id": hex(sent.context.client_message_id.as_bytes()),
        "plaintext": hex(&sent.plaintext.encode_to_vec()),
        "content_key": hex(&k),
        "encryption_key": hex(&spec::derive(&k, "content key")),
        "commitment": hex(&spec::derive(&k, "content commitment")),
        "padded": hex(&spec::open_content(&k, &sent.content).expect("good content")),
        "content": hex(&sent.content),
        "content_sha256": hex(sent.context.content_hash.as_bytes()),
        "headers": headers,
        "refused_content": refused,
        "padded_lengths": lengths.map(|len| json!({"len": len, "padded": padded_len(len)})),
    })
}

fn sealed_entries() -> Value {
    let mut rng = rng(105);
    let owner = Device::new(&mut rng);
    let sealer = MailboxSealer::new(&mut rng, &owner.mailbox.public()).expect("a good key");
    let by_hash = martlet_protocol::wire::SealedMessage {
        content: Bytes::new(),
        content_sha256: Hash::of(b"content at rest outside the seal").to_wire(),
        ..seal::message()
    };
    let entries: Vec<_> = [seal::message(), by_hash]
        .into_iter()
        .map(|message| {
            let entry_id = EntryId::random(&mut rng);
            let sealed = sealer.seal(&owner.id, &entry_id, &message);
            json!({
                "entry_id": hex(entry_id.as_bytes()),
                "sealed": hex(&sealed),
                "message": hex(&message.encode_to_vec()),
            })
        })
        .collect();
    json!({
        "about": "Two entries that one node sealed for one device, the second with its content outside. message: SealedMessage.",
        "device": device(&owner),
        "entries": entries,
    })
}

fn link() -> Value {
    let linking = Linking::new(&mut rng(106));
    json!({
        "about": "A new device is linked to Alice's account. offer: LinkOffer. sealed: SealedLinkAnswer. answer: LinkAnswer, whose \
                  proposed list the new device signs: complete.",
        "alice": account(&linking.alice),
        "new_device": device(&linking.newcomer),
        "ephemeral_secret": hex(linking.ephemeral.to_bytes().as_slice()),
        "offer": hex(&linking.offer),
        "code": *linking.code.to_text(),
        "sealed": hex(&linking.sealed),
        "answer": hex(&linking.answer.encode_to_vec()),
        "complete": list(&linking.complete()),
    })
}
