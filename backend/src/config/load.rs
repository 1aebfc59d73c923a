//! Putting defaults, file, environment and flags on top of each other, and saying precisely what is wrong with a value.
//!
//! Later sources win: defaults < file < environment < flags. Every wrong value is reported, not just the first, so that an operator
//! corrects a file once. Nothing is read here but the config file; the environment and the flags are arguments.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::declare::NotSet;
use super::secret::without_passwords;
use super::sections::Config;
use super::{combinations, nearest};

/// The file that is read if none is named and it exists.
pub const DEFAULT_FILE: &str = "martlet.toml";
/// How a variable of the environment begins that sets a key: `MARTLET__SERVER__LISTEN` sets `server.listen`.
pub const ENVIRONMENT_PREFIX: &str = "MARTLET__";

/// Where values may come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The config file, which must exist. If none is named, [`DEFAULT_FILE`] is read where it exists.
    pub file: Option<PathBuf>,
    /// Variables of the environment; those without [`ENVIRONMENT_PREFIX`] are ignored.
    pub environment: Vec<(String, String)>,
    /// Values of flags, weakest first.
    pub flags: Vec<Flag>,
}

/// One value given on the command line.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The flag as the user wrote it, for messages: `--listen` or `--set`.
    pub name: &'static str,
    /// The key it sets: `section.key`.
    pub key: String,
    /// The value given.
    pub value: String,
}

/// Where one value came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    #[default]
    Default,
    /// The config file, at a line counted from 1.
    File(PathBuf, usize),
    /// A variable of the environment.
    Environment(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{} line {line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// The outcome: a config whose every value is allowed, alone and together.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    origins: BTreeMap<String, Origin>,
}

impl Loaded {
    /// Where the value of `section.key` came from.
    #[must_use]
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or_default()
    }
}

/// What is wrong with a config.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        why: String,
    },
    /// The file is not TOML.
    #[error("{} line {line}: {why}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The parser's reason.
        why: String,
    },
    /// A key that does not exist.
    #[error("{key}: there is no such key{} ({origin})", nearest.as_ref().map(|n| format!("; did you mean {n}?")).unwrap_or_default())]
    UnknownKey {
        /// The key as it was given.
        key: String,
        /// Where it was given.
        origin: Origin,
        /// The known key it resembles, if any.
        nearest: Option<String>,
    },
    /// A value that is not allowed.
    #[error("{key}: given {given:?} ({origin}), allowed is {allowed}")]
    NotAllowed {
        /// The key.
        key: String,
        /// The value as it was given.
        given: String,
        /// Where it was given.
        origin: Origin,
        /// What is allowed.
        allowed: String,
    },
    /// Values that are allowed alone, but not together.
    #[error("{keys}: {why}")]
    Combination {
        /// The keys concerned.
        keys: String,
        /// What does not fit, with the values.
        why: String,
    },
    /// Something on the command line that is no `key=value`.
    #[error("--set {given}: give section.key=value, like --set server.listen=0.0.0.0:8080")]
    NotAPair {
        /// What was given.
        given: String,
    },
}

/// Everything that is wrong with a config, in the order of the sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}

impl Flag {
    /// The flag `--set`, whose value is `section.key=value`.
    ///
    /// # Errors
    /// [`ConfigError::NotAPair`] if there is no `=`.
    pub fn set(pair: &str) -> Result<Self, ConfigError> {
        let (key, value) = pair.split_once('=').ok_or_else(|| ConfigError::NotAPair { given: pair.to_owned() })?;
        Ok(Self { name: "--set", key: key.trim().to_owned(), value: value.trim().to_owned() })
    }
}

impl Sources {
    /// Reads all sources.
    ///
    /// # Errors
    /// All that is wrong: unknown keys, values that are not allowed, and, once each is allowed, combinations that don't fit.
    pub fn load(self) -> Result<Loaded, ConfigErrors> {
        let mut layers = Layers::default();
        let file = self.file.or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()));
        if let Some(path) = &file {
            layers.file(path);
        }
        let mut environment = self.environment;
        environment.sort();
        for (name, value) in environment {
            if let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) {
                let key = rest.to_ascii_lowercase().replacen("__", ".", 1);
                layers.set(&key, &value, Origin::Environment(name));
            }
        }
        for flag in self.flags {
            layers.set(&flag.key, &flag.value, Origin::Flag(flag.name));
        }
        if layers.errors.is_empty() {
            layers.errors = combinations::refused(&layers.config);
        }
        if layers.errors.is_empty() {
            Ok(Loaded { config: layers.config, file, origins: layers.origins })
        } else {
            Err(ConfigErrors(layers.errors))
        }
    }
}

/// The config while sources are put on top of each other.
#[derive(Default)]
struct Layers {
    config: Config,
    origins: BTreeMap<String, Origin>,
    errors: Vec<ConfigError>,
}

impl Layers {
    fn set(&mut self, key: &str, given: &str, origin: Origin) {
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        match self.config.set(section, name, given) {
            Ok(()) => {
                self.origins.insert(key.to_owned(), origin);
            }
            Err(NotSet::UnknownKey) => {
                let nearest = nearest::key(key, self.config.keys());
                self.errors.push(ConfigError::UnknownKey { key: key.to_owned(), origin, nearest });
            }
            Err(NotSet::NotAllowed(allowed)) => {
                let (key, given) = (key.to_owned(), without_passwords(given));
                self.errors.push(ConfigError::NotAllowed { key, given, origin, allowed });
            }
        }
    }

    fn file(&mut self, path: &Path) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                self.errors.push(ConfigError::Unreadable { path: path.to_owned(), why: error.to_string() });
                return;
            }
        };
        match DeTable::parse(&text) {
            Ok(table) => self.table(&text, path, "", table.get_ref()),
            Err(error) => {
                let line = line_of(&text, error.span().map_or(0, |span| span.start));
                let why = error.message().to_owned();
                self.errors.push(ConfigError::NotToml { path: path.to_owned(), line, why });
            }
        }
    }

    /// Sets every value of a table; `prefix` is the section's name and a dot.
    fn table(&mut self, text: &str, path: &Path, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            let origin = Origin::File(path.to_owned(), line_of(text, name.span().start));
            match value.get_ref() {
                DeValue::Table(inner) if prefix.is_empty() => self.table(text, path, &format!("{key}."), inner),
                DeValue::String(given) => self.set(&key, given, origin),
                // Numbers and the like are taken as they stand in the file; what makes no sense there is refused by the key's rule.
                _ => self.set(&key, text.get(value.span()).unwrap_or_default(), origin),
            }
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}
