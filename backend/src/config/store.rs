//! What the store is told from the config, said once for the node and for `martlet check`.

use std::path::PathBuf;

use martlet_storage::{DbConfig, Place};

use super::sections::{Config, Durability, Standbys, Storage};

/// Name of the database in the data directory.
const DATABASE_FILE: &str = "martlet.db";
/// Name of the secret in the data directory.
const SECRET_FILE: &str = "node.secret";

impl Storage {
    /// The embedded database's file.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.data_dir.join(DATABASE_FILE)
    }

    /// The file of the nodes' secret.
    #[must_use]
    pub fn secret(&self) -> PathBuf {
        self.secret_file.clone().unwrap_or_else(|| self.data_dir.join(SECRET_FILE))
    }

    /// Whether several nodes may share the store.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.database_url.is_some()
    }
}

impl Config {
    /// How to open the store. The directory of an embedded one must exist.
    #[must_use]
    pub fn db_config(&self) -> DbConfig {
        let storage = &self.storage;
        let place = match &storage.database_url {
            Some(url) => Place::Postgres { url: url.clone(), replicas: storage.replica_urls.clone() },
            None => Place::File(storage.database()),
        };
        let durability = match storage.durability {
            Durability::Full => martlet_storage::Durability::Full,
            Durability::Normal => martlet_storage::Durability::Normal,
        };
        let standbys = match storage.standbys {
            Standbys::MayLag => martlet_storage::Standbys::MayLag,
            Standbys::Synchronous => martlet_storage::Standbys::Synchronous,
        };
        DbConfig {
            place,
            durability,
            standbys,
            read_connections: storage.read_connections,
            write_connections: storage.write_connections,
            commit_connections: self.commit_writers(),
            wait: storage.wait,
            timeout: storage.timeout,
        }
    }

    /// How many threads commit sends.
    #[must_use]
    pub fn commit_writers(&self) -> usize {
        if self.storage.is_shared() { self.messages.commit_writers } else { 1 }
    }
}
