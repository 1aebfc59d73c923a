//! The node's files as a thief gets them: copied while the node stands still, opened elsewhere.

mod search;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use diesel::{
    Connection as _, QueryableByName, RunQueryDsl as _, SqliteConnection,
    sql_types::{BigInt, Binary, Nullable},
};

pub use search::{Haystack, writings};

use crate::{node::Node, scene::Scene};

/// A copy of the data directory.
pub struct StolenCopy {
    folder: PathBuf,
    database: SqliteConnection,
}

/// A row of up to three numbers and some bytes; a query names its columns `a`, `b`, `c` and `bytes`.
#[derive(Debug, Clone, QueryableByName)]
pub struct Row {
    /// First.
    #[diesel(sql_type = BigInt)]
    pub a: i64,
    /// Second.
    #[diesel(sql_type = BigInt)]
    pub b: i64,
    /// Third.
    #[diesel(sql_type = BigInt)]
    pub c: i64,
    /// Bytes, if any.
    #[diesel(sql_type = Nullable<Binary>)]
    pub bytes: Option<Vec<u8>>,
}

impl StolenCopy {
    /// Stops the node for a moment and copies its files.
    ///
    /// # Errors
    /// The node does not run, or the files can't be read.
    pub fn take(scene: &Scene, node: &Node) -> Result<Self> {
        node.pause()?;
        let folder = scene.folder().join("stolen");
        let copied = copy(node.data_dir(), &folder);
        node.unpause()?;
        copied?;
        let database = folder.join("martlet.db");
        let database = SqliteConnection::establish(database.to_str().context("a path that is text")?)?;
        Ok(Self { folder, database })
    }

    /// Where the files lie.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Asks the copy. Columns that are not asked for are zero.
    ///
    /// # Errors
    /// The query is wrong.
    pub fn rows(&mut self, a: &str, b: &str, c: &str, bytes: &str, from: &str) -> Result<Vec<Row>> {
        let query = format!("SELECT {a} AS a, {b} AS b, {c} AS c, {bytes} AS bytes FROM {from}");
        Ok(diesel::sql_query(query).load(&mut self.database)?)
    }

    /// One number.
    ///
    /// # Errors
    /// The query is wrong.
    pub fn number(&mut self, expression: &str, from: &str) -> Result<i64> {
        let rows = self.rows(expression, "0", "0", "NULL", from)?;
        Ok(rows.first().context("no row")?.a)
    }

    /// The node's small number for a device.
    ///
    /// # Errors
    /// There is no such device.
    pub fn device_key(&mut self, device: &martlet_protocol::id::DeviceId) -> Result<i64> {
        let hex: String = device.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        self.number("device_key", &format!("devices WHERE device_id = x'{hex}'"))
    }
}

/// The shared index of the log is left out: whoever opens the copy makes it anew.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_file() && !name.to_string_lossy().ends_with("-shm") {
            std::fs::copy(entry.path(), to.join(name))?;
        }
    }
    Ok(())
}
