//! What the node knows and its database does not: one random secret in a file of its own, and the keys derived from it.
//!
//! A copy of the database alone therefore can't be used to guess passwords (pepper), to find a message's sender by its
//! `client_message_id` (idempotency key) or to read stored answers (answer key), and whoever holds Redis can't forge what nodes tell each
//! other (relay key; nodes of a cluster share the file). Nothing here opens message content.
//! Losing the file makes every password and every stored answer useless, so it belongs into the same backup plan, in another place.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use martlet_protocol::id::{from_base64, to_base64};
use rand::CryptoRng;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const SECRET_LEN: usize = 32;

/// Why the secret could not be had. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The file could not be read or made.
    #[error("{path}: {source}; the node must be able to read and write its data directory")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// There is no file, but a store that was made with one: a new secret would make every password and stored answer useless.
    #[error(
        "{path} is missing, but there is a store that was made with it; copy it from another node, or restore it from a backup"
    )]
    Missing {
        /// Which file.
        path: PathBuf,
    },
    /// The file is there but does not hold a secret.
    #[error("{path} does not hold a node secret (one line of base64, {SECRET_LEN} bytes); restore it from a backup")]
    Unreadable {
        /// Which file.
        path: PathBuf,
    },
    /// Other users of the machine could read it.
    #[error("{path} can be read by other users of this machine; run: chmod 600 {path}")]
    TooOpen {
        /// Which file.
        path: PathBuf,
    },
}

/// Keys derived from the node's secret. No `Debug`, wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secrets {
    pepper: [u8; SECRET_LEN],
    idempotency_key: [u8; SECRET_LEN],
    answer_key: [u8; SECRET_LEN],
    relay_key: [u8; SECRET_LEN],
    check_key: [u8; SECRET_LEN],
}

impl Secrets {
    /// Reads the secret's file, or makes it at the first start. Of several nodes that start at once with one file, one makes it.
    ///
    /// # Errors
    /// [`SecretsError`] if the file can't be read or written, is not a secret, or lies open to others.
    pub fn load_or_create(path: &Path, rng: &mut impl CryptoRng) -> Result<Self, SecretsError> {
        match Self::load(path) {
            Err(SecretsError::Missing { path }) => {
                let in_path = |source| SecretsError::Io { path: path.clone(), source };
                let mut secret = Zeroizing::new([0; SECRET_LEN]);
                rng.fill_bytes(secret.as_mut_slice());
                let folder = folder_of(&path);
                create_dir(folder).map_err(in_path)?;
                match write_new(folder, &path, &secret, rng.next_u64()) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::load(&path),
                    written => written.map_err(in_path).map(|()| Self::derive(&secret)),
                }
            }
            read => read,
        }
    }

    /// Copies the secret's file to where there is none, as private and as durable as a new one. What is there already stays.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn copy(from: &Path, to: &Path, rng: &mut impl CryptoRng) -> Result<(), SecretsError> {
        refuse_open_file(from)?;
        let text = Zeroizing::new(
            fs::read_to_string(from).map_err(|source| SecretsError::Io { path: from.to_owned(), source })?,
        );
        let secret = parse(&text).ok_or_else(|| SecretsError::Unreadable { path: from.to_owned() })?;
        let folder = folder_of(to);
        match create_dir(folder).and_then(|()| write_new(folder, to, &secret, rng.next_u64())) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(SecretsError::Io { path: to.to_owned(), source: error })
            }
            _ => Ok(()),
        }
    }

    /// Reads the secret's file, for a store that was made with it.
    ///
    /// # Errors
    /// As [`Self::load_or_create`], and [`SecretsError::Missing`].
    pub fn load(path: &Path) -> Result<Self, SecretsError> {
        let path = path.to_owned();
        match fs::read_to_string(&path) {
            Ok(text) => {
                refuse_open_file(&path)?;
                let secret =
                    parse(&Zeroizing::new(text)).ok_or_else(|| SecretsError::Unreadable { path: path.clone() })?;
                Ok(Self::derive(&secret))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SecretsError::Missing { path }),
            Err(source) => Err(SecretsError::Io { path, source }),
        }
    }

    /// From a secret that is at hand.
    #[must_use]
    pub fn derive(secret: &[u8; SECRET_LEN]) -> Self {
        let hkdf = Hkdf::<Sha256>::new(None, secret);
        let key = |info: &str| {
            let mut key = [0; SECRET_LEN];
            // Only a length over 255 blocks is refused, and this is one.
            if hkdf.expand(info.as_bytes(), &mut key).is_err() {
                unreachable!("one block of HKDF output is never too long");
            }
            key
        };
        Self {
            pepper: key("martlet/v1/password pepper\0"),
            idempotency_key: key("martlet/v1/idempotency key\0"),
            answer_key: key("martlet/v1/answer key\0"),
            relay_key: key("martlet/v1/relay key\0"),
            check_key: key("martlet/v1/secret check\0"),
        }
    }

    /// Mixed into every password hash.
    #[must_use]
    pub fn pepper(&self) -> &[u8; SECRET_LEN] {
        &self.pepper
    }

    /// MACs device and `client_message_id` into the idempotency row's key.
    #[must_use]
    pub fn idempotency_key(&self) -> &[u8; SECRET_LEN] {
        &self.idempotency_key
    }

    /// Seals the answer that a retried send gets.
    #[must_use]
    pub fn answer_key(&self) -> &[u8; SECRET_LEN] {
        &self.answer_key
    }

    /// What tells a store's secret from another one, without giving anything of it away: `HMAC-SHA256(check key, store_id)`.
    #[must_use]
    pub fn check(&self, store_id: &[u8]) -> [u8; SECRET_LEN] {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.check_key) else {
            unreachable!("HMAC takes keys of any length")
        };
        mac.update(store_id);
        mac.finalize().into_bytes().into()
    }

    /// MACs what nodes tell each other.
    #[must_use]
    pub fn relay_key(&self) -> &[u8; SECRET_LEN] {
        &self.relay_key
    }
}

