//! Suite 1: what opens, for whom, and every way in which it does not.

use bytes::Bytes;
use martlet_protocol::{
    crypto::{DhSecret, SignatureError, SigningKey, VerifiedPrekey, verify_prekey},
    id::{AccountId, ClientMessageId, ConversationId, DeviceId, Hash, PublicKey},
    rest::PrekeyKind,
    suite1::{
        CONTENT_OVERHEAD, ContentError, ContentKey, ECHO_HEADER_LEN, FORK_HEADER_LEN, ForkContext, ForkHeader, Header,
        HeaderError, MAX_EPHEMERAL_LIFETIME_MS, MessageKind, echo_header, fork_header, open_content, open_header,
        padded_len, parse_header, seal_content,
    },
    wire,
};
use prost::Message as _;
use rand_chacha::ChaCha20Rng;

use crate::{
    spec,
    world::{Account, NOW_MS, rng},
};

/// Alice's device has sent Bob's two devices a message.
pub struct Sent {
    pub alice: Account,
    pub bob: Account,
    pub plaintext: wire::Plaintext,
    pub context: ForkContext,
    pub key: ContentKey,
    pub content: Bytes,
    /// For each of Bob's devices the private part, the prekey and the header.
    pub forks: Vec<(DhSecret, VerifiedPrekey, Bytes)>,
}

impl Sent {
    pub fn new(rng: &mut ChaCha20Rng) -> Self {
        let (alice, bob) = (Account::new(rng), Account::with_devices(rng, 2));
        let plaintext = plaintext(rng, &alice, &bob);
        let (key, content) = seal_content(rng, &plaintext, &alice.devices[0].signing);
        let context = ForkContext {
            conversation_id: plaintext.conversation_id.as_ref().try_into().expect("32 bytes"),
            sender_account: alice.id(),
            sender_device: alice.devices[0].id,
            client_message_id: plaintext.client_message_id.as_ref().try_into().expect("16 bytes"),
            content_hash: Hash::of(&content),
        };
        let forks = [PrekeyKind::OneTime, PrekeyKind::Signed].into_iter().enumerate().map(|(device, kind)| {
            let (secret, signed) = bob.prekey(rng, device, kind, 40 + device as u32);
            let listed = &bob.devices[device];
            let prekey = verify_prekey(&signed, &bob.id(), &listed.id, &listed.signing.public()).expect("good");
            let header = fork_header(rng, &key, &context, &prekey).expect("a good prekey");
            (secret, prekey, header)
        });
        let forks = forks.collect();
        Self { alice, bob, plaintext, context, key, content, forks }
    }

    pub fn parsed(&self, device: usize) -> ForkHeader {
        parse(&self.forks[device].2)
    }

    pub fn open(&self, device: usize) -> Result<ContentKey, HeaderError> {
        self.open_as(&self.parsed(device), device, &self.context)
    }

    fn open_as(&self, header: &ForkHeader, device: usize, context: &ForkContext) -> Result<ContentKey, HeaderError> {
        open_header(header, &self.forks[device].0, context, &self.bob.id(), &self.bob.devices[device].id)
    }
}

fn parse(header: &[u8]) -> ForkHeader {
    match parse_header(header) {
        Ok(Header::Fork(header)) => header,
        other => panic!("no fork header: {other:?}"),
    }
}

fn plaintext(rng: &mut ChaCha20Rng, alice: &Account, bob: &Account) -> wire::Plaintext {
    let text = wire::Text { text: "The swallow has landed.".to_owned(), reply_to: None };
    wire::Plaintext {
        version: 1,
        suite: 1,
        body: Some(wire::Content { body: Some(wire::content::Body::Text(text)) }),
        client_message_id: ClientMessageId::random(rng).to_wire(),
        sent_at_ms: NOW_MS,
        conversation_id: ConversationId::random(rng).to_wire(),
        membership: Some(wire::MembershipHead { m: 1, hash: Hash::of(b"link 1").to_wire() }),
        list_heads: [alice, bob].iter().map(|account| (&account.chain.head()).into()).collect(),
        sender_account_id: alice.id().to_wire(),
        sender_device_id: alice.devices[0].id.to_wire(),
        sender_counter: 1,
        previous_message_hash: Bytes::new(),
        ephemeral_until_ms: 0,
    }
}

