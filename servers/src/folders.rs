//! Who a server runs as, and that it can reach its folder; where the programs are.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::geteuid;

/// A user and its group, as the system numbers them.
#[derive(Debug, Clone, Copy)]
pub struct User {
    /// Of the user.
    pub uid: u32,
    /// Of its first group.
    pub gid: u32,
}

/// The user that a server must run as because it refuses to be root; `None` if this process isn't root.
///
/// # Errors
/// There is no such user.
pub fn unprivileged(name: &str) -> Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let number = |flag: &str| -> Result<u32> {
        let output = Command::new("id").args([flag, name]).output().context("can't run id")?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().parse().with_context(|| format!("there is no user {name}"))
    };
    Ok(Some(User { uid: number("-u")?, gid: number("-g")? }))
}

/// Makes a folder, its owner's alone.
///
/// # Errors
/// It can't be made, or the user can't get to it.
pub fn make(folder: &Path, owner: Option<User>) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    let folder = folder.canonicalize()?;
    if let Some(User { uid, gid }) = owner {
        chown(&folder, Some(uid), Some(gid))?;
        open_the_way(&folder)?;
    }
    Ok(folder)
}

/// Lets others pass through (not read) the folders above one. Only folders of ours in the system's place for temporary ones are
/// changed: those are made closed, and hold nothing but what a test put there.
///
/// # Errors
/// Some other folder is closed to others.
pub fn open_the_way(folder: &Path) -> Result<()> {
    const PASS: u32 = 0o001;
    let temporary = std::env::temp_dir().canonicalize()?;
    for above in folder.ancestors().skip(1) {
        let metadata = fs::metadata(above)?;
        let mode = metadata.permissions().mode();
        if mode & PASS != 0 {
            continue;
        }
        if above == temporary || !above.starts_with(&temporary) || metadata.uid() != geteuid().as_raw() {
            bail!(
                "{} is closed to other users, and a server that can't run as root must pass through it",
                above.display()
            );
        }
        fs::set_permissions(above, fs::Permissions::from_mode(mode | PASS))?;
    }
    Ok(())
}

/// Where a program is: on the path, or where administrators' programs are, which not every user's path names.
///
/// # Errors
/// It is not installed; the message names the Debian package.
pub fn program(name: &str, package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from));
    folders
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .with_context(|| format!("{name} is not installed (Debian package {package}; cargo xtask test installs it)"))
}
