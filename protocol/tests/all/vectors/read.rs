//! Opens the checked-in vectors as another SDK would: from the files alone.

use martlet_protocol::{
    chain::{devices::DeviceChain, members::MembershipChain},
    crypto::{
        DhSecret, Label, SigningKey, Transcript, check_signing_key, safety_number, verify, verify_prekey,
        verify_sign_in_proof,
    },
    id::{Blob, Hash, InvalidText},
    link::{LinkCode, check_offer, open_answer},
    rest::{DeviceSignature, PrekeyKind, SignedDeviceList, SignedMembershipLink, SignedPrekey},
    seal::MailboxOpener,
    suite1::{ContentKey, ForkContext, Header, open_content, open_header, padded_len, parse_header},
    wire,
};
use prost::Message as _;
use serde_json::Value;

use super::checked_in;
use crate::world::{unhex, variant};

fn bytes(value: &Value, field: &str) -> Vec<u8> {
    unhex(value[field].as_str().expect("a hexadecimal field"))
}

fn id<T: for<'a> TryFrom<&'a [u8], Error = InvalidText>>(value: &Value, field: &str) -> T {
    T::try_from(bytes(value, field).as_slice()).expect("the right length")
}

fn key32(value: &Value, field: &str) -> [u8; 32] {
    bytes(value, field).try_into().expect("32 bytes")
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().expect("a number")
}

fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().expect("a list")
}

fn signed_list(value: &Value) -> SignedDeviceList {
    let signatures = items(value, "signatures")
        .iter()
        .map(|by| DeviceSignature { device_id: id(by, "device_id"), signature: id(by, "signature") })
        .collect();
    SignedDeviceList { list: Blob::from(bytes(value, "list")), signatures }
}

fn chain(account: &Value) -> DeviceChain {
    let lists: Vec<_> = items(account, "lists").iter().map(signed_list).collect();
    let chain = DeviceChain::replay(&lists).expect("a good chain");
    assert_eq!(chain.fingerprint(), id(account, "fingerprint"));
    assert_eq!(*chain.account_id(), id(account, "account_id"));
    for (list, signed) in items(account, "lists").iter().zip(&lists) {
        assert_eq!(Hash::of(&signed.list.0), id(list, "hash"));
    }
    chain
}

#[test]
fn ed25519_strict() {
    for case in items(&checked_in("ed25519_strict"), "cases") {
        let transcript = Transcript::new(Label::Message).variable(&bytes(case, "message"));
        let key = id(case, "public_key");
        let error = verify(&key, &transcript, &id(case, "signature")).err().map(|error| variant(&error));
        assert_eq!(error.as_deref(), case["error"].as_str(), "{}", case["name"]);
        assert_eq!(check_signing_key(&key).is_ok(), case["may_be_listed"] == true, "{}", case["name"]);
    }
}

#[test]
fn device_lists() {
    let vectors = checked_in("device_lists");
    let chain = chain(&vectors["account"]);
    for device in items(&vectors["account"], "devices") {
        let listed = chain.device(&id(device, "device_id")).expect("listed");
        assert_eq!(listed.signing_key, SigningKey::from_bytes(&key32(device, "signing_seed")).public());
        assert_eq!(listed.mailbox_key, DhSecret::from_bytes(&key32(device, "mailbox_secret")).public());
    }
    for case in items(&vectors, "refused") {
        let list = signed_list(&case["list"]);
        let result = if number(case, "after_n") == 0 { DeviceChain::first(&list) } else { chain.extend(&list) };
        let error = result.err().map(|error| variant(&error));
        assert_eq!(error.as_deref(), case["error"].as_str(), "{}", case["name"]);
    }
}

#[test]
fn membership() {
    let vectors = checked_in("membership");
    let accounts: Vec<_> = items(&vectors, "accounts").iter().map(chain).collect();
    let resolve = |signer: &_| accounts.iter().find_map(|account| account.signer_key(signer));
    let link = |value: &Value| SignedMembershipLink {
        link: Blob::from(bytes(value, "link")),
        signature: id(value, "signature"),
    };
    let read = |field: &str| items(&vectors, field).iter().map(link).collect::<Vec<_>>();
    let (group, direct) = (read("group"), read("direct"));
    let whole = MembershipChain::replay(&group, resolve).expect("a good group");
    assert_eq!((whole.m, whole.members.len(), whole.hash), (2, 5, Hash::of(&group[1].link.0)));
    let group = MembershipChain::create(&group[0], resolve).expect("a good group");
    let direct = MembershipChain::replay(&direct, resolve).expect("a good pair");
    for case in items(&vectors, "refused") {
        let link = link(&case["link"]);
        let result = match case["on"].as_str() {
            Some("group") => group.extend(&link, resolve),
            Some("direct") => direct.extend(&link, resolve),
            _ => MembershipChain::create(&link, resolve),
        };
        let error = result.err().map(|error| variant(&error));
        assert_eq!(error.as_deref(), case["error"].as_str(), "{}", case["name"]);
    }
}