#[test]
fn every_recipient_opens_the_same() {
    let sent = Sent::new(&mut rng(30));
    for device in 0..2 {
        let key = sent.open(device).expect("the header opens");
        let opened = open_content(&key, &sent.content).expect("the content opens");
        assert_eq!(opened.plaintext, sent.plaintext);
        assert_eq!(opened.signed_bytes, sent.plaintext.encode_to_vec());
        assert_eq!(opened.verify(&sent.alice.devices[0].signing.public()), Ok(()));
        assert_eq!(opened.check_envelope(&sent.context), Ok(()));
    }
    assert_eq!(sent.forks[0].2.len(), FORK_HEADER_LEN);
    assert_eq!(FORK_HEADER_LEN, 85);
}

#[test]
fn the_documents_bytes_are_these() {
    let sent = Sent::new(&mut rng(31));
    let (secret, _, header) = &sent.forks[1];
    let context = spec::HeaderContext {
        conversation: *sent.context.conversation_id.as_bytes(),
        sender_account: *sent.alice.id().as_bytes(),
        sender_device: *sent.alice.devices[0].id.as_bytes(),
        account: *sent.bob.id().as_bytes(),
        device: *sent.bob.devices[1].id.as_bytes(),
        client_message_id: *sent.context.client_message_id.as_bytes(),
        content_hash: *sent.context.content_hash.as_bytes(),
    };
    let key = spec::open_header(&secret.to_bytes(), header, &context).expect("opens by the document");
    assert_eq!(key, sent.key.to_bytes().as_slice());
    assert_eq!(header[..5], [1, 0, 0, 0, 41]);

    let padded = spec::open_content(&sent.key.to_bytes(), &sent.content).expect("opens by the document");
    let signed = sent.plaintext.encode_to_vec();
    assert_eq!(padded.len(), padded_len(signed.len() + 64));
    assert_eq!(sent.content.len(), padded.len() + CONTENT_OVERHEAD);
    assert_eq!(padded[..signed.len()], signed);
    assert_eq!(padded[signed.len() + 64], 0x80);
    assert!(padded[signed.len() + 65..].iter().all(|byte| *byte == 0));
    assert_eq!(spec::content(&sent.key.to_bytes(), 1, 1, &padded), sent.content);
}

/// A fork that was replayed, moved to another conversation, taken from another device, or made for another content.
#[test]
fn a_header_opens_only_where_it_belongs() {
    let mut rng = rng(32);
    let sent = Sent::new(&mut rng);
    let header = sent.parsed(0);
    let elsewhere: [fn(&mut ForkContext); 5] = [
        |context| context.conversation_id = ConversationId::new([1; 32]),
        |context| context.sender_account = AccountId::new([1; 16]),
        |context| context.sender_device = DeviceId::new([1; 16]),
        |context| context.client_message_id = ClientMessageId::new([1; 16]),
        |context| context.content_hash = Hash::of(b"other content"),
    ];
    for (index, change) in elsewhere.into_iter().enumerate() {
        let mut context = sent.context;
        change(&mut context);
        assert_eq!(sent.open_as(&header, 0, &context).err(), Some(HeaderError::Aead), "{index}");
    }
    assert_eq!(sent.open_as(&header, 1, &sent.context).err(), Some(HeaderError::Aead), "another device");
    let (secret, ..) = &sent.forks[0];
    let (account, device) = (sent.bob.id(), sent.bob.devices[0].id);
    let copied = open_header(&header, secret, &sent.context, &sent.alice.id(), &device);
    assert_eq!(copied.err(), Some(HeaderError::Aead), "the keys copied into another account");
    let copied = open_header(&header, secret, &sent.context, &account, &sent.bob.devices[1].id);
    assert_eq!(copied.err(), Some(HeaderError::Aead), "the keys copied to another device");
    for edit in [0, 4] {
        let mut bytes = sent.forks[0].2.to_vec();
        bytes[edit] ^= 3;
        assert_eq!(sent.open_as(&parse(&bytes), 0, &sent.context).err(), Some(HeaderError::Aead), "byte {edit}");
    }
}

