//! Prekeys and sign-in proofs: bound to their device, and refused when anything about them is off.

use martlet_protocol::{
    chain::devices::DeviceChain,
    crypto::{
        PrekeyError, SigningKey, UnsignedPrekey, sign_in_proof, sign_prekey, verify_prekey, verify_sign_in_proof,
    },
    id::{AccountId, DeviceId, Hash, PublicKey},
    rest::{PrekeyKind, SignedPrekey},
};

use crate::world::{Account, DAY_MS, NOW_MS, rng};

#[test]
fn a_prekey_is_bound_to_everything_it_says() {
    let mut rng = rng(20);
    let account = Account::new(&mut rng);
    let (_, good) = account.prekey(&mut rng, 0, PrekeyKind::OneTime, 5);
    let (id, device) = (account.id(), &account.devices[0]);
    let key = device.signing.public();
    let verified = verify_prekey(&good, &id, &device.id, &key).expect("a good prekey");
    assert_eq!((verified.kind, verified.key_id, verified.public_key), (PrekeyKind::OneTime, 5, good.public_key));

    let altered: [fn(&mut SignedPrekey); 7] = [
        |key| key.suite = 2,
        |key| key.kind = PrekeyKind::Signed,
        |key| key.key_id += 1,
        |key| key.public_key = PublicKey::new([9; 32]),
        |key| key.not_after_ms += 1,
        |key| key.list_n += 1,
        |key| key.list_hash = Hash::of(b"other"),
    ];
    for (index, alter) in altered.into_iter().enumerate() {
        let mut bad = good.clone();
        alter(&mut bad);
        assert_eq!(verify_prekey(&bad, &id, &device.id, &key), Err(PrekeyError::Signature), "{index}");
    }
    let refused = Err(PrekeyError::Signature);
    assert_eq!(verify_prekey(&good, &AccountId::new([1; 16]), &device.id, &key), refused, "another account");
    assert_eq!(verify_prekey(&good, &id, &DeviceId::new([1; 16]), &key), refused, "another device");
    let other = SigningKey::generate(&mut rng).public();
    assert_eq!(verify_prekey(&good, &id, &device.id, &other), refused, "another signer");
}

#[test]
fn a_sender_refuses_what_it_may_not_seal_to() {
    let mut rng = rng(21);
    let mut account = Account::new(&mut rng);
    let (_, before) = account.prekey(&mut rng, 0, PrekeyKind::Signed, 1);
    let old_chain = account.chain.clone();
    account.add(&mut rng);
    let (_, after) = account.prekey(&mut rng, 0, PrekeyKind::Signed, 2);
    let device = account.devices[0].clone();
    let check = |chain: &DeviceChain, key: &SignedPrekey, now_ms| chain.check_prekey(key, &device.id, now_ms).err();

    assert_eq!(check(&account.chain, &after, NOW_MS), None);
    assert_eq!(check(&account.chain, &before, NOW_MS), None, "a prekey may be older than the list");
    assert_eq!(check(&old_chain, &after, NOW_MS), Some(PrekeyError::ListTooOld));
    assert_eq!(check(&account.chain, &after, NOW_MS + 60 * DAY_MS), Some(PrekeyError::Expired));

    let sign = |edit: &dyn Fn(&mut UnsignedPrekey), hash: Hash| {
        let mut key = UnsignedPrekey {
            suite: 1,
            kind: PrekeyKind::Signed,
            key_id: 3,
            public_key: after.public_key,
            not_after_ms: after.not_after_ms,
        };
        edit(&mut key);
        let mut head = account.chain.head();
        head.hash = hash;
        sign_prekey(&key, &device.id, &head, &device.signing)
    };
    let hash = account.chain.hash();
    let other_branch = sign(&|_| {}, Hash::of(b"other"));
    assert_eq!(check(&account.chain, &other_branch, NOW_MS), Some(PrekeyError::OtherBranch));
    assert_eq!(check(&account.chain, &sign(&|key| key.suite = 2, hash), NOW_MS), Some(PrekeyError::Suite));
    let weak = sign(&|key| key.public_key = PublicKey::new([0; 32]), hash);
    assert_eq!(check(&account.chain, &weak, NOW_MS), Some(PrekeyError::Weak));
    let gone = account.remove(1);
    assert_eq!(account.chain.check_prekey(&after, &gone.id, NOW_MS), Err(PrekeyError::DeviceNotListed));
}

#[test]
fn a_sign_in_proof_is_for_one_name_device_and_time() {
    let mut rng = rng(22);
    let key = SigningKey::generate(&mut rng);
    let (device, other) = (DeviceId::random(&mut rng), DeviceId::random(&mut rng));
    let proof = sign_in_proof("alice", &device, NOW_MS, &key);
    let verify = |name: &str, device: &DeviceId, at| verify_sign_in_proof(name, device, at, &key.public(), &proof);
    assert_eq!(verify("alice", &device, NOW_MS), Ok(()));
    assert!(verify("alicf", &device, NOW_MS).is_err());
    assert!(verify("alice", &other, NOW_MS).is_err());
    assert!(verify("alice", &device, NOW_MS + 1).is_err());
}