#[test]
fn prekeys() {
    let vectors = checked_in("prekeys");
    let (one, other) = (chain(&vectors["accounts"][0]), chain(&vectors["accounts"][1]));
    let device = &one.list().devices[0];
    for value in items(&vectors, "prekeys") {
        let key = SignedPrekey {
            suite: number(value, "suite") as u32,
            kind: if number(value, "kind") == 1 { PrekeyKind::Signed } else { PrekeyKind::OneTime },
            key_id: number(value, "key_id") as u32,
            public_key: id(value, "public_key"),
            not_after_ms: number(value, "not_after_ms"),
            list_n: number(value, "list_n"),
            list_hash: id(value, "list_hash"),
            signature: id(value, "signature"),
        };
        assert!(verify_prekey(&key, one.account_id(), &device.device_id, &device.signing_key).is_ok());
        assert_eq!(key.public_key, DhSecret::from_bytes(&key32(value, "secret")).public());
    }
    let sign_in = &vectors["sign_in"];
    let (username, at) = (sign_in["username"].as_str().expect("a name"), number(sign_in, "signed_at_ms"));
    let proof = id(sign_in, "proof");
    assert_eq!(verify_sign_in_proof(username, &device.device_id, at, &device.signing_key, &proof), Ok(()));
    assert_eq!(safety_number(&one.fingerprint(), &other.fingerprint()), vectors["safety_number"]);
}

#[test]
fn suite1() {
    let vectors = checked_in("suite1");
    let (alice, bob) = (chain(&vectors["alice"]), chain(&vectors["bob"]));
    let sender = &alice.list().devices[0];
    let content = bytes(&vectors, "content");
    let context = ForkContext {
        conversation_id: id(&vectors, "conversation_id"),
        sender_account: *alice.account_id(),
        sender_device: sender.device_id,
        client_message_id: id(&vectors, "client_message_id"),
        content_hash: id(&vectors, "content_sha256"),
    };
    assert_eq!(Hash::of(&content), context.content_hash);
    for fork in items(&vectors, "headers") {
        let Ok(Header::Fork(header)) = parse_header(&bytes(fork, "header")) else { panic!("no fork header") };
        let secret = DhSecret::from_bytes(&key32(fork, "prekey_secret"));
        let key = open_header(&header, &secret, &context, bob.account_id(), &id(fork, "device_id")).expect("opens");
        assert_eq!(*key.to_bytes(), key32(&vectors, "content_key"));
        let opened = open_content(&key, &content).expect("opens");
        assert_eq!(opened.signed_bytes, bytes(&vectors, "plaintext"));
        assert_eq!(opened.verify(&sender.signing_key), Ok(()));
        assert_eq!(opened.check_envelope(&context), Ok(()));
    }
    for case in items(&vectors, "refused_content") {
        let key = ContentKey::from_bytes(&key32(case, "content_key"));
        let error = open_content(&key, &bytes(case, "content")).err().map(|error| variant(&error));
        assert_eq!(error.as_deref(), case["error"].as_str(), "{}", case["name"]);
    }
    for step in items(&vectors, "padded_lengths") {
        assert_eq!(padded_len(number(step, "len") as usize) as u64, number(step, "padded"));
    }
}

#[test]
fn seal() {
    let vectors = checked_in("seal");
    let device = &vectors["device"];
    let mut opener = MailboxOpener::new(DhSecret::from_bytes(&key32(device, "mailbox_secret")));
    for entry in items(&vectors, "entries") {
        let message = opener.open(&id(device, "device_id"), &id(entry, "entry_id"), &bytes(entry, "sealed"));
        assert_eq!(message.expect("opens").encode_to_vec(), bytes(entry, "message"));
    }
}

#[test]
fn link() {
    let vectors = checked_in("link");
    let code = LinkCode::from_text(vectors["code"].as_str().expect("a code")).expect("readable");
    let offer = check_offer(&code, &bytes(&vectors, "offer")).expect("the code's offer");
    let ephemeral = DhSecret::from_bytes(&key32(&vectors, "ephemeral_secret"));
    assert_eq!(offer.ephemeral_key, ephemeral.public());
    let answer = open_answer(&code, &ephemeral, &bytes(&vectors, "sealed")).expect("opens");
    assert_eq!(answer, wire::LinkAnswer::decode(bytes(&vectors, "answer").as_slice()).expect("readable"));
    let lists: Vec<_> = answer.lists.iter().map(|list| list.try_into().expect("readable")).collect();
    let chain = DeviceChain::replay(&lists).expect("a good chain");
    assert_eq!(chain.account_id().as_bytes().as_slice(), bytes(&vectors["alice"], "account_id"));
    let proposed = (&answer.proposed.expect("there")).try_into().expect("readable");
    let signer = SigningKey::from_bytes(&key32(&vectors["new_device"], "signing_seed"));
    let complete = chain.countersign(&proposed, &offer.device_id, &signer).expect("a good proposal");
    assert_eq!(complete, signed_list(&vectors["complete"]));
    assert!(chain.extend(&complete).is_ok());
}
