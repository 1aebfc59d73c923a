//! What the store is told from the config, said once for the node and for `martlet check`.

use std::path::PathBuf;

use martlet_storage::DbConfig;

use super::sections::{Durability, Storage};

/// Name of the database in the data directory.
const DATABASE_FILE: &str = "martlet.db";

impl Storage {
    /// The database's file.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.data_dir.join(DATABASE_FILE)
    }

    /// How to open the store. Its directory must exist.
    #[must_use]
    pub fn db_config(&self) -> DbConfig {
        let durability = match self.durability {
            Durability::Full => martlet_storage::Durability::Full,
            Durability::Normal => martlet_storage::Durability::Normal,
        };
        DbConfig { path: self.database(), durability, read_connections: self.read_connections, wait: self.wait }
    }
}