#[test]
fn odd_headers_are_refused_by_name() {
    let mut rng = rng(33);
    let sent = Sent::new(&mut rng);
    let (secret, prekey, header) = &sent.forks[0];
    assert_eq!(parse_header(&header[..84]), Err(HeaderError::Length { given: 84 }));
    assert_eq!(parse_header(&[&header[..], &[0]].concat()), Err(HeaderError::Length { given: 86 }));
    assert_eq!(parse_header(&[&[3], &header[1..]].concat()), Err(HeaderError::Kind));
    assert_eq!(parse_header(&[]), Err(HeaderError::Length { given: 0 }));
    assert_eq!(parse_header(&echo_header()), Ok(Header::Echo));
    assert_eq!(parse_header(&[0]), Ok(Header::Echo), "an echo beside no fork");
    assert_eq!(echo_header().len(), ECHO_HEADER_LEN);
    assert_eq!(parse_header(&[&[0], &header[1..]].concat()), Err(HeaderError::Echo));
    let mut weak = header.to_vec();
    weak[5..37].fill(0);
    let opened = open_header(&parse(&weak), secret, &sent.context, &prekey.account_id, &prekey.device_id);
    assert_eq!(opened.err(), Some(HeaderError::Weak));
    let weak = VerifiedPrekey { public_key: PublicKey::new([0; 32]), ..*prekey };
    assert_eq!(fork_header(&mut rng, &sent.key, &sent.context, &weak), Err(HeaderError::Weak));
    let other_suite = VerifiedPrekey { suite: 2, ..*prekey };
    assert_eq!(fork_header(&mut rng, &sent.key, &sent.context, &other_suite), Err(HeaderError::Suite));
}

/// Content that must be refused with this key.
pub fn content_refusals(sent: &Sent) -> Vec<(&'static str, [u8; 32], Vec<u8>, ContentError)> {
    let k = *sent.key.to_bytes();
    let content = sent.content.to_vec();
    let padded = spec::open_content(&k, &content).expect("good content");
    let flipped = |at: usize| {
        let mut bytes = content.clone();
        bytes[at] ^= 1;
        bytes
    };
    let with_padded = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = padded.clone();
        edit(&mut bytes);
        spec::content(&k, 1, 1, &bytes)
    };
    // A second key for one content: the commitment is moved to it, the ciphertext stays.
    let second = [9; 32];
    let mut two_keys = content.clone();
    two_keys[5..37].copy_from_slice(&spec::derive(&second, "content commitment"));
    let junk = |len: usize| {
        let mut bytes = vec![0xff; len];
        bytes.push(0x80);
        bytes.resize(padded_len(len), 0);
        spec::content(&k, 1, 1, &bytes)
    };
    vec![
        ("nothing", k, vec![], ContentError::Truncated),
        ("52 bytes", k, content[..52].to_vec(), ContentError::Truncated),
        ("version 2", k, flipped(0), ContentError::Version),
        ("suite 0", k, flipped(4), ContentError::Suite),
        ("another key", second, content.clone(), ContentError::Commitment),
        ("another commitment", k, flipped(5), ContentError::Commitment),
        ("a second key for one content", second, two_keys, ContentError::Aead),
        ("an altered ciphertext", k, flipped(40), ContentError::Aead),
        ("one byte less", k, content[..content.len() - 1].to_vec(), ContentError::Aead),
        ("one byte more", k, [&content[..], &[0]].concat(), ContentError::Aead),
        ("a block of padding more", k, with_padded(&|bytes| bytes.extend([0; 256])), ContentError::Padding),
        ("padding cut short", k, with_padded(&|bytes| bytes.truncate(bytes.len() - 1)), ContentError::Padding),
        ("all zeros", k, spec::content(&k, 1, 1, &[0; 256]), ContentError::Padding),
        ("no room for a signature", k, junk(10), ContentError::Plaintext),
        ("no protobuf", k, junk(300), ContentError::Plaintext),
    ]
}

