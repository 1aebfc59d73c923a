//! Who serves a store: one process, by a lock on a file beside it.
//!
//! SQLite lets several processes write in turn, so nothing else would stop a second node; but each of them would push only what it accepted
//! itself. The lock is the operating system's and ends with its process, however that ends. It is for whoever opens the store to serve it:
//! `martlet migrate`, `martlet check` and SQLite's own tools may look in beside a node, and `martlet export` has a lock of SQLite's.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;

use crate::db::StorageError;

/// The stores that this process serves, and how often each is open: the system's lock would keep a process from itself, too.
static HELD: Mutex<Vec<Held>> = Mutex::new(Vec::new());

struct Held {
    place: PathBuf,
    file: File,
    count: usize,
}

/// The right to serve a store; given back when dropped.
pub(super) struct Lock {
    place: PathBuf,
}

/// Takes the lock of the store at this path, whose folder is there.
///
/// # Errors
/// [`StorageError::Open`] if another process has it, or the file can't be made.
pub(super) fn take(path: &Path) -> Result<Lock, StorageError> {
    let refused = |reason: String| StorageError::Open { place: path.display().to_string(), reason };
    let no_file = |error: io::Error| refused(format!("its lock file can't be used: {error}"));
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = File::options().create(true).truncate(false).write(true).open(&name).map_err(no_file)?;
    let place = fs::canonicalize(&name).map_err(no_file)?;
    let mut all = HELD.lock();
    if let Some(held) = all.iter_mut().find(|held| held.place == place) {
        held.count += 1;
        return Ok(Lock { place });
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let fix = "another process serves this store; stop it or give this one its own storage.data_dir";
            return Err(refused(fix.to_owned()));
        }
        Err(TryLockError::Error(error)) => return Err(no_file(error)),
    }
    all.push(Held { place: place.clone(), file, count: 1 });
    Ok(Lock { place })
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut all = HELD.lock();
        let Some(index) = all.iter().position(|held| held.place == self.place) else { return };
        all[index].count -= 1;
        if all[index].count == 0 {
            // Closing the file would leave the lock to a child process that is just being started and has the file open still.
            if let Err(error) = all.swap_remove(index).file.unlock() {
                tracing::warn!(%error, "the store's lock could not be given back");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_serves_a_store_however_often_it_opens_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("martlet.db");
        // The lock is between open files, so another one stands for another process.
        let other = File::create(folder.path().join("martlet.db.lock")).expect("made");
        other.try_lock().expect("free");
        let refused = take(&path).err().expect("another process has it");
        assert!(refused.to_string().contains("its own storage.data_dir"), "{refused}");
        other.unlock().expect("given back");
        let (first, second) = (take(&path).expect("free"), take(&path).expect("this process has it"));
        drop(first);
        assert!(other.try_lock().is_err(), "it is open once still");
        drop(second);
        other.try_lock().expect("given back");
    }
}
