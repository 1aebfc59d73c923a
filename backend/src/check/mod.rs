//! What `martlet check` tests: whether this machine can run the node that the config describes.
//!
//! It looks and changes nothing: what it makes to try something out (a file, a throw-away store, a listener) it removes. It says for
//! each finding what to do. Values that are wrong in themselves are refused earlier, when the config is loaded. [`watch`] goes on
//! looking while the node runs.

mod redis;
pub mod watch;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use martlet_storage::{Db, DbConfig, Place, SchemaState, StorageError};
use rustix::process::{Resource, getrlimit};

use crate::clock;
use crate::config::{Config, Durability, mib};
use crate::secrets::Secrets;

/// Less free space than this is a failure: the write-ahead log alone may take as much.
const SPACE_NEEDED_BYTES: u64 = mib(100) as u64;
/// Less free space than this is worth a warning.
const SPACE_WANTED_BYTES: u64 = mib(1024) as u64;
/// Descriptors the node needs beside those of its connections: store, listeners, log.
const DESCRIPTORS_BESIDE: u64 = 64;

/// How something was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Good,
    /// The node will run, but not as the operator may think. The text says what to do.
    Warning(String),
    /// The node will not run, or not keep its promises. The text says what to do.
    Failure(String),
}

/// One thing that was tested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was tested, in a word or two.
    pub subject: &'static str,
    /// What was found.
    pub found: String,
    /// How that is, and the fix if there is one.
    pub outcome: Outcome,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, fix) = match &self.outcome {
            Outcome::Good => ("ok", None),
            Outcome::Warning(fix) => ("warn", Some(fix)),
            Outcome::Failure(fix) => ("FAIL", Some(fix)),
        };
        write!(f, "{mark:<5} {:<18} {}", self.subject, self.found)?;
        fix.map_or(Ok(()), |fix| write!(f, "\n{:24} fix: {fix}", ""))
    }
}

impl Finding {
    /// Whether the node should not be started like this.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self.outcome, Outcome::Failure(_))
    }

    fn good(subject: &'static str, found: impl Into<String>) -> Self {
        Self { subject, found: found.into(), outcome: Outcome::Good }
    }

    fn warning(subject: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { subject, found: found.into(), outcome: Outcome::Warning(fix.into()) }
    }

    fn failure(subject: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { subject, found: found.into(), outcome: Outcome::Failure(fix.into()) }
    }
}

/// Tests everything the config points at.
#[must_use]
pub fn run(config: &Config) -> Vec<Finding> {
    let mut findings = vec![data_dir(config)];
    // Without a directory to write to there is nothing to find out about what lies in it.
    if !findings.iter().any(Finding::is_failure) {
        findings.extend(
            [privacy(config), space(config), durability(config), schema(config), secret(config)].into_iter().flatten(),
        );
    }
    findings.extend(redis::redis(config));
    findings.push(descriptors(config));
    findings.push(port("public listener", "listen", config.server.listen));
    findings.push(port("internal listener", "internal_listen", config.server.internal_listen));
    findings.extend(exposure(config));
    findings
}

/// The data directory, or the nearest path above it that exists: that is where it would be made.
fn existing(path: &Path) -> PathBuf {
    let above = path.ancestors().find(|above| above.exists()).unwrap_or(Path::new("."));
    if above.as_os_str().is_empty() { PathBuf::from(".") } else { above.to_owned() }
}

fn data_dir(config: &Config) -> Finding {
    let (subject, wanted) = ("data directory", &config.storage.data_dir);
    let folder = existing(wanted);
    let probe = folder.join(format!(".martlet-check-{}", std::process::id()));
    let written =
        File::create_new(&probe).and_then(|mut file| file.write_all(b"martlet").and_then(|()| file.sync_all()));
    let removed = if probe.exists() { fs::remove_file(&probe) } else { Ok(()) };
    match written.and(removed) {
        Ok(()) if folder == *wanted => Finding::good(subject, format!("{} can be written", wanted.display())),
        Ok(()) => Finding::good(subject, format!("{} will be made at the first start", wanted.display())),
        Err(error) => {
            let found = format!("{} can't be written: {error}", folder.display());
            Finding::failure(
                subject,
                found,
                "give the node's user that directory (chown), or set storage.data_dir to another",
            )
        }
    }
}

#[cfg(unix)]
fn privacy(config: &Config) -> Option<Finding> {
    use std::os::unix::fs::PermissionsExt;
    let folder = &config.storage.data_dir;
    let mode = fs::metadata(folder).ok()?.permissions().mode();
    let fix = || format!("chmod 700 {}", folder.display());
    let found = || format!("other users of this machine can look into {}", folder.display());
    (mode & 0o077 != 0).then(|| Finding::warning("privacy", found(), fix()))
}

