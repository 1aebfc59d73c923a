//! `martlet`: the node and the operator's commands. It reads the command line, loads the config and hands over; what a node does is in
//! the library.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use martlet::clock::Clock;
use martlet::config::{self, Config, ConfigErrors, Durability, Flag, Loaded, LogFormat, Sources};
use martlet::server::{Node, RunningNode};
use martlet::transfer::{self, Import, Progress, TransferError};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// One line to try another allocator: memory per connection and latency both depend on it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a shell gets when the config is wrong: the same as for a wrong command line.
const EXIT_CONFIG: u8 = 2;

/// Martlet: a self-hosted backend for end-to-end-encrypted messaging.
///
/// One program, one directory of data. With nothing set it serves on 127.0.0.1:8080 and keeps its data in ./data.
#[derive(Parser)]
#[command(name = "martlet", version, after_long_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  martlet serve                               serve on 127.0.0.1:8080
  martlet serve --listen 0.0.0.0:8080         serve other machines too
  martlet config --defaults > martlet.toml    begin a config file: every key, explained
  martlet config --set log.filter=debug       what is in force, and where each value comes from
  martlet check                               what would go wrong, and how to fix it
  martlet migrate                             bring the store's schema up to this release before nodes start
  martlet export ../moving                    write the embedded store and its secret into a folder
  martlet import ../moving                    read that folder into an empty PostgreSQL, or a new directory

Where values come from, each stronger than the one before:
  defaults; the config file (--config, or ./martlet.toml if it exists);
  the environment (MARTLET__SERVER__LISTEN sets server.listen); flags.";

const EXPORT: &str = "\
Examples:
  martlet export /srv/moving                       everything, the secret included
  martlet export /srv/moving --without-secret      the secret travels by itself
  martlet export /srv/moving --data-dir /srv/old   of another directory than ./data

The old node must not be started again once the import has begun: two copies of one store would answer the same clients.
The whole move, step by step: docs/MIGRATION.md.";

const IMPORT: &str = "\
Examples:
  MARTLET__STORAGE__DATABASE_URL=postgres://martlet:…@db/martlet martlet import /srv/moving
  martlet import /srv/moving --config cluster.toml
  martlet import /srv/moving --data-dir /srv/new          into a new embedded store

Files are checked before anything is written, and every table is read back and compared at the end.
The whole move, step by step: docs/MIGRATION.md.";

