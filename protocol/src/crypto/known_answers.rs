//! Published vectors: RFC 9180, 8439, 7748 and 8032, and the Wycheproof sets, through our own functions where there are such.

use chacha20poly1305::{AeadInOut as _, ChaCha20Poly1305, KeyInit as _, Nonce, Tag, aead::inout::InOutBuf};
use hpke::{Deserializable as _, OpModeR, OpModeS, PskBundle, Serializable as _, rand_core};
use wycheproof::TestResult;

use super::{
    DhSecret, HpkeAead, HpkeKdf, HpkeKem, SigningKey, check_dh_key, hpke_public,
    sign::{sign_bytes, verify_bytes},
};
use crate::id::{PublicKey, Signature};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().map(|digit| (digit as char).to_digit(16).expect("a hex digit") as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn hex32(text: &str) -> [u8; 32] {
    hex(text).try_into().expect("32 bytes")
}

/// Gives one prepared draw, so that HPKE's ephemeral key is the vector's.
struct FixedRng([u8; 32]);

impl rand_core::TryRng for FixedRng {
    type Error = rand_core::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        panic!("HPKE draws bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        panic!("HPKE draws bytes")
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.copy_from_slice(&self.0);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for FixedRng {}

struct HpkeVector {
    ikm_e: &'static str,
    sk_r: &'static str,
    enc: &'static str,
    psk: Option<[&'static str; 2]>,
    ciphertexts: [&'static str; 2],
    /// With exporter contexts "", one zero byte, "TestContext".
    exports: [&'static str; 3],
}

/// RFC 9180, A.2.1 (base) and A.2.2 (PSK).
const HPKE_VECTORS: [HpkeVector; 2] = [
    HpkeVector {
        ikm_e: "909a9b35d3dc4713a5e72a4da274b55d3d3821a37e5d099e74a647db583a904b",
        sk_r: "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb",
        enc: "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a",
        psk: None,
        ciphertexts: [
            "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28",
            "6b53c051e4199c518de79594e1c4ab18b96f081549d45ce015be002090bb119e85285337cc95ba5f59992dc98c",
        ],
        exports: [
            "4bbd6243b8bb54cec311fac9df81841b6fd61f56538a775e7c80a9f40160606e",
            "8c1df14732580e5501b00f82b10a1647b40713191b7c1240ac80e2b68808ba69",
            "5acb09211139c43b3090489a9da433e8a30ee7188ba8b0a9a1ccf0c229283e53",
        ],
    },
    HpkeVector {
        ikm_e: "35706a0b09fb26fb45c39c2f5079c709c7cf98e43afa973f14d88ece7e29c2e3",
        sk_r: "77d114e0212be51cb1d76fa99dd41cfd4d0166b08caa09074430a6c59ef17879",
        enc: "2261299c3f40a9afc133b969a97f05e95be2c514e54f3de26cbe5644ac735b04",
        psk: Some([
            "0247fd33b913760fa1fa51e1892d9f307fbe65eb171e8132c2af18555a738b82",
            "456e6e796e20447572696e206172616e204d6f726961",
        ]),
        ciphertexts: [
            "4a177f9c0d6f15cfdf533fb65bf84aecdc6ab16b8b85b4cf65a370e07fc1d78d28fb073214525276f4a89608ff",
            "5c3cabae2f0b3e124d8d864c116fd8f20f3f56fda988c3573b40b09997fd6c769e77c8eda6cda4f947f5b704a8",
        ],
        exports: [
            "813c1bfc516c99076ae0f466671f0ba5ff244a41699f7b2417e4c59d46d39f40",
            "2745cf3d5bb65c333658732954ee7af49eb895ce77f8022873a62a13c94cb4e1",
            "ad40e3ae14f21c99bfdebc20ae14ab86f4ca2dc9a4799d200f43a25f99fa78ae",
        ],
    },
];

#[test]
fn rfc_9180_base_and_psk() {
    let info = hex("4f6465206f6e2061204772656369616e2055726e");
    let plaintext = hex("4265617574792069732074727574682c20747275746820626561757479");
    for vector in HPKE_VECTORS {
        let psk = vector.psk.map(|[psk, id]| [hex(psk), hex(id)]);
        let bundle = || psk.as_ref().map(|[psk, id]| PskBundle::new(psk, id).expect("both are there"));
        let secret = DhSecret::from_bytes(&hex32(vector.sk_r));
        let (enc, mut sender) = hpke::setup_sender_with_rng::<HpkeAead, HpkeKdf, HpkeKem>(
            &bundle().map_or(OpModeS::Base, OpModeS::Psk),
            &hpke_public(&secret.public()),
            &info,
            &mut FixedRng(hex32(vector.ikm_e)),
        )
        .expect("sets up");
        assert_eq!(enc.to_bytes().as_slice(), hex(vector.enc));
        let mut receiver = hpke::setup_receiver::<HpkeAead, HpkeKdf, HpkeKem>(
            &bundle().map_or(OpModeR::Base, OpModeR::Psk),
            &secret.hpke(),
            &<HpkeKem as hpke::Kem>::EncappedKey::from_bytes(&hex(vector.enc)).expect("32 bytes"),
            &info,
        )
        .expect("sets up");
        for (index, expected) in vector.ciphertexts.into_iter().enumerate() {
            let aad = format!("Count-{index}");
            assert_eq!(sender.seal(&plaintext, aad.as_bytes()).expect("seals"), hex(expected));
            assert_eq!(receiver.open(&hex(expected), aad.as_bytes()).expect("opens"), plaintext);
        }
        for (context, expected) in [&b""[..], &b"\0"[..], &b"TestContext"[..]].into_iter().zip(vector.exports) {
            let mut exported = [0; 32];
            sender.export(context, &mut exported).expect("exports");
            assert_eq!(exported, hex32(expected));
            receiver.export(context, &mut exported).expect("exports");
            assert_eq!(exported, hex32(expected));
        }
    }
}

/// RFC 8439, section 2.8.2.
#[test]
fn rfc_8439_aead() {
    let key: [u8; 32] = std::array::from_fn(|i| 0x80 + i as u8);
    let aad = hex("50515253c0c1c2c3c4c5c6c7");
    let nonce = Nonce::try_from(hex("070000004041424344454647").as_slice()).expect("12 bytes");
    let mut buffer = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
        sunscreen would be it."
        .to_vec();
    let tag = ChaCha20Poly1305::new((&key).into())
        .encrypt_inout_detached(&nonce, &aad, InOutBuf::from(buffer.as_mut_slice()))
        .expect("encrypts");
    let expected = "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b\
        1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b\
        7a9de576d26586cec64b6116";
    assert_eq!(buffer, hex(expected));
    assert_eq!(tag.as_slice(), hex("1ae10b594f09e26a7e902ecbd0600691"));
}

/// RFC 7748, sections 5.2 and 6.1.
#[test]
fn rfc_7748_x25519() {
    let agree = |secret: &str, public: &str| {
        let shared = DhSecret::from_bytes(&hex32(secret)).agree(&PublicKey::new(hex32(public)));
        *shared.expect("not all zero")
    };
    for [secret, public, shared] in [
        [
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ],
        [
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ],
    ] {
        assert_eq!(agree(secret, public), hex32(shared));
    }

    let alice = DhSecret::from_bytes(&hex32("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
    let bob = DhSecret::from_bytes(&hex32("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
    let shared = hex32("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    assert_eq!(alice.public().as_bytes(), &hex32("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
    assert_eq!(*alice.agree(&bob.public()).expect("not all zero"), shared);
    assert_eq!(*bob.agree(&alice.public()).expect("not all zero"), shared);

    let (mut k, mut u) = ([0; 32], [0; 32]);
    (k[0], u[0]) = (9, 9);
    for round in 1..=1000 {
        let next = *DhSecret::from_bytes(&k).agree(&PublicKey::new(u)).expect("not all zero");
        (u, k) = (k, next);
        if round == 1 {
            assert_eq!(k, hex32("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"));
        }
    }
    assert_eq!(k, hex32("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"));
}

/// RFC 8032, section 7.1: tests 1, 2, 3 and SHA(abc) as seed, public key, message, signature.
const ED25519_VECTORS: [[&str; 4]; 4] = [
    [
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe2465\
         5141438e7a100b",
    ],
    [
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb0\
         0d291612bb0c00",
    ],
    [
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc0\
         27beceea1ec40a",
    ],
    [
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a\
         9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9\
         bef1177331a704",
    ],
];

#[test]
fn rfc_8032_ed25519() {
    for [seed, public, message, signature] in ED25519_VECTORS {
        let key = SigningKey::from_bytes(&hex32(seed));
        let signature = Signature::try_from(hex(signature).as_slice()).expect("64 bytes");
        assert_eq!(key.public().as_bytes(), &hex32(public));
        assert!(sign_bytes(&key, &hex(message)) == signature);
        assert_eq!(verify_bytes(&key.public(), &hex(message), &signature), Ok(()));
    }
}

/// The Ed25519 set has no "acceptable" vector: the strict profile agrees with every verdict.
#[test]
fn wycheproof_ed25519() {
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).expect("the set loads");
    let mut checked = 0;
    for group in set.test_groups {
        let key = PublicKey::try_from(group.key.pk.as_slice()).expect("32 bytes");
        for test in group.tests {
            let verified = Signature::try_from(test.sig.as_slice())
                .is_ok_and(|signature| verify_bytes(&key, &test.msg, &signature).is_ok());
            assert_ne!(test.result, TestResult::Acceptable, "test {}", test.tc_id);
            assert_eq!(verified, test.result == TestResult::Valid, "test {}: {}", test.tc_id, test.comment);
            checked += 1;
        }
    }
    assert_eq!(checked, 151);
}

/// Of the "acceptable" X25519 vectors we refuse exactly those with an all-zero result (flag `ZeroSharedSecret`, 31 of them, all of
/// small order), and refuse their public keys before they get that far. The others (points on the twist, non-canonical coordinates)
/// we take as RFC 7748 says.
#[test]
fn wycheproof_x25519() {
    let set = wycheproof::xdh::TestSet::load(wycheproof::xdh::TestName::X25519).expect("the set loads");
    let (mut checked, mut refused) = (0, 0);
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let secret = DhSecret::from_bytes(&test.private_key.as_slice().try_into().expect("32 bytes"));
        let public = PublicKey::try_from(test.public_key.as_slice()).expect("32 bytes");
        let shared = secret.agree(&public);
        if test.flags.contains(&wycheproof::xdh::TestFlag::ZeroSharedSecret) {
            assert_eq!(test.result, TestResult::Acceptable, "test {}", test.tc_id);
            assert!(shared.is_err() && check_dh_key(&public).is_err(), "test {}", test.tc_id);
            refused += 1;
        } else {
            assert_ne!(test.result, TestResult::Invalid, "test {}", test.tc_id);
            assert_eq!(shared.expect("not all zero").as_slice(), test.shared_secret.as_slice(), "test {}", test.tc_id);
            assert_eq!(check_dh_key(&public), Ok(()), "test {}", test.tc_id);
        }
        checked += 1;
    }
    assert_eq!((checked, refused), (518, 31));
}

#[test]
fn wycheproof_chacha20_poly1305() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::ChaCha20Poly1305).expect("the set loads");
    let mut checked = 0;
    for group in set.test_groups {
        for test in group.tests {
            let opened = (|| {
                let cipher = ChaCha20Poly1305::new_from_slice(&test.key).ok()?;
                let nonce = Nonce::try_from(test.nonce.as_slice()).ok()?;
                let tag = Tag::try_from(test.tag.as_slice()).ok()?;
                let mut buffer = test.ct.to_vec();
                cipher.decrypt_inout_detached(&nonce, &test.aad, InOutBuf::from(buffer.as_mut_slice()), &tag).ok()?;
                let mut sealed = buffer.clone();
                let again =
                    cipher.encrypt_inout_detached(&nonce, &test.aad, InOutBuf::from(sealed.as_mut_slice())).ok()?;
                assert!(sealed == test.ct.as_slice() && again == tag, "test {}", test.tc_id);
                Some(buffer)
            })();
            assert_ne!(test.result, TestResult::Acceptable, "test {}", test.tc_id);
            let expected = (test.result == TestResult::Valid).then(|| test.pt.to_vec());
            assert_eq!(opened, expected, "test {}: {}", test.tc_id, test.comment);
            checked += 1;
        }
    }
    assert_eq!(checked, 325);
}
