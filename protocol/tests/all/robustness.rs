//! Nothing that was cut, lengthened or flipped opens, and no bytes whatever make a reader panic.

use martlet_protocol::{
    chain::{
        devices::{DeviceChain, DeviceList},
        members::{MembershipChange, MembershipLink},
    },
    id::{Blob, DeviceId, EntryId, Signature},
    link::{LinkCode, check_offer, open_answer},
    rest::{Role, SignedDeviceList, SignedMembershipLink},
    seal::{MailboxOpener, MailboxSealer},
    suite1::{Header, open_content, open_header, parse_header},
};
use proptest::prelude::*;
use std::sync::LazyLock;

use crate::{
    devices,
    link::Linking,
    members::{ALICE, ERIN, On, World},
    seal,
    suite1::Sent,
    world::{Account, Device, NOW_MS, rng, signed},
};

/// One way to damage bytes. All leave them different from what they were.
#[derive(Debug, Clone)]
enum Damage {
    Cut(usize),
    Lengthen(Vec<u8>),
    Flip(usize, u8),
}

impl Damage {
    fn apply(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        match self {
            Self::Cut(at) => bytes.truncate(at % bytes.len()),
            Self::Lengthen(more) => bytes.extend_from_slice(more),
            Self::Flip(at, bit) => {
                let at = at % bytes.len();
                bytes[at] ^= 1 << bit;
            }
        }
        bytes
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<usize>().prop_map(Damage::Cut),
        proptest::collection::vec(any::<u8>(), 1..40).prop_map(Damage::Lengthen),
        (any::<usize>(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
    ]
}

static LISTS: LazyLock<(Account, SignedDeviceList)> = LazyLock::new(|| {
    let mut rng = rng(60);
    let (account, _) = devices::history(&mut rng);
    let newcomer = Device::new(&mut rng);
    let list = account.chain.list().with_device(newcomer.listed(), NOW_MS);
    let next = signed(&list, &[&account.devices[0], &newcomer]);
    (account, next)
});

static MEMBERS: LazyLock<(World, SignedMembershipLink)> = LazyLock::new(|| {
    let world = World::new(&mut rng(61));
    let link = world.change(ALICE, vec![MembershipChange::Add(world.member(ERIN, Role::Member))]);
    (world, link)
});

static SENT: LazyLock<Sent> = LazyLock::new(|| Sent::new(&mut rng(62)));
static LINKING: LazyLock<Linking> = LazyLock::new(|| Linking::new(&mut rng(63)));

const DEVICE: DeviceId = DeviceId::new([1; 16]);
const ENTRY: EntryId = EntryId::new([2; 16]);

fn opener() -> MailboxOpener {
    MailboxOpener::new(LINKING.ephemeral.clone())
}

static ENTRY_BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let sealer = MailboxSealer::new(&mut rng(64), &LINKING.ephemeral.public()).expect("a good key");
    sealer.seal(&DEVICE, &ENTRY, &seal::message()).to_vec()
});

fn opens_header(bytes: &[u8]) -> bool {
    let (secret, prekey, _) = &SENT.forks[0];
    match parse_header(bytes) {
        Ok(Header::Fork(header)) => {
            open_header(&header, secret, &SENT.context, &prekey.account_id, &prekey.device_id).is_ok()
        }
        _ => false,
    }
}

fn opens_list(list: Vec<u8>, edit: impl FnOnce(&mut SignedDeviceList)) -> bool {
    let (account, next) = &*LISTS;
    let mut next = SignedDeviceList { list: Blob::from(list), signatures: next.signatures.clone() };
    edit(&mut next);
    account.chain.extend(&next).is_ok()
}

fn damaged_signature(signature: &Signature, at: usize, bit: u8) -> Signature {
    let mut bytes = *signature.as_bytes();
    bytes[at % 64] ^= 1 << bit;
    Signature::new(bytes)
}

#[test]
fn undamaged_they_all_open() {
    let (world, link) = &*MEMBERS;
    assert!(opens_list(LISTS.1.list.0.to_vec(), |_| {}));
    assert!(world.try_on(On::Group, link).is_ok());
    assert!(opens_header(&SENT.forks[0].2));
    assert!(open_content(&SENT.key, &SENT.content).is_ok());
    assert!(opener().open(&DEVICE, &ENTRY, &ENTRY_BYTES).is_ok());
    assert!(open_answer(&LINKING.code, &LINKING.ephemeral, &LINKING.sealed).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_lists_extend_nothing(damage in damage(), at in any::<usize>(), bit in 0..8_u8) {
        let opened = opens_list(damage.apply(&LISTS.1.list.0), |_| {});
        prop_assert!(!opened);
        let spoiled = opens_list(LISTS.1.list.0.to_vec(), |next| {
            let index = at % next.signatures.len();
            next.signatures[index].signature = damaged_signature(&next.signatures[index].signature, at / 2, bit);
        });
        prop_assert!(!spoiled);
    }

    #[test]
    fn damaged_links_change_nothing(damage in damage(), at in any::<usize>(), bit in 0..8_u8) {
        let (world, link) = &*MEMBERS;
        let damaged = SignedMembershipLink { link: Blob::from(damage.apply(&link.link.0)), ..link.clone() };
        prop_assert!(world.try_on(On::Group, &damaged).is_err());
        let spoiled = SignedMembershipLink { signature: damaged_signature(&link.signature, at, bit), ..link.clone() };
        prop_assert!(world.try_on(On::Group, &spoiled).is_err());
    }

    #[test]
    fn damaged_headers_and_content_do_not_open(damage in damage()) {
        prop_assert!(!opens_header(&damage.apply(&SENT.forks[0].2)));
        prop_assert!(open_content(&SENT.key, &damage.apply(&SENT.content)).is_err());
    }

    #[test]
    fn damaged_entries_do_not_open(damage in damage()) {
        prop_assert!(opener().open(&DEVICE, &ENTRY, &damage.apply(&ENTRY_BYTES)).is_err());
    }

    #[test]
    fn damaged_offers_answers_and_codes_do_not_open(damage in damage()) {
        prop_assert!(check_offer(&LINKING.code, &damage.apply(&LINKING.offer)).is_err());
        let text = LINKING.code.to_text();
        if let Ok(damaged) = String::from_utf8(damage.apply(text.as_bytes())) {
            prop_assert!(damaged.trim() == *text || LinkCode::from_text(&damaged).is_err());
        }
        prop_assert!(open_answer(&LINKING.code, &LINKING.ephemeral, &damage.apply(&LINKING.sealed)).is_err());
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = DeviceList::parse(&bytes);
        let _ = MembershipLink::parse(&bytes);
        let _ = parse_header(&bytes);
        let signed = SignedDeviceList { list: Blob::from(bytes.clone()), signatures: vec![] };
        prop_assert!(DeviceChain::first(&signed).is_err());
        prop_assert!(!opens_header(&bytes));
        prop_assert!(open_content(&SENT.key, &bytes).is_err());
        prop_assert!(opener().open(&DEVICE, &ENTRY, &bytes).is_err());
        prop_assert!(open_answer(&LINKING.code, &LINKING.ephemeral, &bytes).is_err());
        prop_assert!(LinkCode::from_text(&String::from_utf8_lossy(&bytes)).is_err());
    }
}
