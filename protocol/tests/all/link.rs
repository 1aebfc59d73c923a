//! Linking: the server can neither swap the offer nor forge the answer.

use bytes::Bytes;
use martlet_protocol::{
    crypto::DhSecret,
    id::{LinkId, PublicKey},
    link::{LinkCode, LinkError, check_offer, open_answer, seal_answer},
    rest::SignedDeviceList,
    wire,
};
use prost::Message as _;
use rand_chacha::ChaCha20Rng;

use crate::world::{Account, Device, NOW_MS, rng, signed};

/// A new device has made its offer, and Alice's device has answered.
pub struct Linking {
    pub alice: Account,
    pub newcomer: Device,
    pub ephemeral: DhSecret,
    pub offer: Vec<u8>,
    pub code: LinkCode,
    pub answer: wire::LinkAnswer,
    pub sealed: Bytes,
}

impl Linking {
    pub fn new(rng: &mut ChaCha20Rng) -> Self {
        let (alice, newcomer, ephemeral) = (Account::new(rng), Device::new(rng), DhSecret::generate(rng));
        let offer = offer(&newcomer, &ephemeral.public()).encode_to_vec();
        let code = LinkCode::new(rng, LinkId::new([7; 16]), &offer);
        let checked = check_offer(&code, &offer).expect("a good offer");
        let list = alice.chain.list().with_device(checked.listed(NOW_MS), NOW_MS);
        let answer = wire::LinkAnswer {
            account_id: alice.id().to_wire(),
            username: "alice".to_owned(),
            lists: alice.lists.iter().map(Into::into).collect(),
            proposed: Some((&signed(&list, &[&alice.devices[0]])).into()),
        };
        let sealed = seal_answer(rng, &code, &checked, &answer).expect("a good offer");
        Self { alice, newcomer, ephemeral, offer, code, answer, sealed }
    }

    /// The proposed list with the new device's signature.
    pub fn complete(&self) -> SignedDeviceList {
        let proposed = self.answer.proposed.as_ref().expect("there").try_into().expect("readable");
        self.alice.chain.countersign(&proposed, &self.newcomer.id, &self.newcomer.signing).expect("a good proposal")
    }
}

fn offer(device: &Device, ephemeral: &PublicKey) -> wire::LinkOffer {
    wire::LinkOffer {
        device_id: device.id.to_wire(),
        signing_key: device.signing.public().to_wire(),
        mailbox_key: device.mailbox.public().to_wire(),
        suites: vec![1],
        ephemeral_key: ephemeral.to_wire(),
        name: "laptop".to_owned(),
        platform: "linux".to_owned(),
    }
}

#[test]
fn a_device_is_linked() {
    let linking = Linking::new(&mut rng(50));
    let answer = open_answer(&linking.code, &linking.ephemeral, &linking.sealed).expect("opens");
    assert_eq!(answer, linking.answer);
    let newcomer = &linking.newcomer;
    let complete = linking.complete();
    let chain = linking.alice.chain.extend(&complete).expect("a good list");
    assert_eq!(chain.device(&newcomer.id).map(|device| device.signing_key), Some(newcomer.signing.public()));
}

#[test]
fn a_code_survives_its_way_or_is_refused() {
    let linking = Linking::new(&mut rng(51));
    let text = linking.code.to_text();
    let read = LinkCode::from_text(&format!(" {} \n", *text)).expect("readable");
    assert_eq!((read.link_id, read.offer_hash), (linking.code.link_id, linking.code.offer_hash));
    assert!(open_answer(&read, &linking.ephemeral, &linking.sealed).is_ok());
    for bad in
        ["", "martlet-link-1.", &text[..text.len() - 1], &format!("{}A", *text), &text.replace("link-1", "link-2")]
    {
        assert_eq!(LinkCode::from_text(bad).err(), Some(LinkError::Code), "{bad}");
    }
}

#[test]
fn another_offer_is_refused() {
    let mut rng = rng(52);
    let linking = Linking::new(&mut rng);
    let swapped = offer(&Device::new(&mut rng), &linking.ephemeral.public()).encode_to_vec();
    assert_eq!(check_offer(&linking.code, &swapped), Err(LinkError::OfferMismatch));
    let newcomer = &linking.newcomer;
    let spoils: [fn(&mut wire::LinkOffer); 7] = [
        |offer| offer.suites.clear(),
        |offer| offer.suites = vec![0],
        |offer| offer.suites = vec![2, 1],
        |offer| offer.ephemeral_key = vec![0; 32].into(),
        |offer| offer.mailbox_key = vec![0; 32].into(),
        |offer| offer.signing_key = vec![0; 32].into(),
        |offer| offer.device_id.truncate(15),
    ];
    for spoil in spoils {
        let mut bad = offer(newcomer, &linking.ephemeral.public());
        spoil(&mut bad);
        let bytes = bad.encode_to_vec();
        let code = LinkCode::new(&mut rng, LinkId::new([7; 16]), &bytes);
        assert_eq!(check_offer(&code, &bytes), Err(LinkError::Offer));
    }
    let code = LinkCode::new(&mut rng, LinkId::new([7; 16]), &[0xff]);
    assert_eq!(check_offer(&code, &[0xff]), Err(LinkError::Offer));
}

/// The server knows the offer, and so the ephemeral key, but not the code's secret.
#[test]
fn an_answer_needs_the_codes_secret() {
    let mut rng = rng(53);
    let linking = Linking::new(&mut rng);
    let by_server = LinkCode::new(&mut rng, linking.code.link_id, &linking.offer);
    let offer = check_offer(&by_server, &linking.offer).expect("the same offer");
    let forged = seal_answer(&mut rng, &by_server, &offer, &linking.answer).expect("seals");
    let open = |code: &LinkCode, secret: &DhSecret, sealed: &[u8]| open_answer(code, secret, sealed).err();
    assert_eq!(open(&linking.code, &linking.ephemeral, &forged), Some(LinkError::Answer));
    assert_eq!(open(&by_server, &linking.ephemeral, &linking.sealed), Some(LinkError::Answer));
    let mut moved = linking.code.clone();
    moved.link_id = LinkId::new([8; 16]);
    assert_eq!(open(&moved, &linking.ephemeral, &linking.sealed), Some(LinkError::Answer), "another link");
    let other = DhSecret::generate(&mut rng);
    assert_eq!(open(&linking.code, &other, &linking.sealed), Some(LinkError::Answer), "another new device");
    let weak = wire::SealedLinkAnswer { enc: vec![0; 32].into(), ciphertext: vec![0; 80].into() };
    assert_eq!(open(&linking.code, &linking.ephemeral, &weak.encode_to_vec()), Some(LinkError::Answer));
}
