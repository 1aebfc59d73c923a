//! Accounts by the million, without registering them: an archive as `martlet export` writes it, for `martlet import`.
//!
//! In reading order: [`people`] (who is who; tokens follow from a seed), [`rows`] (the archive's format), [`template`] (how a node stores
//! an account, learnt from a node), [`log`] (the membership chain of a large conversation).
//!
//! Keys, lists, prekeys and links are real and signed. Only passwords are not hashed one by one: all have the template's hash and password.

mod args;
mod log;
pub mod people;
mod rows;
mod template;

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt as _,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use martlet_protocol::{chain::members::Member, id::Hash};
use serde_json::{Value as Json, json};

use crate::{ambient, figures::grouped, progress::Progress};
pub use args::{PeopleArgs, PopulationArgs};
use log::Log;
use people::People;
use rows::{Sum, Writer};
use template::{CONVERSATIONS, LINKS, LOG_HEADS, MEMBERS, OF_ACCOUNT, TOKENS, Template};

const MANIFEST: &str = "manifest.json";
const SECRET: &str = "node.secret";

/// Writes the archive.
///
/// # Errors
/// When the template can't be had, or the folder can't be written.
pub fn run(args: &PopulationArgs) -> Result<()> {
    let people = args.people.people()?;
    ensure!(!args.out.exists(), "{} is there already; name a new folder", args.out.display());
    let template = Template::take(&args.node)?;
    DirBuilder::new().recursive(true).mode(0o700).create(&args.out).context("the folder can't be made")?;
    let since = ambient::now();
    let progress = Progress::new("making accounts", people.accounts.into());
    let mut archive = Archive::create(&args.out, template)?;
    for log in 0..people.logs {
        archive.add(people, log, &progress)?;
    }
    archive.finish(people, &args.out)?;
    let seconds = since.elapsed().as_secs_f64();
    progress.done(&format!("{} in {} logs in {seconds:.1} s", grouped(people.accounts.into()), people.logs));
    Ok(())
}

/// The files under way.
struct Archive {
    template: Template,
    of_account: Vec<Writer>,
    conversations: Writer,
    links: Writer,
    members: Writer,
    log_heads: Writer,
    now_ms: u64,
}

impl Archive {
    fn create(folder: &Path, template: Template) -> Result<Self> {
        let writer = |(table, columns)| Writer::create(folder, table, columns);
        Ok(Self {
            template,
            of_account: OF_ACCOUNT.into_iter().map(writer).collect::<Result<_>>()?,
            conversations: writer(CONVERSATIONS)?,
            links: writer(LINKS)?,
            members: writer(MEMBERS)?,
            log_heads: writer(LOG_HEADS)?,
            now_ms: ambient::unix_ms(),
        })
    }

    /// A log and all its members. Of those only what the log's chain names stays in memory, 64 bytes each, until the log is written.
    fn add(&mut self, people: People, log: u32, progress: &Progress) -> Result<()> {
        let members = people.members(log);
        let owner = self.account(people, members.start)?;
        progress.one();
        let others = members.clone().skip(1).map(|account| {
            progress.one();
            Ok(Log::plain(&self.account(people, account)?))
        });
        let others = others.collect::<Result<Vec<Member>>>()?;
        let chain = Log::make(&owner, others, self.now_ms, &mut people.log(log))?;
        let (key, first_key) = (log + 1, members.start + 1);
        self.conversations.add(&self.template.conversation(key, &chain))?;
        self.log_heads.add(&self.template.log_head(key))?;
        Template::links(key, &chain).iter().try_for_each(|row| self.links.add(row))?;
        for ((at, member), account_key) in chain.members.iter().enumerate().zip(first_key..) {
            self.members.add(&self.template.member(key, account_key, member, Log::joined_m(at)))?;
        }
        Ok(())
    }

    /// Makes an account and writes its rows.
    fn account(&mut self, people: People, number: u32) -> Result<martlet_client::identity::NewAccount> {
        let username = people.username(number);
        let account = template::new_account(&username, self.now_ms, &mut people.keys(number))?;
        for (file, row) in self.of_account.iter_mut().zip(self.template.account(number + 1, &account)) {
            file.add(&row)?;
        }
        Ok(account)
    }

    /// Ends the files, writes the tokens in their order, and the manifest last.
    fn finish(self, people: People, folder: &Path) -> Result<()> {
        let mut sums = vec![write_tokens(&self.template, people, folder)?];
        let others = [self.conversations, self.links, self.members, self.log_heads];
        for file in self.of_account.into_iter().chain(others) {
            sums.push(file.finish()?);
        }
        let exported = &self.template.folder;
        fs::copy(exported.join(SECRET), folder.join(SECRET)).context("the secret can't be copied")?;
        let text = fs::read(exported.join(MANIFEST)).context("the template has no manifest")?;
        let mut manifest: Json = serde_json::from_slice(&text)?;
        let tables = manifest["tables"].as_array_mut().context("the manifest has no tables")?;
        for table in tables {
            let name = table["table"].as_str().context("a table without a name")?;
            if let Some(sum) = sums.iter().find(|sum| sum.table == name) {
                *table = serde_json::to_value(sum)?;
            } else if Template::is_kept(name, table["rows"].as_u64().unwrap_or(0))? {
                let file = format!("{name}.rows");
                fs::copy(exported.join(&file), folder.join(&file)).context(file)?;
            }
        }
        manifest["exported_at_ms"] = json!(self.now_ms);
        Ok(fs::write(folder.join(MANIFEST), serde_json::to_string_pretty(&manifest)? + "\n")?)
    }
}

/// Tables go in the order of their keys, and a token's key is its hash: 36 bytes per account are sorted in memory.
fn write_tokens(template: &Template, people: People, folder: &Path) -> Result<Sum> {
    let mut tokens: Vec<([u8; 32], u32)> = (0..people.accounts)
        .map(|number| (*Hash::of(people.token(number).as_bytes()).as_bytes(), number + 1))
        .collect();
    tokens.sort_unstable();
    let mut file = Writer::create(folder, TOKENS.0, TOKENS.1)?;
    for (hash, key) in tokens {
        file.add(&template.token(&Hash::new(hash), key))?;
    }
    file.finish()
}
