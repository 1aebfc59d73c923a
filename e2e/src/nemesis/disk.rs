//! A small disk in memory for PostgreSQL, to be filled and freed.
//!
//! It is mounted in a namespace of this process alone ([`in_own_namespace`]), so that it goes with the process, however that ends.

use std::{
    fs::File,
    io::{ErrorKind, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

/// Room for PostgreSQL's own files, its log, and the mailboxes of a run.
const SIZE_MIB: u32 = 768;
/// Says to the process that it was started in a namespace of its own.
const NAMESPACE: &str = "MARTLET_NEMESIS_NAMESPACE";
/// What is written at once.
const CHUNK_BYTES: usize = 1 << 20;

/// A mounted disk.
pub struct Disk {
    folder: PathBuf,
}

/// Becomes the same program in a mount namespace of its own. Returns if this is it already, or if the system doesn't allow it; then no
/// disk will be mounted.
pub fn in_own_namespace() {
    if std::env::var_os(NAMESPACE).is_some() || !rustix::process::geteuid().is_root() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let allowed = Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
    if allowed {
        let error = Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .arg(program)
            .args(std::env::args_os().skip(1))
            .env(NAMESPACE, "1")
            .exec();
        println!("no namespace: {error}");
    }
}

impl Disk {
    /// Mounts one on a new folder.
    ///
    /// # Errors
    /// Not in a namespace of its own, or the system does not allow it.
    pub fn mount(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        ensure!(std::env::var_os(NAMESPACE).is_some(), "only root, with the program unshare, can mount a disk for it");
        let size = format!("size={SIZE_MIB}m,mode=0755");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder);
        let status = mount.status().context("mount can't be started")?;
        ensure!(status.success(), "a disk can't be mounted: {status}");
        Ok(Self { folder: folder.to_owned() })
    }

    /// Takes every byte that is left.
    ///
    /// # Errors
    /// Another error than that it is full.
    pub fn fill(&self) -> Result<()> {
        let (mut file, chunk) = (File::create(self.filler())?, vec![0; CHUNK_BYTES]);
        loop {
            match file.write_all(&chunk) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("the disk can't be filled"),
            }
        }
    }

    /// Gives the bytes back.
    ///
    /// # Errors
    /// It was not filled.
    pub fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.filler())?)
    }

    /// Where the filling goes.
    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, for whoever is still about to leave it. What fails here goes with the namespace.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.folder).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            println!("{} could not be unmounted", self.folder.display());
        }
    }
}
