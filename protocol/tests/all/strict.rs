//! The strict profile of Ed25519: odd keys and signatures on which libraries disagree.

use curve25519_dalek::{
    EdwardsPoint, Scalar,
    constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION},
};
use martlet_protocol::{
    crypto::{Label, SignatureError, SigningKey, Transcript, check_dh_key, check_signing_key, verify},
    id::{PublicKey, Signature},
};
use sha2::{Digest as _, Sha512};

use crate::world::unhex;

/// p in little-endian, and with that the encodings y + p of small y.
const P: [u8; 32] = {
    let mut p = [0xff; 32];
    p[0] = 0xed;
    p[31] = 0x7f;
    p
};

pub struct Case {
    pub name: &'static str,
    pub key: PublicKey,
    pub message: Vec<u8>,
    pub signature: Signature,
    pub verdict: Result<(), SignatureError>,
}

/// A key pair outside of any library, so that it may be odd.
struct RawKey {
    scalar: Scalar,
    public: EdwardsPoint,
}

fn secret_scalar() -> Scalar {
    Scalar::from_bytes_mod_order(*b"an odd key for the strict vector")
}

pub fn small_order_key() -> PublicKey {
    PublicKey::new(EIGHT_TORSION[1].compress().0)
}

pub fn mixed_order_key() -> PublicKey {
    PublicKey::new(mixed().public.compress().0)
}

fn mixed() -> RawKey {
    let scalar = secret_scalar();
    RawKey { scalar, public: ED25519_BASEPOINT_POINT * scalar + EIGHT_TORSION[1] }
}

fn challenge(r: &[u8; 32], key: &[u8; 32], input: &[u8]) -> Scalar {
    let digest = Sha512::new().chain_update(r).chain_update(key).chain_update(input).finalize();
    Scalar::from_bytes_mod_order_wide(&digest.into())
}

/// A signature with a point of the caller's choice: r·B + `offset`, whose encoding may be given.
fn sign(key: &RawKey, input: &[u8], nonce: u64, offset: EdwardsPoint) -> [u8; 64] {
    let r = Scalar::from(nonce);
    let point = (ED25519_BASEPOINT_POINT * r + offset).compress().0;
    let s = r + challenge(&point, &key.public.compress().0, input) * key.scalar;
    concat(point, s.to_bytes())
}

fn concat(r: [u8; 32], s: [u8; 32]) -> [u8; 64] {
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&r);
    signature[32..].copy_from_slice(&s);
    signature
}

fn transcript(message: &[u8]) -> Transcript {
    Transcript::new(Label::Message).variable(message)
}

/// Messages are signed as suite 1 signs plaintexts: label, length, bytes.
pub fn cases() -> Vec<Case> {
    let message = b"strict".to_vec();
    let input = transcript(&message);
    let honest = SigningKey::from_bytes(&[7; 32]);
    let good = *honest.sign(&input).as_bytes();
    let (mut r, mut s) = ([0; 32], [0; 32]);
    r.copy_from_slice(&good[..32]);
    s.copy_from_slice(&good[32..]);
    let honest = honest.public();
    let case = |name, key: PublicKey, signature: [u8; 64], verdict| Case {
        name,
        key,
        message: message.clone(),
        signature: Signature::new(signature),
        verdict,
    };
    let mut cases = vec![
        case("good", honest, good, Ok(())),
        case("S + L", honest, concat(r, plus_order(s)), Err(SignatureError::Scalar)),
        case("S = L", honest, concat(r, plus_order([0; 32])), Err(SignatureError::Scalar)),
        case("S of all ones", honest, concat(r, [0xff; 32]), Err(SignatureError::Scalar)),
        case("another S", honest, concat(r, Scalar::from(5_u64).to_bytes()), Err(SignatureError::Wrong)),
        case("R is no point", honest, concat([2; 32], s), Err(SignatureError::Point)),
        case("A is no point", PublicKey::new([2; 32]), good, Err(SignatureError::Key)),
    ];
    for (name, point) in odd_points() {
        let key = PublicKey::new(point);
        cases.push(case(name, key, concat(point, [0; 32]), Err(SignatureError::Key)));
        cases.push(case(name, honest, concat(point, s), Err(SignatureError::Point)));
    }
    cases.extend(mixed_order_cases());
    cases
}

