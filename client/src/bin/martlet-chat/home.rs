//! A device's folder: the store's file, the passphrase, what is asked for on the terminal.

use std::{
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use martlet_client::{
    Client, Clock,
    client::Options,
    store::{KdfCost, Store},
    system_rng,
};
use zeroize::Zeroizing;

use crate::args::Place;

const STORE_FILE: &str = "device.store";

impl Place {
    /// The folder that was named, or the usual one.
    pub fn folder(&self) -> anyhow::Result<PathBuf> {
        if let Some(home) = &self.home {
            return Ok(home.clone());
        }
        let user = std::env::home_dir().context("there is no home folder here; name one with --home")?;
        Ok(user.join(".martlet-chat"))
    }

    /// For register and link, which make the device.
    pub fn new_device(&self) -> anyhow::Result<Options> {
        let Some(server) = self.server.clone() else {
            bail!("name the server with --server, for example --server http://127.0.0.1:8080");
        };
        let folder = self.folder()?;
        let is_new = !store_path(&folder).exists();
        let passphrase = passphrase(is_new)?;
        Ok(Options { server, store: open_store(&folder, &passphrase)?, clock: Clock::System, rng: system_rng() })
    }

    /// For everything else.
    pub fn open(&self) -> anyhow::Result<Client> {
        let folder = self.folder()?;
        if !store_path(&folder).exists() {
            bail!("there is no device in {}; register, link, or name another folder with --home", folder.display());
        }
        let store = open_store(&folder, &passphrase(false)?)?;
        Ok(match &self.server {
            Some(server) => Client::open_at(server, store, Clock::System, system_rng())?,
            None => Client::open(store, Clock::System, system_rng())?,
        })
    }
}

/// Where a folder keeps its device.
pub fn store_path(folder: &Path) -> PathBuf {
    folder.join(STORE_FILE)
}

fn open_store(folder: &Path, passphrase: &str) -> anyhow::Result<Store> {
    let path = store_path(folder);
    Store::file(&path, passphrase, KdfCost::default(), &mut system_rng())
        .with_context(|| format!("could not open {}", path.display()))
}

fn passphrase(is_new: bool) -> anyhow::Result<Zeroizing<String>> {
    if let Ok(passphrase) = std::env::var("MARTLET_PASSPHRASE") {
        return Ok(passphrase.into());
    }
    if !is_new {
        return ask("Passphrase of this device: ", "MARTLET_PASSPHRASE");
    }
    let first = ask("New passphrase for this device's keys and messages: ", "MARTLET_PASSPHRASE")?;
    if *ask("Once more: ", "MARTLET_PASSPHRASE")? != *first {
        bail!("the two passphrases differ; try again");
    }
    Ok(first)
}

/// The account's password.
pub fn password() -> anyhow::Result<Zeroizing<String>> {
    match std::env::var("MARTLET_PASSWORD") {
        Ok(password) => Ok(password.into()),
        Err(_) => ask("Password of the account: ", "MARTLET_PASSWORD"),
    }
}

fn ask(prompt: &str, variable: &str) -> anyhow::Result<Zeroizing<String>> {
    if !std::io::stdin().is_terminal() {
        bail!("there is no terminal to ask on; set {variable}");
    }
    Ok(rpassword::prompt_password(prompt)?.into())
}

/// Asks for a yes.
pub fn confirm(question: &str) -> bool {
    print!("{question} [y/N] ");
    let mut answer = String::new();
    let asked = std::io::stdout().flush().and_then(|()| std::io::stdin().read_line(&mut answer));
    asked.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}