#[test]
fn odd_content_is_refused_by_name() {
    let sent = Sent::new(&mut rng(34));
    for (name, key, content, error) in content_refusals(&sent) {
        let opened = open_content(&ContentKey::from_bytes(&key), &content);
        assert_eq!(opened.err(), Some(error), "{name}");
    }
}

#[test]
fn a_message_is_by_its_sender_and_for_its_envelope() {
    let mut rng = rng(35);
    let sent = Sent::new(&mut rng);
    let opened = open_content(&sent.key, &sent.content).expect("opens");
    let stranger = SigningKey::generate(&mut rng).public();
    assert_eq!(opened.verify(&stranger), Err(ContentError::Signature));
    assert_eq!(ContentError::from(SignatureError::Wrong), ContentError::Signature);

    let envelope = |change: fn(&mut ForkContext)| {
        let mut context = sent.context;
        change(&mut context);
        opened.check_envelope(&context)
    };
    let other_conversation = envelope(|context| context.conversation_id = ConversationId::new([1; 32]));
    assert_eq!(other_conversation, Err(ContentError::Conversation));
    assert_eq!(envelope(|context| context.sender_account = AccountId::new([1; 16])), Err(ContentError::Sender));
    assert_eq!(envelope(|context| context.sender_device = DeviceId::new([1; 16])), Err(ContentError::Sender));
    let other_id = envelope(|context| context.client_message_id = ClientMessageId::new([1; 16]));
    assert_eq!(other_id, Err(ContentError::MessageId));

    for (edit, error) in [
        ((|plaintext| plaintext.version = 2) as fn(&mut wire::Plaintext), ContentError::Version),
        (|plaintext| plaintext.suite = 2, ContentError::Suite),
    ] {
        let mut plaintext = sent.plaintext.clone();
        edit(&mut plaintext);
        let (key, content) = seal_content(&mut rng, &plaintext, &sent.alice.devices[0].signing);
        let opened = open_content(&key, &content).expect("opens");
        assert_eq!(opened.check_envelope(&sent.context), Err(error));
    }
}

#[test]
fn a_message_is_stored_or_ephemeral_and_never_both() {
    let mut rng = rng(36);
    let sent = Sent::new(&mut rng);
    let until_ms = NOW_MS + MAX_EPHEMERAL_LIFETIME_MS;
    let hash = || Hash::of(b"before").to_wire();
    // Counter, predecessor, end.
    let cases: [(u64, Bytes, u64, Result<MessageKind, ContentError>); 11] = [
        (1, Bytes::new(), 0, Ok(MessageKind::Stored)),
        (2, hash(), 0, Ok(MessageKind::Stored)),
        (0, Bytes::new(), until_ms, Ok(MessageKind::Ephemeral { until_ms })),
        (0, Bytes::new(), NOW_MS + 1, Ok(MessageKind::Ephemeral { until_ms: NOW_MS + 1 })),
        (0, Bytes::new(), 0, Err(ContentError::Kind)),
        (1, hash(), 0, Err(ContentError::Kind)),
        (2, Bytes::new(), 0, Err(ContentError::Kind)),
        (1, Bytes::new(), until_ms, Err(ContentError::Kind)),
        (0, hash(), until_ms, Err(ContentError::Kind)),
        (0, Bytes::new(), NOW_MS, Err(ContentError::Kind)),
        (0, Bytes::new(), until_ms + 1, Err(ContentError::Kind)),
    ];
    for (sender_counter, previous_message_hash, ephemeral_until_ms, kind) in cases {
        let what = format!("{sender_counter} {} {ephemeral_until_ms}", previous_message_hash.len());
        let plaintext =
            wire::Plaintext { sender_counter, previous_message_hash, ephemeral_until_ms, ..sent.plaintext.clone() };
        let (key, content) = seal_content(&mut rng, &plaintext, &sent.alice.devices[0].signing);
        assert_eq!(open_content(&key, &content).expect("opens").kind(), kind, "{what}");
    }
}