#[derive(Subcommand)]
enum Command {
    /// Run the node until SIGTERM or Ctrl-C.
    Serve {
        #[command(flatten)]
        settings: Settings,
    },
    /// Show the config in force as a TOML file, each key explained and with where its value comes from.
    Config {
        /// Show the defaults instead, as a file to start from.
        #[arg(long)]
        defaults: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Bring the store's schema up to this release, and nothing else. Nodes do so too when they start; of several, one does it.
    Migrate {
        #[command(flatten)]
        settings: Settings,
    },
    /// Write an embedded deployment into a folder, to move it to PostgreSQL. The node must not be running.
    #[command(after_long_help = EXPORT)]
    Export {
        /// A folder that is not there yet, or empty.
        folder: PathBuf,
        /// Leave the secret out; it must then reach the new nodes in another way.
        #[arg(long)]
        without_secret: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Read an exported folder into an empty PostgreSQL database (storage.database_url), or without one into a new embedded store in
    /// storage.data_dir. No node may run on it. If it is interrupted, run it again.
    #[command(after_long_help = IMPORT)]
    Import {
        /// The folder that was exported.
        folder: PathBuf,
        #[command(flatten)]
        settings: Settings,
    },
    /// Test what the config points at (directories, limits, ports, the store) and name the fix for each failure.
    Check {
        #[command(flatten)]
        settings: Settings,
    },
}

/// Flags that every command takes.
#[derive(Args)]
#[command(next_help_heading = "Settings")]
struct Settings {
    /// The config file [default: ./martlet.toml if it exists].
    #[arg(long, value_name = "FILE", env = "MARTLET_CONFIG")]
    config: Option<PathBuf>,
    /// Set any key; can be given several times.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Address of the public listener (server.listen).
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Address of the internal listener (server.internal_listen).
    #[arg(long, value_name = "ADDRESS:PORT")]
    internal_listen: Option<String>,
    /// Directory of the store (storage.data_dir).
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<String>,
    /// What is logged (log.filter).
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

impl Settings {
    fn load(self) -> Result<Loaded, ConfigErrors> {
        let named = [
            ("--listen", "server.listen", self.listen),
            ("--internal-listen", "server.internal_listen", self.internal_listen),
            ("--data-dir", "storage.data_dir", self.data_dir),
            ("--log", "log.filter", self.log),
        ];
        let named = named
            .into_iter()
            .filter_map(|(name, key, value)| value.map(|value| Flag { name, key: key.to_owned(), value }));
        let set = self.set.iter().map(|pair| Flag::set(pair)).collect::<Result<Vec<_>, _>>();
        let flags = set.map_err(|error| ConfigErrors(vec![error]))?.into_iter().chain(named).collect();
        // A variable that is no text can't be one of ours.
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Sources { file: self.config, environment: environment.collect(), flags }.load()
    }
}

pub(crate) fn main() -> ExitCode {
    let (settings, run): (Settings, Box<dyn FnOnce(Loaded) -> ExitCode>) = match Arguments::parse().command {
        Command::Serve { settings } => (settings, Box::new(serve)),
        Command::Config { defaults: true, .. } => return show(&config::defaults()),
        Command::Config { settings, .. } => (settings, Box::new(|loaded| show(&config::effective(&loaded)))),
        Command::Migrate { settings } => (settings, Box::new(migrate)),
        Command::Export { folder, without_secret, settings } => {
            (settings, Box::new(move |loaded| export(&loaded.config, &folder, !without_secret)))
        }
        Command::Import { folder, settings } => (settings, Box::new(move |loaded| import(&loaded.config, &folder))),
        Command::Check { settings } => (settings, Box::new(check)),
    };
    match settings.load() {
        Ok(loaded) => run(loaded),
        Err(errors) => {
            eprintln!("{errors}\n\nmartlet config --defaults lists every key and what is allowed.");
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

/// Prints to standard output. A reader that has seen enough (`martlet config | head`) is no failure.
fn show(text: &str) -> ExitCode {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn check(loaded: Loaded) -> ExitCode {
    let findings = martlet::check::run(&loaded.config);
    findings.iter().for_each(|finding| println!("{finding}"));
    let failures = findings.iter().filter(|finding| finding.is_failure()).count();
    println!(
        "\n{}",
        if failures == 0 {
            "The node can be started.".to_owned()
        } else {
            format!("{failures} to fix before the node can be started.")
        }
    );
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn migrate(loaded: Loaded) -> ExitCode {
    match martlet::server::migrate(&loaded.config) {
        Ok(0) => println!("The store has this release's schema already."),
        Ok(1) => println!("Ran 1 migration."),
        Ok(ran) => println!("Ran {ran} migrations."),
        Err(error) => {
            eprintln!("{error}\n\nmartlet check looks at the store and names the fix.");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn export(config: &Config, folder: &Path, with_secret: bool) -> ExitCode {
    let moved = match transfer::export(config, folder, with_secret, &Clock::System, &Progress::shown()) {
        Ok(moved) => moved,
        Err(error) => return fail(&error),
    };
    let secret = if with_secret {
        "IT HOLDS node.secret TOO. Whoever has this folder can guess passwords and open stored answers: let nobody read it, and\n\
         delete it after the import."
    } else {
        "node.secret is NOT in it. Copy it to each new node yourself: without it no password is right any more."
    };
    show(&format!(
        "{moved}\n\nExported to {}.\n\n{secret}\n\nDo not start the old node again, or throw this export away: what it accepts from now on is not in it.\n",
        folder.display()
    ))
}

fn import(config: &Config, folder: &Path) -> ExitCode {
    let import = Import { config, folder, clock: &Clock::System, progress: &Progress::shown(), max_pages: u64::MAX };
    let moved = match transfer::import(&import) {
        Ok(moved) => moved,
        Err(error) => return fail(&error),
    };
    let secret = config.storage.secret();
    let next = if moved.has_secret {
        format!("The secret is in {}; the other nodes need the same file.", secret.display())
    } else {
        format!("The secret is missing: copy the old node's node.secret to {} before a node starts.", secret.display())
    };
    let place = match config.storage.is_shared() {
        true => "the database".to_owned(),
        false => config.storage.database().display().to_string(),
    };
    show(&format!("{moved}\n\nImported into {place}; every table was read back and is as it was exported.\n\n{next}\n"))
}

fn fail(error: &TransferError) -> ExitCode {
    eprintln!("{error}");
    ExitCode::FAILURE
}

fn serve(loaded: Loaded) -> ExitCode {
    log(&loaded.config);
    raise_descriptor_limit();
    let outcome = actix_rt::System::new().block_on(async {
        // Before the node starts, so that a signal during a slow start is not lost.
        let mut stop = StopSignals::listen()?;
        let node = Node::start(loaded.config.clone(), Clock::System).await?;
        announce(&loaded.config, &node);
        stop.next().await;
        tracing::info!("stopping; a second signal ends it at once");
        let longest = node.longest_stop();
        tokio::select! {
            () = node.stop() => {}
            () = stop.next() => give_up("a second signal came"),
            () = tokio::time::sleep(longest) => give_up("it took too long: does the database answer?"),
        }
        Ok(())
    });
    match outcome {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err::<_, Box<dyn std::error::Error>>(error) => {
            eprintln!("{error}\n\nmartlet check looks at everything a start needs and names the fix.");
            ExitCode::FAILURE
        }
    }
}

/// Ends the process as it is. What was answered is on disk; what was not will be sent again.
#[expect(clippy::disallowed_methods, reason = "returning would wait for calls to a database that may never end")]
fn give_up(why: &'static str) -> ! {
    tracing::error!(why, "ended before everything was finished");
    std::process::exit(1)
}

/// SIGTERM (a supervisor) and SIGINT (Ctrl-C) mean the same: stop cleanly.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Log lines go to standard error, so that standard output stays free for what a command is asked for.
fn log(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::new(&config.log.filter);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}

/// Says where the node serves, once it does: in words for people, as a log line for machines.
fn announce(config: &Config, node: &RunningNode) {
    tracing::info!(public = %node.public, internal = %node.internal, "serving");
    if config.log.format == LogFormat::Json {
        return;
    }
    let address = config.server.public_url.clone().unwrap_or_else(|| format!("http://{}", node.public));
    let data = match &config.storage.database_url {
        Some(url) => url.to_string(),
        None => {
            let folder = &config.storage.data_dir;
            std::path::absolute(folder).unwrap_or_else(|_| folder.clone()).display().to_string()
        }
    };
    let kept = match config.storage.durability {
        Durability::Full => "on disk before anything is answered",
        Durability::Normal => "NOT safe from power loss: storage.durability is \"normal\"",
    };
    println!(
        "\nMartlet {} serves.\n\n  clients    {address}\n  API pages  {address}/docs\n  operator   http://{}/health\n  data       {} ({kept})\n\n\
         Stop it with Ctrl-C.\n",
        env!("CARGO_PKG_VERSION"),
        node.internal,
        data,
    );
}

/// A node may hold as many connections as the machine allows it, not as many as shells usually start with.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}