#[cfg(not(unix))]
fn privacy(_config: &Config) -> Option<Finding> {
    None
}

fn space(config: &Config) -> Option<Finding> {
    let subject = "disk space";
    let folder = existing(&config.storage.data_dir);
    let free = match free_bytes(&folder) {
        Ok(free) => free,
        Err(error) => return Some(Finding::warning(subject, error.to_string(), "look at the file system's state")),
    };
    let found = format!("{} MiB free for {}", free >> 20, config.storage.data_dir.display());
    let fix = "free some, or set storage.data_dir to a larger disk";
    Some(match free {
        ..SPACE_NEEDED_BYTES => Finding::failure(subject, found, fix),
        SPACE_NEEDED_BYTES..SPACE_WANTED_BYTES => Finding::warning(subject, found, fix),
        _ => Finding::good(subject, found),
    })
}

/// What a file system has left for users who aren't root.
fn free_bytes(folder: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Opens a throw-away store where the real one lies, since it is the file system that may not be able to keep the promise.
fn durability(config: &Config) -> Option<Finding> {
    let subject = "durability";
    if config.storage.is_shared() {
        return None;
    }
    let folder = existing(&config.storage.data_dir).join(format!(".martlet-check-store-{}", std::process::id()));
    let opened = fs::create_dir(&folder).map_err(|error| error.to_string()).and_then(|()| {
        let db = DbConfig { place: Place::File(folder.join("check.db")), ..config.db_config() };
        Db::open(&db).map(drop).map_err(|error| error.to_string())
    });
    let removed = if folder.exists() { fs::remove_dir_all(&folder) } else { Ok(()) };
    let choice = config.storage.durability;
    Some(match opened.and(removed.map_err(|error| error.to_string())) {
        Err(error) => Finding::failure(
            subject,
            error,
            "set storage.data_dir to a local file system (no network share), with room and rights",
        ),
        Ok(()) if choice == Durability::Normal => Finding::warning(
            subject,
            "storage.durability is \"normal\": a power loss can take answered sends with it",
            "set storage.durability = \"full\", unless that is what you want",
        ),
        Ok(()) => Finding::good(subject, "commits reach the disk before they are answered"),
    })
}

fn schema(config: &Config) -> Option<Finding> {
    let subject = "store";
    let place = match &config.storage.database_url {
        Some(url) => url.to_string(),
        None => config.storage.database().display().to_string(),
    };
    if !config.storage.is_shared() && !config.storage.database().exists() {
        return Some(Finding::good(subject, format!("{place} will be made at the first start")));
    }
    Some(match Db::schema_state(&config.db_config()) {
        Ok(SchemaState { pending: 0, newer: 0 }) => {
            Finding::good(subject, format!("{place} has this release's schema"))
        }
        Ok(SchemaState { newer: 1.., .. }) => Finding::failure(
            subject,
            format!("{place} has migrations of a newer release"),
            "run that release, or restore the backup of before it",
        ),
        Ok(SchemaState { pending, .. }) => Finding::warning(
            subject,
            format!("{place} lacks {pending} migrations of this release"),
            "make a backup, then start the node or run `martlet migrate`: either runs them",
        ),
        Err(error) => Finding::failure(subject, error.reason(), store_fix(config, &error)),
    })
}

fn store_fix(config: &Config, error: &StorageError) -> &'static str {
    match error {
        _ if !config.storage.is_shared() => "restore the store from a backup, or see who else holds it",
        StorageError::Unavailable(_) => "start the database, or correct host and port in storage.database_url",
        StorageError::Open { .. } => "correct host, database, user and password in storage.database_url",
        StorageError::NotDurable { .. } => {
            "switch that setting on in postgresql.conf, or say storage.durability = \"normal\" if you want to lose messages with the power"
        }
        _ => "see what the database's log says",
    }
}

fn secret(config: &Config) -> Option<Finding> {
    let (subject, path) = ("secret", config.storage.secret());
    if !path.exists() && config.storage.is_shared() {
        let found = format!("{} is not there", path.display());
        let fix = "copy it from the cluster's first node; if this is the first, it will be made";
        return Some(Finding::warning(subject, found, fix));
    }
    if !path.exists() {
        return Some(if config.storage.database().exists() {
            let found = format!("{} is missing, but there is a store made with it", path.display());
            Finding::failure(subject, found, "restore it from a backup: without it no password is right any more")
        } else {
            Finding::good(subject, format!("{} will be made at the first start", path.display()))
        });
    }
    Some(match Secrets::load_or_create(&path, &mut clock::rng()) {
        Ok(_) => Finding::good(subject, format!("{} is there and private", path.display())),
        // These errors already say what to do.
        Err(error) => Finding::failure(subject, "can't be used", error.to_string()),
    })
}

