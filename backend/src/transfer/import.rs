//! Reading a folder into an empty PostgreSQL database or a new SQLite file: check the files, write page by page, then read everything back and compare.
//!
//! Rows and how far the import is are committed together, so it can be ended at any moment and run again.

use std::path::Path;

use martlet_storage::transfer::{Done, Table, Target};

use super::{
    Manifest, Moved, Progress, SECRET_FILE, TableSum, TransferError, hexadecimal,
    rows::{self, Reader, Sum},
};
use crate::{
    clock::{self, Clock},
    config::Config,
    secrets::Secrets,
};

/// What an import needs.
pub struct Import<'a> {
    /// Says where the database is, and where the secret belongs.
    pub config: &'a Config,
    /// The export.
    pub folder: &'a Path,
    /// Which weeks of contents are over.
    pub clock: &'a Clock,
    /// For the operator to watch.
    pub progress: &'a Progress,
    /// Ends with [`TransferError::Stopped`] after so many pages; for tests of what an interrupted import leaves behind.
    pub max_pages: u64,
}

/// Imports an export, or goes on with an import of it. At the end the database holds what was exported, row by row, and nodes may start.
///
/// # Errors
/// [`TransferError`]; no node serves from the database until an import of the same export has ended well.
pub fn import(import: &Import<'_>) -> Result<Moved, TransferError> {
    let Import { config, folder, .. } = import;
    let (manifest, hash) = Manifest::read_finished(folder)?;
    check_files(import, &manifest)?;
    let has_secret = place_secret(import, &manifest)?;
    let mut target = Target::open(&config.db_config(), &hash, import.clock.now_ms() / 1000)?;
    let own = target.schema()?;
    if own != manifest.schema {
        return Err(TransferError::OtherSchema { exported: manifest.schema, own, release: manifest.release });
    }
    let mut pages_left = import.max_pages;
    for (table, sum) in manifest.sums() {
        write_table(import, &mut target, table, sum, &mut pages_left)?;
    }
    for (table, sum) in manifest.sums() {
        if read_back(import, &mut target, table, sum)? != *sum {
            return Err(TransferError::Differs(table.name));
        }
    }
    target.finish()?;
    Ok(Moved { manifest, fingerprint: hexadecimal(&hash), has_secret })
}

/// Before anything is written.
fn check_files(import: &Import<'_>, manifest: &Manifest) -> Result<(), TransferError> {
    import.progress.begin("checking files", manifest.tables.iter().map(|sum| sum.bytes).sum());
    for (table, sum) in manifest.sums() {
        let path = rows::path(import.folder, table);
        if !rows::is_intact(&path, sum, |bytes| import.progress.add(bytes))? {
            return Err(TransferError::Damaged(path));
        }
    }
    import.progress.end();
    Ok(())
}

/// Copies the secret to where the node looks for it, unless it is there; false if there is none. A wrong one is refused, wherever it is.
fn place_secret(import: &Import<'_>, manifest: &Manifest) -> Result<bool, TransferError> {
    let store_id = manifest.store_id();
    let belongs = |path: &Path| {
        let belongs = hexadecimal(&Secrets::load(path)?.check(&store_id)) == manifest.secret_check;
        if belongs { Ok(()) } else { Err(TransferError::OtherSecret(path.to_owned())) }
    };
    let own = import.config.storage.secret();
    if manifest.has_secret && !own.exists() {
        let carried = import.folder.join(SECRET_FILE);
        belongs(&carried)?;
        Secrets::copy(&carried, &own, &mut clock::rng())?;
    }
    if own.exists() { belongs(&own).map(|()| true) } else { Ok(false) }
}

/// Writes what is missing of a table.
fn write_table(
    import: &Import<'_>,
    target: &mut Target,
    table: &'static Table,
    sum: &TableSum,
    pages_left: &mut u64,
) -> Result<(), TransferError> {
    let mut done = target.done(table)?;
    let mut file = Reader::open(import.folder, table, done.bytes)?;
    import.progress.begin(table.name, sum.rows);
    import.progress.add(done.rows);
    loop {
        let rows = file.page(table.page_rows)?;
        if rows.is_empty() {
            import.progress.end();
            return Ok(());
        }
        *pages_left = pages_left.checked_sub(1).ok_or(TransferError::Stopped)?;
        done = Done { rows: done.rows + rows.len() as u64, bytes: file.at() };
        target.write(table, &rows, done)?;
        import.progress.add(rows.len() as u64);
    }
}

/// Counts and hashes what the database holds.
fn read_back(
    import: &Import<'_>,
    target: &mut Target,
    table: &'static Table,
    expected: &TableSum,
) -> Result<TableSum, TransferError> {
    import.progress.begin("reading back", expected.rows);
    let mut sum = Sum::default();
    let mut rows = target.read(table, None)?;
    while let Some(last) = rows.last() {
        sum.add(&rows);
        import.progress.add(rows.len() as u64);
        rows = target.read(table, Some(&last[..table.key]))?;
    }
    import.progress.end();
    Ok(sum.of(table))
}
