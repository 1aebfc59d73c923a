//! The encryption of records: argon2id makes a key from the passphrase, which unwraps a random master key, from which HKDF-SHA256
//! derives one key for values (XChaCha20-Poly1305 under random nonces) and one that hides names (HMAC-SHA256).
//!
//! It hides what is written and to whom, not how many records there are, nor their sizes.

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use rand::{Rng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use martlet_protocol::id::Blob;

use super::{StoreError, Table};

const FORMAT: u32 = 1;
const NONCE_BYTES: usize = 24;
const HIDDEN_NAME_BYTES: usize = 16;
const WRAP_LABEL: &[u8] = b"martlet/v1/store master\0";
const VALUE_LABEL: &[u8] = b"martlet/v1/store value\0";
const NAME_LABEL: &[u8] = b"martlet/v1/store name\0";

/// What a guess at the passphrase costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KdfCost {
    /// Memory of argon2id in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub iterations: u32,
}

impl Default for KdfCost {
    /// 64 MiB and three passes: about a quarter of a second on a laptop.
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, iterations: 3 }
    }
}

/// What stands in the clear at the head of the file.
#[derive(Serialize, Deserialize)]
pub(super) struct Header {
    format: u32,
    cost: KdfCost,
    salt: Blob,
    nonce: Blob,
    wrapped_master: Blob,
}

/// The keys of an open file.
pub(super) struct Vault {
    values: XChaCha20Poly1305,
    names: Zeroizing<[u8; 32]>,
}

impl Vault {
    /// A new master key under the passphrase.
    pub(super) fn create(passphrase: &str, cost: KdfCost, rng: &mut StdRng) -> Result<(Header, Self), StoreError> {
        let mut salt = [0; 16];
        let mut nonce = [0; NONCE_BYTES];
        let mut master = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut salt);
        rng.fill_bytes(&mut nonce);
        rng.fill_bytes(master.as_mut_slice());
        let wrapped = XChaCha20Poly1305::new((&*stretch(passphrase, &salt, cost)?).into())
            .encrypt(&XNonce::from(nonce), Payload { msg: master.as_slice(), aad: WRAP_LABEL })
            .map_err(|_| StoreError::UnknownFormat)?;
        let header = Header {
            format: FORMAT,
            cost,
            salt: salt.to_vec().into(),
            nonce: nonce.to_vec().into(),
            wrapped_master: wrapped.into(),
        };
        Ok((header, Self::from_master(master.as_slice())?))
    }

    /// Opens with the passphrase.
    pub(super) fn open(header: &Header, passphrase: &str) -> Result<Self, StoreError> {
        if header.format != FORMAT {
            return Err(StoreError::UnknownFormat);
        }
        let key = stretch(passphrase, &header.salt.0, header.cost)?;
        let nonce = XNonce::try_from(header.nonce.0.as_ref()).map_err(|_| StoreError::UnknownFormat)?;
        let master = XChaCha20Poly1305::new((&*key).into())
            .decrypt(&nonce, Payload { msg: &header.wrapped_master.0, aad: WRAP_LABEL })
            .map(Zeroizing::new)
            .map_err(|_| StoreError::WrongPassphrase)?;
        Self::from_master(&master)
    }

    fn from_master(master: &[u8]) -> Result<Self, StoreError> {
        let hkdf = Hkdf::<Sha256>::new(None, master);
        let mut values = Zeroizing::new([0; 32]);
        let mut names = Zeroizing::new([0; 32]);
        hkdf.expand(VALUE_LABEL, values.as_mut_slice()).map_err(|_| StoreError::UnknownFormat)?;
        hkdf.expand(NAME_LABEL, names.as_mut_slice()).map_err(|_| StoreError::UnknownFormat)?;
        Ok(Self { values: XChaCha20Poly1305::new((&*values).into()), names })
    }

    /// The key under which a record rests: its table, then its number or its hidden name.
    pub(super) fn row_key(&self, table: Table, name: &[u8]) -> Vec<u8> {
        let mut key = vec![table as u8];
        if table.is_numbered() {
            key.extend_from_slice(name);
            return key;
        }
        let mut mac = Hmac::<Sha256>::new_from_slice(self.names.as_slice()).expect("HMAC takes keys of any length");
        mac.update(&[table as u8]);
        mac.update(name);
        key.extend_from_slice(&mac.finalize().into_bytes()[..HIDDEN_NAME_BYTES]);
        key
    }

    /// Encrypts a record for its row. Its true name lies inside, so that whole tables can be read back.
    pub(super) fn seal(
        &self,
        row_key: &[u8],
        name: &[u8],
        record: &[u8],
        rng: &mut StdRng,
    ) -> Result<Vec<u8>, StoreError> {
        let name_len = u16::try_from(name.len()).map_err(|_| StoreError::UnknownFormat)?;
        let mut plain = Zeroizing::new(Vec::with_capacity(2 + name.len() + record.len()));
        plain.extend_from_slice(&name_len.to_be_bytes());
        plain.extend_from_slice(name);
        plain.extend_from_slice(record);
        let mut nonce = [0; NONCE_BYTES];
        rng.fill_bytes(&mut nonce);
        let sealed = self
            .values
            .encrypt(&XNonce::from(nonce), Payload { msg: &plain, aad: &associated(row_key) })
            .map_err(|_| StoreError::UnknownFormat)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Decrypts what rests in a row: the true name and the record.
    pub(super) fn open_row(&self, row_key: &[u8], sealed: &[u8]) -> Option<(Vec<u8>, Zeroizing<Vec<u8>>)> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES)?;
        let plain = self
            .values
            .decrypt(&XNonce::try_from(nonce).ok()?, Payload { msg: sealed, aad: &associated(row_key) })
            .map(Zeroizing::new)
            .ok()?;
        let (name_len, rest) = plain.split_first_chunk::<2>()?;
        let (name, record) = rest.split_at_checked(usize::from(u16::from_be_bytes(*name_len)))?;
        Some((name.to_vec(), Zeroizing::new(record.to_vec())))
    }
}

fn associated(row_key: &[u8]) -> Vec<u8> {
    [VALUE_LABEL, row_key].concat()
}

fn stretch(passphrase: &str, salt: &[u8], cost: KdfCost) -> Result<Zeroizing<[u8; 32]>, StoreError> {
    let params = Params::new(cost.memory_kib, cost.iterations, 1, Some(32)).map_err(|_| StoreError::UnknownFormat)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, key.as_mut_slice())
        .map_err(|_| StoreError::UnknownFormat)?;
    Ok(key)
}