fn descriptors(config: &Config) -> Finding {
    let subject = "open files";
    let wanted = config.server.max_connections as u64 + DESCRIPTORS_BESIDE;
    // The node raises its own soft limit as far as the hard one allows.
    match getrlimit(Resource::Nofile).maximum {
        Some(allowed) if allowed < wanted => Finding::warning(
            subject,
            format!("{allowed} are allowed: {} connections at most", allowed.saturating_sub(DESCRIPTORS_BESIDE)),
            format!(
                "allow {wanted} (LimitNOFILE= in systemd, ulimit -Hn), or set server.max_connections to {} or less",
                allowed.saturating_sub(DESCRIPTORS_BESIDE)
            ),
        ),
        _ => Finding::good(subject, format!("enough for {} connections", config.server.max_connections)),
    }
}

fn port(subject: &'static str, key: &str, address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::good(subject, format!("{address} is free")),
        Err(error) => {
            let fix = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    format!("stop what listens there (a running node?), or set server.{key} to another port")
                }
                io::ErrorKind::AddrNotAvailable => {
                    format!("set server.{key} to an address of this machine, or to 0.0.0.0")
                }
                io::ErrorKind::PermissionDenied => {
                    format!("set server.{key} to a port above 1023, with a proxy in front of it")
                }
                _ => format!("set server.{key} to an address this machine can listen on"),
            };
            Finding::failure(subject, format!("can't listen on {address}: {error}"), fix)
        }
    }
}

/// The internal listener trusts whoever reaches it.
fn exposure(config: &Config) -> Option<Finding> {
    let address = config.server.internal_listen;
    (!address.ip().is_loopback()).then(|| {
        let found = format!("{address} is open to other machines, and it asks for no token");
        Finding::warning(
            "internal listener",
            found,
            "set server.internal_listen to 127.0.0.1, or keep it behind a firewall",
        )
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn config(folder: &Path) -> Config {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut config = Config::default();
        config.storage.data_dir = folder.to_owned();
        (config.server.listen, config.server.internal_listen) = (free, free);
        config.server.max_connections = 100;
        config
    }

    fn found(config: &Config, subject: &str) -> Finding {
        let findings = run(config);
        let finding = findings.iter().find(|finding| finding.subject == subject && finding.outcome != Outcome::Good);
        finding
            .or_else(|| findings.iter().find(|finding| finding.subject == subject))
            .cloned()
            .expect("the subject is tested")
    }

    #[test]
    fn a_fresh_machine_is_fine_and_stays_untouched() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = config(&folder.path().join("not/yet/there"));
        let findings = run(&config);
        assert!(findings.iter().all(|finding| finding.outcome == Outcome::Good), "{findings:#?}");
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0, "nothing is left behind");
    }

    #[test]
    fn a_port_that_is_taken_is_named_with_its_key() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let mut config = config(folder.path());
        config.server.listen = taken.local_addr().expect("an address");
        let finding = found(&config, "public listener");
        assert!(finding.is_failure() && finding.to_string().contains("server.listen"), "{finding}");
    }

    #[test]
    fn less_than_asked_is_a_warning_with_a_fix() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = config(folder.path());
        config.server.max_connections = 100_000_000;
        config.storage.durability = Durability::Normal;
        config.server.internal_listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        for (subject, fix) in [
            ("open files", "server.max_connections"),
            ("durability", "storage.durability"),
            ("internal listener", "127.0.0.1"),
        ] {
            let finding = found(&config, subject);
            assert!(matches!(&finding.outcome, Outcome::Warning(text) if text.contains(fix)), "{finding}");
        }
    }

    #[test]
    fn a_store_is_looked_at_without_changing_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = config(folder.path());
        drop(Db::open(&config.db_config()).expect("a store"));
        assert_eq!(found(&config, "store").outcome, Outcome::Good);
        let lost = found(&config, "secret");
        assert!(lost.is_failure() && lost.to_string().contains("backup"), "{lost}");
        Secrets::load_or_create(&config.storage.secret(), &mut clock::rng()).expect("a secret");
        assert_eq!(found(&config, "secret").outcome, Outcome::Good);
        fs::write(config.storage.database(), "no database at all, but long enough to be taken for one".repeat(100))
            .expect("written");
        assert!(found(&config, "store").is_failure());
    }

    #[test]
    fn a_data_directory_under_a_file_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("written");
        let finding = found(&config(&file), "data directory");
        assert!(finding.is_failure(), "{finding}");
    }
}
