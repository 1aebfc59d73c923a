//! The mailbox seal: opens for its device and place only, counts without repeating, and keeps few keys.

use bytes::Bytes;
use martlet_protocol::{
    crypto::DhSecret,
    id::{DeviceId, EntryId, PublicKey},
    seal::{MailboxOpener, MailboxSealer, SEAL_OVERHEAD, SealError},
    wire,
};
use prost::Message as _;
use rand_chacha::ChaCha20Rng;

use crate::{spec, world::rng};

pub fn message() -> wire::SealedMessage {
    wire::SealedMessage {
        message_id: vec![1; 16].into(),
        sender_account_id: vec![2; 16].into(),
        sender_device_id: vec![3; 16].into(),
        conversation_id: vec![4; 32].into(),
        client_message_id: vec![5; 16].into(),
        accepted_at_ms: 1_767_225_600_000,
        suite: 1,
        fork_header: vec![6; 85].into(),
        content: vec![7; 325].into(),
        content_sha256: Bytes::new(),
    }
}

struct Mailbox {
    secret: DhSecret,
    device: DeviceId,
    entry: EntryId,
}

impl Mailbox {
    fn new(rng: &mut ChaCha20Rng) -> Self {
        Self { secret: DhSecret::generate(rng), device: DeviceId::random(rng), entry: EntryId::random(rng) }
    }

    fn sealer(&self, rng: &mut ChaCha20Rng) -> MailboxSealer {
        MailboxSealer::new(rng, &self.secret.public()).expect("a good key")
    }
}

#[test]
fn an_entry_opens_for_its_device_and_place_only() {
    let mut rng = rng(40);
    let mailbox = Mailbox::new(&mut rng);
    let sealed = mailbox.sealer(&mut rng).seal(&mailbox.device, &mailbox.entry, &message());
    assert_eq!(sealed.len(), message().encoded_len() + SEAL_OVERHEAD);
    let mut opener = MailboxOpener::new(mailbox.secret.clone());
    assert_eq!(opener.open(&mailbox.device, &mailbox.entry, &sealed), Ok(message()));
    assert_eq!(opener.open(&mailbox.device, &mailbox.entry, &sealed), Ok(message()), "with the kept key");

    let refused = Err(SealError::Aead);
    assert_eq!(opener.open(&DeviceId::new([9; 16]), &mailbox.entry, &sealed), refused, "another device's entry");
    assert_eq!(opener.open(&mailbox.device, &EntryId::new([9; 16]), &sealed), refused, "another entry's place");
    let mut recounted = sealed.to_vec();
    recounted[39] ^= 1;
    assert_eq!(opener.open(&mailbox.device, &mailbox.entry, &recounted), refused, "another counter");
    let mut stranger = MailboxOpener::new(DhSecret::generate(&mut rng));
    assert_eq!(stranger.open(&mailbox.device, &mailbox.entry, &sealed), refused, "another mailbox key");
    assert_eq!(opener.open(&mailbox.device, &mailbox.entry, &sealed[..55]), Err(SealError::Truncated));
    let mut weak = sealed.to_vec();
    weak[..32].fill(0);
    assert_eq!(opener.open(&mailbox.device, &mailbox.entry, &weak), Err(SealError::Weak));
}

#[test]
fn weak_mailbox_keys_get_no_sealer() {
    assert_eq!(MailboxSealer::new(&mut rng(41), &PublicKey::new([0; 32])).err(), Some(SealError::Weak));
}

