//! Showing a config as a TOML file that explains itself.
//!
//! What is printed can be saved and loaded again; a test does so.

use std::fmt::Write;

use super::declare::Key;
use super::load::Loaded;
use super::sections::Config;

/// The column in which the origin of a value is noted.
const ORIGIN_COLUMN: usize = 48;

/// The defaults, with every key's documentation and what is allowed.
#[must_use]
pub fn defaults() -> String {
    let head = "# Martlet's configuration: every key with its default. Keep the lines you change.\n";
    render(head, &Config::default(), |_| None)
}

/// The values in force, each with its documentation, what is allowed, and where the value came from.
#[must_use]
pub fn effective(loaded: &Loaded) -> String {
    let head = "# Martlet's configuration as it is in force: every key, and where its value came from.\n";
    render(head, &loaded.config, |key| Some(loaded.origin(key).to_string()))
}

fn render(head: &str, config: &Config, origin: impl Fn(&str) -> Option<String>) -> String {
    let keys = config.keys();
    let mut out = head.to_owned();
    for (section, about) in Config::SECTIONS {
        out.push('\n');
        comment(&mut out, about);
        line(&mut out, format_args!("[{section}]"));
        for key in keys.iter().filter(|key| key.section == *section) {
            out.push('\n');
            entry(&mut out, key, origin(&format!("{section}.{}", key.name)));
        }
    }
    out
}

fn entry(out: &mut String, key: &Key, origin: Option<String>) {
    comment(out, key.docs);
    line(out, format_args!("# Allowed: {}.", key.allowed));
    let setting = format!("{} = {}", key.name, key.value);
    match origin {
        Some(origin) => line(out, format_args!("{setting:<ORIGIN_COLUMN$}  # {origin}")),
        None => line(out, format_args!("{setting}")),
    }
}

fn comment(out: &mut String, lines: &[&str]) {
    for text in lines {
        // `///` leaves its space in front, which `#` needs just as well.
        line(out, format_args!("#{text}"));
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{text}");
}
