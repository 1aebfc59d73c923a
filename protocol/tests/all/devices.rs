//! Device lists: what extends a chain, and one case at least for every refusal.

use martlet_protocol::{
    chain::devices::{DeviceChain, DeviceList, ListError, ListedDevice, MAX_LISTED_DEVICES},
    id::{DeviceId, Hash, PublicKey, Signature},
    rest::SignedDeviceList,
};
use rand_chacha::ChaCha20Rng;

use crate::{
    strict::{mixed_order_key, small_order_key},
    world::{Account, Device, NOW_MS, rng, signed, signed_bytes},
};

/// A list that must be refused: as list 1 (`head_n` 0) or after list `head_n`.
pub struct Refusal {
    pub name: &'static str,
    pub head_n: u64,
    pub signed: SignedDeviceList,
    pub error: ListError,
}

/// Lists 1 to 4: one device, two, three, and two again.
pub fn history(rng: &mut ChaCha20Rng) -> (Account, Device) {
    let mut account = Account::with_devices(rng, 3);
    let gone = account.remove(2);
    (account, gone)
}

/// A good next list and the tools to spoil it.
struct Next<'a> {
    account: &'a Account,
    newcomer: Device,
    list: DeviceList,
}

impl Next<'_> {
    fn edited(&self, edit: impl FnOnce(&mut DeviceList)) -> SignedDeviceList {
        let mut list = self.list.clone();
        edit(&mut list);
        signed(&list, &[&self.account.devices[0], &self.newcomer])
    }

    fn newcomer_edited(&self, edit: impl FnOnce(&mut ListedDevice)) -> SignedDeviceList {
        self.edited(|list| edit(entry(list, &self.newcomer.id)))
    }

    fn appended(&self, bytes: &[u8]) -> SignedDeviceList {
        signed_bytes([&self.list.to_bytes(), bytes].concat(), &[&self.account.devices[0], &self.newcomer])
    }
}

fn entry<'a>(list: &'a mut DeviceList, id: &DeviceId) -> &'a mut ListedDevice {
    list.devices.iter_mut().find(|device| device.device_id == *id).expect("listed")
}

pub fn refusals(rng: &mut ChaCha20Rng, account: &Account, gone: &Device) -> Vec<Refusal> {
    let newcomer = Device::new(rng);
    let list = account.chain.list().with_device(newcomer.listed(), NOW_MS);
    let next = Next { account, newcomer, list };
    let mut refusals = about_form(rng, &next);
    refusals.extend(about_place(&next));
    refusals.extend(about_signatures(rng, &next, gone));
    refusals.extend(about_devices(rng, &next, gone));
    refusals.extend(about_list_1(rng));
    refusals
}

