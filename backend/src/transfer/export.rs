//! Writing an embedded store into a folder. An export that was interrupted begins anew: the node may have served in between.

use std::{fs, io, path::Path};

use martlet_storage::transfer::{Source, TABLES, Table};

use super::{
    Manifest, Moved, Progress, SECRET_FILE, TableSum, TransferError, at,
    manifest::remove,
    rows::{self, Writer},
};
use crate::{
    clock::{self, Clock},
    config::Config,
    secrets::Secrets,
};

/// Writes everything that the config's embedded deployment keeps into a folder: every table, and with `with_secret` the secret beside
/// them. The store is closed to every other process meanwhile, and is not changed.
///
/// # Errors
/// [`TransferError`]; the folder's manifest then says that it is unfinished, and the next export may use it.
pub fn export(
    config: &Config,
    folder: &Path,
    with_secret: bool,
    clock: &Clock,
    progress: &Progress,
) -> Result<Moved, TransferError> {
    let mut source = Source::open(&config.db_config())?;
    let secret = config.storage.secret();
    let own = Secrets::load(&secret)?;
    let mut facts = source.facts()?;
    let check = own.check(&facts.store_id);
    // A store without this value would take whatever secret the first node of the cluster makes.
    let bound = match facts.secret_check.take() {
        Some(bound) => bound,
        None => {
            source.bind_secret(&check)?;
            check.to_vec()
        }
    };
    if bound != check {
        return Err(TransferError::OtherSecret(secret));
    }
    prepare(folder)?;
    let mut manifest = Manifest::begin(facts.schema, &facts.store_id, facts.epoch, &check, clock.now_ms());
    manifest.write(folder)?;
    for table in TABLES {
        manifest.tables.push(write_table(&mut source, folder, table, progress)?);
    }
    source.close()?;
    if with_secret {
        Secrets::copy(&secret, &folder.join(SECRET_FILE), &mut clock::rng())?;
        manifest.has_secret = true;
    }
    manifest.complete = true;
    let fingerprint = manifest.write(folder)?;
    Ok(Moved { manifest, fingerprint, has_secret: with_secret })
}

/// Makes the folder, for this user alone, or clears what an unfinished export left there, and nothing else.
fn prepare(folder: &Path) -> Result<(), TransferError> {
    match Manifest::read(folder)? {
        Some((manifest, _)) if manifest.complete => return Err(TransferError::AlreadyExported(folder.to_owned())),
        Some(_) => {
            let tables = TABLES.iter().map(|table| rows::path(folder, table));
            let secret = std::iter::once(folder.join(SECRET_FILE));
            Manifest::files(folder).into_iter().chain(secret).chain(tables).try_for_each(|path| remove(&path))?;
        }
        None => {}
    }
    let is_empty = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(at(folder)(error)),
    };
    if !is_empty {
        return Err(TransferError::Occupied(folder.to_owned()));
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(at(folder))
}

fn write_table(
    source: &mut Source,
    folder: &Path,
    table: &'static Table,
    progress: &Progress,
) -> Result<TableSum, TransferError> {
    let mut file = Writer::create(folder, table)?;
    progress.begin(table.name, source.count(table)?);
    let mut rows = source.read(table, None)?;
    while let Some(last) = rows.last() {
        file.add(&rows)?;
        progress.add(rows.len() as u64);
        rows = source.read(table, Some(&last[..table.key]))?;
    }
    progress.end();
    file.finish(table)
}