#[test]
fn counters_never_repeat_under_one_key() {
    let mut rng = rng(42);
    let mailbox = Mailbox::new(&mut rng);
    let sealer = mailbox.sealer(&mut rng);
    let mut seen: Vec<[u8; 40]> = std::thread::scope(|scope| {
        let seal = || {
            (0..500)
                .map(|_| sealer.seal(&mailbox.device, &mailbox.entry, &message())[..40].try_into().expect("40 bytes"))
                .collect::<Vec<[u8; 40]>>()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(seal)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 2000);
    assert_eq!(seen[0][32..], [0; 8]);
    assert_eq!(seen[1999][32..], 1999_u64.to_be_bytes());
}

#[test]
fn the_documents_bytes_are_these() {
    let mut rng = rng(43);
    let mailbox = Mailbox::new(&mut rng);
    let sealer = mailbox.sealer(&mut rng);
    for _ in 0..3 {
        let sealed = sealer.seal(&mailbox.device, &mailbox.entry, &message());
        let secret = mailbox.secret.to_bytes();
        let opened = spec::open_entry(&secret, mailbox.device.as_bytes(), mailbox.entry.as_bytes(), &sealed);
        assert_eq!(opened.expect("opens by the document"), message().encode_to_vec());
    }
}

#[test]
fn few_keys_are_kept_and_junk_drives_none_out() {
    let mut rng = rng(44);
    let mailbox = Mailbox::new(&mut rng);
    let mut opener = MailboxOpener::with_max_keys(mailbox.secret.clone(), 2);
    let entries: Vec<_> =
        (0..4).map(|_| mailbox.sealer(&mut rng).seal(&mailbox.device, &mailbox.entry, &message())).collect();
    for _ in 0..2 {
        for sealed in &entries {
            assert_eq!(opener.open(&mailbox.device, &mailbox.entry, sealed), Ok(message()));
            let mut junk = sealed.to_vec();
            junk[0] ^= 1;
            assert_eq!(opener.open(&mailbox.device, &mailbox.entry, &junk), Err(SealError::Aead));
        }
    }
    assert_eq!(opener.kept_keys(), 2);
}

#[test]
fn a_seal_that_holds_no_message_is_unreadable() {
    let mut rng = rng(45);
    let mailbox = Mailbox::new(&mut rng);
    let sealed = mailbox.sealer(&mut rng).seal(&mailbox.device, &mailbox.entry, &message());
    // The key is the device's to derive too, so it can make an entry that holds anything.
    let (enc, counter) = (&sealed[..32], 7_u64.to_be_bytes());
    let junk = spec::seal_entry(
        &mailbox.secret.to_bytes(),
        mailbox.device.as_bytes(),
        mailbox.entry.as_bytes(),
        enc,
        counter,
        &[0xff; 9],
    );
    let mut opener = MailboxOpener::new(mailbox.secret.clone());
    assert_eq!(opener.open(&mailbox.device, &mailbox.entry, &junk), Err(SealError::Unreadable));
}

/// Prints what the two hot functions cost: `cargo test -p martlet-protocol --test all speed -- --ignored --nocapture`, best in release.
#[test]
#[ignore = "measures, and says nothing about right or wrong"]
#[expect(clippy::disallowed_methods, reason = "a measurement takes the time that passes")]
fn speed_of_sealing() {
    const ENTRIES: u32 = 20_000;
    const HEADERS: u32 = 200;
    let mut rng = rng(46);
    let mailbox = Mailbox::new(&mut rng);
    let (sealer, message) = (mailbox.sealer(&mut rng), message());
    let start = std::time::Instant::now();
    for _ in 0..ENTRIES {
        std::hint::black_box(sealer.seal(&mailbox.device, &mailbox.entry, &message));
    }
    println!("MailboxSealer::seal of {} bytes: {:?}", message.encoded_len(), start.elapsed() / ENTRIES);
    let sent = crate::suite1::Sent::new(&mut rng);
    let start = std::time::Instant::now();
    for _ in 0..HEADERS {
        let header = martlet_protocol::suite1::fork_header(&mut rng, &sent.key, &sent.context, &sent.forks[0].1);
        std::hint::black_box(header).expect("a good prekey");
    }
    println!("fork_header: {:?}", start.elapsed() / HEADERS);
}