fn after_head(cases: Vec<(&'static str, SignedDeviceList, ListError)>) -> Vec<Refusal> {
    cases.into_iter().map(|(name, signed, error)| Refusal { name, head_n: 4, signed, error }).collect()
}

fn about_form(rng: &mut ChaCha20Rng, next: &Next) -> Vec<Refusal> {
    let crowd =
        next.edited(|list| {
            list.devices.extend((0..MAX_LISTED_DEVICES).map(|_| {
                ListedDevice::new(DeviceId::random(rng), PublicKey::random(rng), PublicKey::random(rng), NOW_MS)
            }));
            list.devices.sort_by_key(|device| device.device_id);
        });
    after_head(vec![
        ("not protobuf", signed_bytes(vec![0xff], &[]), ListError::Unreadable),
        ("an id of 15 bytes", signed_bytes([&[0x0a, 15][..], &[7; 15]].concat(), &[]), ListError::Unreadable),
        ("an unknown field", next.appended(&[0x78, 1]), ListError::NotCanonical),
        ("a spelled-out default", next.appended(&[0x20, 0]), ListError::NotCanonical),
        ("devices out of order", next.edited(|list| list.devices.reverse()), ListError::NotCanonical),
        ("suites out of order", next.newcomer_edited(|device| device.suites = vec![2, 1]), ListError::NotCanonical),
        ("a suite twice", next.newcomer_edited(|device| device.suites = vec![1, 1]), ListError::NotCanonical),
        ("no suite", next.newcomer_edited(|device| device.suites.clear()), ListError::UnknownSuite),
        ("suite 0", next.newcomer_edited(|device| device.suites = vec![0, 1]), ListError::UnknownSuite),
        ("no device", next.edited(|list| list.devices.clear()), ListError::NoDevices),
        ("too many devices", crowd, ListError::TooManyDevices),
        (
            "a device twice",
            next.edited(|list| {
                let twin = list.devices[0].clone();
                list.devices.insert(0, twin);
            }),
            ListError::DuplicateDevice,
        ),
    ])
}

fn about_place(next: &Next) -> Vec<Refusal> {
    let (account, head) = (next.account, next.account.chain.n());
    let sibling = DeviceList { created_at_ms: NOW_MS + 77, ..account.chain.list().clone() };
    after_head(vec![
        (
            "another account",
            next.edited(|list| list.account_id = martlet_protocol::id::AccountId::new([9; 16])),
            ListError::WrongAccount,
        ),
        ("the head again", account.lists[3].clone(), ListError::Shorter),
        ("rolled back to list 2", account.lists[1].clone(), ListError::Shorter),
        (
            "a number left out",
            next.edited(|list| list.n += 1),
            ListError::WrongNumber { expected: head + 1, given: head + 2 },
        ),
        (
            "another predecessor",
            next.edited(|list| list.previous_hash = Some(Hash::of(b"another"))),
            ListError::OtherBranch,
        ),
        ("no predecessor", next.edited(|list| list.previous_hash = None), ListError::OtherBranch),
        ("a sibling of the head", signed(&sibling, &[&account.devices[0]]), ListError::OtherBranch),
    ])
}

fn about_signatures(rng: &mut ChaCha20Rng, next: &Next, gone: &Device) -> Vec<Refusal> {
    let (old, newcomer) = (&next.account.devices[0], &next.newcomer);
    let stranger = Device::new(rng);
    let impostor = Device { signing: stranger.signing.clone(), ..old.clone() };
    let mut moved = signed(&next.list, &[old, newcomer]);
    moved.signatures[0].signature = next.account.lists[3].signatures[0].signature;
    let mut zero = signed(&next.list, &[old, newcomer]);
    zero.signatures[1].signature = Signature::new([0; 64]);
    after_head(vec![
        ("no signature", signed(&next.list, &[]), ListError::OldDeviceSignatureMissing),
        ("by the newcomer alone", signed(&next.list, &[newcomer]), ListError::OldDeviceSignatureMissing),
        ("not by the newcomer", signed(&next.list, &[old]), ListError::NewDeviceSignatureMissing),
        ("by a stranger too", signed(&next.list, &[old, newcomer, &stranger]), ListError::SignerNotListed),
        ("by a removed device", signed(&next.list, &[gone, newcomer]), ListError::SignerRemoved),
        ("twice by one device", signed(&next.list, &[old, old, newcomer]), ListError::DuplicateSignature),
        ("by another key", signed(&next.list, &[&impostor, newcomer]), ListError::BadSignature),
        ("another list's signature", moved, ListError::BadSignature),
        ("a signature of zeros", zero, ListError::BadSignature),
    ])
}

fn about_devices(rng: &mut ChaCha20Rng, next: &Next, gone: &Device) -> Vec<Refusal> {
    let [old, other] = next.account.devices.as_slice() else { unreachable!("the history ends with two devices") };
    let (old_key, fresh_key) = (old.signing.public(), Device::new(rng).mailbox.public());
    let heir = Device { mailbox: other.mailbox.clone(), ..Device::new(rng) };
    let inherited = next.account.chain.list().without(&[other.id], NOW_MS).with_device(heir.listed(), NOW_MS);
    let inherited = DeviceList { n: next.list.n, previous_hash: next.list.previous_hash, ..inherited };
    let returned = next.account.chain.list().with_device(gone.listed(), NOW_MS);
    after_head(vec![
        ("another's signing key", next.newcomer_edited(|device| device.signing_key = old_key), ListError::ReusedKey),
        ("another's key as mailbox key", next.newcomer_edited(|d| d.mailbox_key = old_key), ListError::ReusedKey),
        ("one key for both", next.newcomer_edited(|d| d.mailbox_key = d.signing_key), ListError::ReusedKey),
        ("the key of a device that goes", signed(&inherited, &[old, &heir]), ListError::ReusedKey),
        ("a removed device again", signed(&returned, &[old, gone]), ListError::DeviceReturned),
        (
            "another mailbox key for a listed device",
            next.edited(|list| entry(list, &other.id).mailbox_key = fresh_key),
            ListError::DeviceChanged,
        ),
        (
            "another time of addition",
            next.edited(|list| entry(list, &other.id).added_at_ms += 1),
            ListError::DeviceChanged,
        ),
        (
            "a mailbox key of small order",
            next.newcomer_edited(|device| device.mailbox_key = PublicKey::new([0; 32])),
            ListError::WeakKey,
        ),
        (
            "a signing key of small order",
            next.newcomer_edited(|device| device.signing_key = small_order_key()),
            ListError::WeakKey,
        ),
        (
            "a signing key outside the prime-order subgroup",
            next.newcomer_edited(|device| device.signing_key = mixed_order_key()),
            ListError::WeakKey,
        ),
    ])
}

fn about_list_1(rng: &mut ChaCha20Rng) -> Vec<Refusal> {
    let (one, two) = (Device::new(rng), Device::new(rng));
    let list = DeviceList::first(martlet_protocol::id::AccountId::random(rng), one.listed(), NOW_MS);
    let pair = DeviceList { n: 1, previous_hash: None, ..list.with_device(two.listed(), NOW_MS) };
    let second = DeviceList { n: 2, ..list.clone() };
    let orphan = DeviceList { previous_hash: Some(Hash::of(b"nothing")), ..list.clone() };
    let mut weak = list.clone();
    weak.devices[0].mailbox_key = PublicKey::new([0; 32]);
    let impostor = Device { signing: two.signing.clone(), ..one.clone() };
    let cases = vec![
        ("list 1 with two devices", signed(&pair, &[&one, &two]), ListError::FirstNotAlone),
        ("list 2 as the first", signed(&second, &[&one]), ListError::WrongNumber { expected: 1, given: 2 }),
        ("list 1 with a predecessor", signed(&orphan, &[&one]), ListError::OtherBranch),
        ("list 1 unsigned", signed(&list, &[]), ListError::NewDeviceSignatureMissing),
        ("list 1 signed by a stranger", signed(&list, &[&two]), ListError::SignerNotListed),
        ("list 1 signed with another key", signed(&list, &[&impostor]), ListError::BadSignature),
        ("list 1 signed twice", signed(&list, &[&one, &one]), ListError::DuplicateSignature),
        ("list 1 with a weak key", signed(&weak, &[&one]), ListError::WeakKey),
    ];
    cases.into_iter().map(|(name, signed, error)| Refusal { name, head_n: 0, signed, error }).collect()
}

#[test]
fn every_bad_list_is_refused_by_name() {
    let mut rng = rng(1);
    let (account, gone) = history(&mut rng);
    for case in refusals(&mut rng, &account, &gone) {
        let result =
            if case.head_n == 0 { DeviceChain::first(&case.signed) } else { account.chain.extend(&case.signed) };
        assert_eq!(result, Err(case.error), "{}", case.name);
    }
}

#[test]
fn a_chain_replays_to_its_head() {
    let (account, gone) = history(&mut rng(2));
    let chain = DeviceChain::replay(&account.lists).expect("a good chain");
    assert_eq!(chain, account.chain);
    assert_eq!((chain.n(), chain.fingerprint()), (4, Hash::of(&account.lists[0].list.0)));
    assert_eq!(chain.hash(), Hash::of(&account.lists[3].list.0));
    assert!(chain.device(&gone.id).is_none() && chain.list_at(3).is_some_and(|list| list.device(&gone.id).is_some()));

    let earlier = DeviceChain::replay(&account.lists[..3]).expect("a good chain");
    assert_eq!(chain.removed(&earlier).map(|device| device.device_id).collect::<Vec<_>>(), [gone.id]);
    assert_eq!(earlier.added(&chain).map(|device| device.device_id).collect::<Vec<_>>(), [gone.id]);
    assert_eq!(earlier.extend_all(&account.lists[3..]), Ok(chain));
    assert_eq!(DeviceChain::replay(&[]), Err(ListError::NoDevices));
}

#[test]
fn a_head_read_back_goes_on_where_it_was() {
    let mut rng = rng(3);
    let (account, gone) = history(&mut rng);
    let head = DeviceChain::trusted(&account.lists[3].list.0, account.chain.fingerprint()).expect("readable");
    assert_eq!((head.head(), head.fingerprint()), (account.chain.head(), account.chain.fingerprint()));
    let list = head.list().without(&[account.devices[1].id], NOW_MS);
    let signed_list = signed(&list, &[&account.devices[1]]);
    assert_eq!(head.extend(&signed_list).map(|chain| chain.n()), Ok(5), "a device may remove itself");
    // Without its history it can't tell a removed signer from a stranger; it refuses both.
    let by_gone = signed(&list, &[&gone]);
    assert_eq!(head.extend(&by_gone), Err(ListError::SignerNotListed));
}

#[test]
fn a_device_may_learn_suites() {
    let (account, _) = history(&mut rng(4));
    let mut list = account.chain.list().without(&[], NOW_MS);
    list.devices[0].suites = vec![1, 7];
    let signer = &account.devices[0];
    assert!(account.chain.extend(&signed(&list, &[signer])).is_ok());
}

#[test]
fn a_newcomer_signs_only_what_it_checked() {
    let mut rng = rng(5);
    let (account, _) = history(&mut rng);
    let newcomer = Device::new(&mut rng);
    let list = account.chain.list().with_device(newcomer.listed(), NOW_MS);
    let proposed = signed(&list, &[&account.devices[0]]);
    let complete = account.chain.countersign(&proposed, &newcomer.id, &newcomer.signing).expect("a good proposal");
    assert!(account.chain.extend(&complete).is_ok());

    let other = Device::new(&mut rng);
    let sign_as = |proposed: &SignedDeviceList, device: &Device| {
        account.chain.countersign(proposed, &device.id, &device.signing).err()
    };
    assert_eq!(sign_as(&proposed, &other), Some(ListError::NewDeviceSignatureMissing));
    let swapped = Device { signing: other.signing.clone(), ..newcomer.clone() };
    assert_eq!(sign_as(&proposed, &swapped), Some(ListError::SignerNotListed), "the list has another key for it");
    assert_eq!(sign_as(&signed(&list, &[]), &newcomer), Some(ListError::OldDeviceSignatureMissing));
    let mut altered = proposed.clone();
    altered.signatures[0].signature = Signature::new([1; 64]);
    assert_eq!(sign_as(&altered, &newcomer), Some(ListError::BadSignature));
}