fn parse(text: &str) -> Option<Zeroizing<[u8; SECRET_LEN]>> {
    let bytes = Zeroizing::new(from_base64(text.trim()).ok()?);
    Some(Zeroizing::new(bytes.as_slice().try_into().ok()?))
}

/// For the node's user alone: the database will lie there too.
fn create_dir(data_dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(data_dir)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Durable before it is used: a secret lost with the power would take every password with it. It appears whole or not at all, and never
/// in the place of another.
fn write_new(folder: &Path, path: &Path, secret: &[u8; SECRET_LEN], draft: u64) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let line = Zeroizing::new(format!("{}\n", to_base64(secret)));
    let draft = folder.join(format!(".node.secret-{draft:016x}"));
    let mut file = options.open(&draft)?;
    let linked =
        file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    linked?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(unix)]
fn refuse_open_file(path: &Path) -> Result<(), SecretsError> {
    use std::os::unix::fs::PermissionsExt as _;
    let meta = fs::metadata(path).map_err(|source| SecretsError::Io { path: path.to_owned(), source })?;
    if meta.permissions().mode() & 0o077 == 0 { Ok(()) } else { Err(SecretsError::TooOpen { path: path.to_owned() }) }
}

#[cfg(not(unix))]
fn refuse_open_file(_path: &Path) -> Result<(), SecretsError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "node.secret";

    #[test]
    fn nodes_that_start_at_once_agree_on_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("shared").join(FILE);
        let start = || *Secrets::load_or_create(&path, &mut crate::clock::rng()).expect("a secret").pepper();
        let all: Vec<_> = std::thread::scope(|scope| {
            let nodes: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            nodes.into_iter().map(|node| node.join().expect("started")).collect()
        });
        assert!(all.iter().all(|pepper| *pepper == all[0]));
        assert_eq!(fs::read_dir(dir.path().join("shared")).expect("there").count(), 1, "no draft is left");
    }

    #[test]
    fn the_secret_is_made_once_and_read_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = Secrets::load_or_create(&dir.path().join(FILE), &mut crate::clock::rng()).expect("made");
        let second = Secrets::load_or_create(&dir.path().join(FILE), &mut crate::clock::rng()).expect("read");
        assert_eq!(first.pepper(), second.pepper());
        assert_ne!(first.pepper(), first.idempotency_key());
        assert_ne!(first.idempotency_key(), first.answer_key());
        assert_ne!(first.answer_key(), first.relay_key());
    }

    #[test]
    fn a_damaged_file_is_refused_not_replaced() {
        let dir = tempfile::tempdir().expect("a folder");
        Secrets::load_or_create(&dir.path().join(FILE), &mut crate::clock::rng()).expect("made");
        fs::write(dir.path().join(FILE), "not a secret").expect("written");
        let refused = Secrets::load_or_create(&dir.path().join(FILE), &mut crate::clock::rng());
        assert!(matches!(refused, Err(SecretsError::Unreadable { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a folder");
        Secrets::load_or_create(&dir.path().join(FILE), &mut crate::clock::rng()).expect("made");
        let path = dir.path().join(FILE);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("opened");
        let refused = Secrets::load_or_create(&dir.path().join(FILE), &mut crate::clock::rng());
        assert!(matches!(refused, Err(SecretsError::TooOpen { .. })));
    }
}