/// Where the equations with and without the cofactor part: only the one without is ours.
fn mixed_order_cases() -> Vec<Case> {
    let key = mixed();
    let public = PublicKey::new(key.public.compress().0);
    let identity = EIGHT_TORSION[0];
    let mut with_cofactor_only = None;
    let mut without_too = None;
    for n in 0_u32..1000 {
        let message = n.to_be_bytes().to_vec();
        let signature = sign(&key, transcript(&message).as_bytes(), 11, identity);
        let mut r = [0; 32];
        r.copy_from_slice(&signature[..32]);
        let k = challenge(&r, public.as_bytes(), transcript(&message).as_bytes());
        let place = if k.to_bytes()[0].is_multiple_of(8) { &mut without_too } else { &mut with_cofactor_only };
        place.get_or_insert((message, signature));
    }
    let prime = RawKey { scalar: secret_scalar(), public: ED25519_BASEPOINT_POINT * secret_scalar() };
    let prime_public = PublicKey::new(prime.public.compress().0);
    let message = b"strict".to_vec();
    let mixed_r = sign(&prime, transcript(&message).as_bytes(), 13, EIGHT_TORSION[1]);
    let case = |name, key, (message, signature), verdict| Case {
        name,
        key,
        message,
        signature: Signature::new(signature),
        verdict,
    };
    vec![
        case(
            "A of mixed order, good with the cofactor only",
            public,
            with_cofactor_only.expect("7 of 8 messages"),
            Err(SignatureError::Wrong),
        ),
        case(
            "A of mixed order, good either way: no list may hold such a key",
            public,
            without_too.expect("1 of 8 messages"),
            Ok(()),
        ),
        case(
            "R of mixed order, good with the cofactor only",
            prime_public,
            (message, mixed_r),
            Err(SignatureError::Wrong),
        ),
    ]
}

/// All encodings of small-order points, canonical or not, and a non-canonical encoding of another point.
fn odd_points() -> Vec<(&'static str, [u8; 32])> {
    let mut points: Vec<(&'static str, [u8; 32])> =
        EIGHT_TORSION.iter().map(|point| ("small order", point.compress().0)).collect();
    let plus = |small: u8| {
        let mut bytes = P;
        bytes[0] += small;
        bytes
    };
    let negative = |mut bytes: [u8; 32]| {
        bytes[31] |= 0x80;
        bytes
    };
    let minus_one = EIGHT_TORSION[4].compress().0;
    points.extend([
        ("y = p", plus(0)),
        ("y = p, negative", negative(plus(0))),
        ("y = p + 1", plus(1)),
        ("y = p + 1, negative", negative(plus(1))),
        ("y = 1, x = -0", negative(EIGHT_TORSION[0].compress().0)),
        ("y = -1, x = -0", negative(minus_one)),
        // y = 3 is on the curve, of large order.
        ("y = p + 3", plus(3)),
        ("y = p + 3, negative", negative(plus(3))),
    ]);
    points
}

/// Adds the group order to a little-endian number.
fn plus_order(bytes: [u8; 32]) -> [u8; 32] {
    let order = unhex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let mut sum = [0; 32];
    let mut carry = 0;
    for (index, byte) in sum.iter_mut().enumerate() {
        let total = u16::from(bytes[index]) + u16::from(order[index]) + carry;
        *byte = (total & 0xff) as u8;
        carry = total >> 8;
    }
    sum
}

#[test]
fn odd_keys_and_signatures_are_refused_by_name() {
    for case in cases() {
        let result = verify(&case.key, &transcript(&case.message), &case.signature);
        assert_eq!(result, case.verdict, "{}", case.name);
    }
}

#[test]
fn odd_keys_may_not_be_listed() {
    for (name, point) in odd_points() {
        assert!(check_signing_key(&PublicKey::new(point)).is_err(), "{name}");
    }
    assert!(check_signing_key(&mixed_order_key()).is_err());
    assert!(check_signing_key(&PublicKey::new([2; 32])).is_err());
    assert_eq!(check_signing_key(&SigningKey::from_bytes(&[7; 32]).public()), Ok(()));
}

/// RFC 7748's small-order coordinates, in every encoding that X25519 reads as one of them.
#[test]
fn small_order_dh_keys_are_refused() {
    let mut coordinates: Vec<[u8; 32]> = EIGHT_TORSION.iter().map(|point| point.to_montgomery().0).collect();
    let mut minus_one = P;
    minus_one[0] -= 1;
    let mut one = P;
    one[0] += 1;
    coordinates.extend([minus_one, P, one]);
    for mut bytes in coordinates {
        assert!(check_dh_key(&PublicKey::new(bytes)).is_err());
        bytes[31] |= 0x80;
        assert!(check_dh_key(&PublicKey::new(bytes)).is_err());
    }
}
