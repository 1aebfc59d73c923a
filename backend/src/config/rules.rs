//! How each kind of value is written, which values are allowed, and how they are printed again.
//!
//! A rule reads text, because files, environment and flags all come down to text. What a value means is not decided here.

use std::fmt::{Debug, Display};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use martlet_storage::DatabaseUrl;

use super::secret::SecretUrl;

/// How one key's values are written.
pub trait Rule<T> {
    /// The value that `text` stands for, or `None` if it is not allowed.
    fn read(&self, text: &str) -> Option<T>;
    /// The value as TOML.
    fn write(&self, value: &T) -> String;
    /// What is allowed, to end a sentence with.
    fn allowed(&self) -> String;
}

/// A whole number in a range.
pub struct Count<T>(pub RangeInclusive<T>);
/// A number of bytes in a range, written plainly or with `KiB`, `MiB` or `GiB`.
pub struct Bytes<T>(pub RangeInclusive<T>);
/// A length of time in a range, written with `ms`, `s`, `m`, `h` or `d`.
pub struct Time(pub RangeInclusive<Duration>);
/// An IP address and port to listen on.
pub struct Address;
/// A path of this machine.
pub struct Path;
/// `true` or `false`.
pub struct Switch;
/// A `http` or `https` address without a path, or nothing.
pub struct WebOrigin;
/// A filter of log lines.
pub struct Filter;
/// Addresses of Redis, separated by commas, or nothing.
pub struct RedisUrls;
/// Address of a PostgreSQL database, or nothing.
pub struct Database;
/// Addresses of PostgreSQL databases, separated by commas, or nothing.
pub struct Databases;
/// A name, as services have them.
pub struct Name;
/// As [`Name`], or nothing.
pub struct OptionalName;
/// A file of this machine, or nothing.
pub struct OptionalPath;
/// One of a few words.
pub struct OneOf<T: 'static>(pub &'static [(&'static str, T)]);

/// `n` KiB in bytes.
#[must_use]
pub const fn kib(n: usize) -> usize {
    n * 1024
}

/// `n` MiB in bytes.
#[must_use]
pub const fn mib(n: usize) -> usize {
    n * 1024 * 1024
}

/// `n` milliseconds.
#[must_use]
pub const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// `n` seconds.
#[must_use]
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// `n` minutes.
#[must_use]
pub const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

/// `n` hours.
#[must_use]
pub const fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}

/// `n` days of 24 hours.
#[must_use]
pub const fn days(n: u64) -> Duration {
    Duration::from_secs(n * 86_400)
}

impl<T: TryFrom<u64> + PartialOrd + Display> Rule<T> for Count<T> {
    fn read(&self, text: &str) -> Option<T> {
        let value = T::try_from(digits(text)?).ok()?;
        self.0.contains(&value).then_some(value)
    }

    fn write(&self, value: &T) -> String {
        grouped(&value.to_string())
    }

    fn allowed(&self) -> String {
        format!("a whole number from {} to {}", self.write(self.0.start()), self.write(self.0.end()))
    }
}

/// Units of bytes, largest first so that printing picks the largest that divides.
const BYTE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl<T: TryFrom<u64> + Copy + PartialOrd + Display> Rule<T> for Bytes<T> {
    fn read(&self, text: &str) -> Option<T> {
        let value = T::try_from(measured(text, &BYTE_UNITS, Some(1))?).ok()?;
        self.0.contains(&value).then_some(value)
    }

    fn write(&self, value: &T) -> String {
        format!("\"{}\"", self.plain(*value))
    }

    fn allowed(&self) -> String {
        format!("a size from {} to {}, like \"64 KiB\"", self.plain(*self.0.start()), self.plain(*self.0.end()))
    }
}

impl<T: Display> Bytes<T> {
    fn plain(&self, value: T) -> String {
        // Every integer type displays as digits, so this is the number itself whatever its width.
        in_units(value.to_string().parse().unwrap_or(u64::MAX), &BYTE_UNITS)
    }
}

/// Units of time in milliseconds, largest first.
const TIME_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl Rule<Duration> for Time {
    fn read(&self, text: &str) -> Option<Duration> {
        let value = Duration::from_millis(measured(text, &TIME_UNITS, None)?);
        self.0.contains(&value).then_some(value)
    }

    fn write(&self, value: &Duration) -> String {
        format!("\"{}\"", time(*value))
    }

    fn allowed(&self) -> String {
        format!(
            "a length of time from {} to {}, like \"30s\", \"200ms\" or \"10m\"",
            time(*self.0.start()),
            time(*self.0.end())
        )
    }
}

fn time(value: Duration) -> String {
    in_units(u64::try_from(value.as_millis()).unwrap_or(u64::MAX), &TIME_UNITS)
}

impl Rule<SocketAddr> for Address {
    fn read(&self, text: &str) -> Option<SocketAddr> {
        text.parse().ok()
    }

    fn write(&self, value: &SocketAddr) -> String {
        quoted(&value.to_string())
    }

    fn allowed(&self) -> String {
        "an IP address and a port, like \"127.0.0.1:8080\" or \"[::]:8080\" (port 0 takes a free one)".into()
    }
}

impl Rule<PathBuf> for Path {
    fn read(&self, text: &str) -> Option<PathBuf> {
        (!text.is_empty()).then(|| PathBuf::from(text))
    }

    fn write(&self, value: &PathBuf) -> String {
        quoted(&value.to_string_lossy())
    }

    fn allowed(&self) -> String {
        "a path, absolute or seen from the working directory".into()
    }
}

impl Rule<bool> for Switch {
    fn read(&self, text: &str) -> Option<bool> {
        text.parse().ok()
    }

    fn write(&self, value: &bool) -> String {
        value.to_string()
    }

    fn allowed(&self) -> String {
        "true or false".into()
    }
}

impl Rule<Option<String>> for WebOrigin {
    fn read(&self, text: &str) -> Option<Option<String>> {
        if text.is_empty() {
            return Some(None);
        }
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
        let clean =
            !host.is_empty() && !host.contains(['/', '?', '#', '@', '"', '\\']) && !host.contains(char::is_whitespace);
        clean.then(|| Some(text.to_owned()))
    }

    fn write(&self, value: &Option<String>) -> String {
        quoted(value.as_deref().unwrap_or_default())
    }

    fn allowed(&self) -> String {
        "an address without a path, like \"https://chat.example.org\", or \"\" for none".into()
    }
}

impl Rule<Option<SecretUrl>> for RedisUrls {
    fn read(&self, text: &str) -> Option<Option<SecretUrl>> {
        if text.is_empty() {
            return Some(None);
        }
        let parses = |part: &str| {
            let known = part.starts_with("redis://") || part.starts_with("rediss://");
            known && redis::parse_redis_url(part).is_some_and(|url| url.has_host())
        };
        text.split(',').map(str::trim).all(parses).then(|| Some(SecretUrl::new(text)))
    }

    fn write(&self, value: &Option<SecretUrl>) -> String {
        quoted(&value.as_ref().map(ToString::to_string).unwrap_or_default())
    }

    fn allowed(&self) -> String {
        "\"redis://host:port\", or \"rediss://user:password@host:port\" with TLS; several with commas between; or \"\" for none"
            .into()
    }
}

const DATABASE: &str = "\"postgres://user:password@host:5432/database\" (with ?sslmode=require for TLS)";

impl Rule<Option<DatabaseUrl>> for Database {
    fn read(&self, text: &str) -> Option<Option<DatabaseUrl>> {
        if text.is_empty() { Some(None) } else { DatabaseUrl::new(text).map(Some) }
    }

    fn write(&self, value: &Option<DatabaseUrl>) -> String {
        quoted(&value.as_ref().map(ToString::to_string).unwrap_or_default())
    }

    fn allowed(&self) -> String {
        format!("{DATABASE}, or \"\" for none")
    }
}

impl Rule<Vec<DatabaseUrl>> for Databases {
    fn read(&self, text: &str) -> Option<Vec<DatabaseUrl>> {
        if text.is_empty() {
            return Some(Vec::new());
        }
        text.split(',').map(|part| DatabaseUrl::new(part.trim())).collect()
    }

    fn write(&self, value: &Vec<DatabaseUrl>) -> String {
        quoted(&value.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    }

    fn allowed(&self) -> String {
        format!("{DATABASE}; several with commas between; or \"\" for none")
    }
}

impl Rule<String> for OptionalName {
    fn read(&self, text: &str) -> Option<String> {
        if text.is_empty() { Some(String::new()) } else { Name.read(text) }
    }

    fn write(&self, value: &String) -> String {
        quoted(value)
    }

    fn allowed(&self) -> String {
        format!("{}, or \"\" for none", Name.allowed())
    }
}

impl Rule<String> for Name {
    fn read(&self, text: &str) -> Option<String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        (!text.is_empty() && text.chars().all(plain)).then(|| text.to_owned())
    }

    fn write(&self, value: &String) -> String {
        quoted(value)
    }

    fn allowed(&self) -> String {
        "letters, digits, \"-\", \"_\" and \".\"".into()
    }
}

impl Rule<Option<PathBuf>> for OptionalPath {
    fn read(&self, text: &str) -> Option<Option<PathBuf>> {
        Some((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    fn write(&self, value: &Option<PathBuf>) -> String {
        quoted(&value.as_ref().map(|path| path.to_string_lossy()).unwrap_or_default())
    }

    fn allowed(&self) -> String {
        "a path, or \"\" for none".into()
    }
}

impl Rule<String> for Filter {
    fn read(&self, text: &str) -> Option<String> {
        let parses = !text.is_empty() && tracing_subscriber::EnvFilter::try_new(text).is_ok();
        parses.then(|| text.to_owned())
    }

    fn write(&self, value: &String) -> String {
        quoted(value)
    }

    fn allowed(&self) -> String {
        "a level (error, warn, info, debug, trace), or levels per module like \"info,martlet::transport=debug\"".into()
    }
}

impl<T: Copy + PartialEq + Debug> Rule<T> for OneOf<T> {
    fn read(&self, text: &str) -> Option<T> {
        self.0.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
    }

    fn write(&self, value: &T) -> String {
        quoted(self.0.iter().find(|(_, known)| known == value).map_or("", |(word, _)| word))
    }

    fn allowed(&self) -> String {
        self.0.iter().map(|(word, _)| quoted(word)).collect::<Vec<_>>().join(" or ")
    }
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A whole number; `_` may group its digits as in TOML.
fn digits(text: &str) -> Option<u64> {
    let bare: String = text.chars().filter(|c| *c != '_').collect();
    (!bare.is_empty() && bare.bytes().all(|b| b.is_ascii_digit())).then(|| bare.parse().ok()).flatten()
}

/// A number followed by a unit; `bare` is the worth of a number without one, if that is allowed.
fn measured(text: &str, units: &[(&str, u64)], bare: Option<u64>) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = (digits(&text[..end])?, text[end..].trim());
    let worth = if unit.is_empty() && number == 0 {
        1
    } else if unit.is_empty() {
        bare?
    } else {
        units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1
    };
    number.checked_mul(worth)
}

/// The shortest exact form: the largest unit that divides the amount.
fn in_units(amount: u64, units: &[(&str, u64)]) -> String {
    let fitting = units.iter().find(|(_, worth)| amount != 0 && amount.is_multiple_of(*worth)).or(units.last());
    fitting.map_or_else(
        || amount.to_string(),
        |(name, worth)| {
            let space = if name.ends_with('B') { " " } else { "" };
            format!("{}{space}{name}", amount / worth)
        },
    )
}

/// Long numbers with `_` between groups of three, as they read best in TOML.
fn grouped(number: &str) -> String {
    if number.len() < 5 {
        return number.to_owned();
    }
    let mut out = String::with_capacity(number.len() + number.len() / 3);
    for (i, c) in number.chars().enumerate() {
        if i > 0 && (number.len() - i).is_multiple_of(3) {
            out.push('_');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_back_as_they_were_written() {
        let sizes = Bytes(0..=u64::MAX);
        for value in [0, 1, 1023, 1024, 65_536, 100 << 20, 3 << 30] {
            assert_eq!(sizes.read(sizes.write(&value).trim_matches('"')), Some(value));
        }
        let times = Time(Duration::ZERO..=Duration::MAX);
        for value in [millis(0), millis(1), millis(1500), secs(90), minutes(10), hours(24), days(90)] {
            assert_eq!(times.read(times.write(&value).trim_matches('"')), Some(value));
        }
        assert_eq!(Count(0..=u64::MAX).write(&1_000_000), "1_000_000");
        assert_eq!(Count(0..=u64::MAX).read("1_000_000"), Some(1_000_000));
    }

    #[test]
    fn what_is_not_meant_is_not_guessed() {
        assert_eq!(Time(millis(1)..=days(1)).read("30"), None, "a bare number has no unit");
        assert_eq!(Time(millis(1)..=days(1)).read("2d"), None, "out of range");
        assert_eq!(Bytes(1..=kib(64)).read("64 KB"), None, "ambiguous unit");
        assert_eq!(Bytes(1..=kib(64)).read("64 KiB"), Some(65_536));
        assert_eq!(Bytes(1..=u64::MAX).read("99999999999 GiB"), None, "overflow");
        assert_eq!(Count(1..=10_u32).read("-1"), None);
        assert_eq!(Count(1..=10_u32).read(""), None);
        assert_eq!(WebOrigin.read("https://chat.example.org"), Some(Some("https://chat.example.org".into())));
        assert_eq!(WebOrigin.read("https://chat.example.org/path"), None);
        assert_eq!(WebOrigin.read("chat.example.org"), None);
        assert!(
            RedisUrls.read("redis://localhost:6379, rediss://u:p@example.org:6380/1").is_some_and(|url| url.is_some())
        );
        assert_eq!(RedisUrls.read("redis://localhost,http://example.org"), None);
        assert_eq!(RedisUrls.read("redis://"), None);
        assert_eq!(Name.read("my master"), None);
        assert_eq!(OptionalName.read(""), Some(String::new()));
        assert!(Database.read("postgres://u:p@db/chat").is_some_and(|url| url.is_some()));
        assert_eq!(Database.read("mysql://db/chat"), None);
        assert_eq!(Databases.read("postgres://a/x, postgres://b/x").map(|urls| urls.len()), Some(2));
    }
}
