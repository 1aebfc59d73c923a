//! Addresses of Redis, with passwords in them that nobody is shown: not by `martlet config`, a log line, or an error about the value.

use std::fmt;

use zeroize::Zeroizing;

/// What stands in place of a password.
const HIDDEN: &str = "***";

/// One or several addresses, separated by commas. Shown without passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(Zeroizing<String>);

impl SecretUrl {
    /// As it was given.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }

    /// Each address with its password, for whoever connects.
    pub fn reveal(&self) -> impl Iterator<Item = &str> {
        self.0.split(',').map(str::trim)
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_passwords(&self.0))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// The text with what may be a password left out: what stands after the user's name in every address.
pub(super) fn without_passwords(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        // A password may hold a comma or a slash by mistake; the last @ before the next address ends it in any case.
        let end = after.find("://").unwrap_or(after.len());
        match after[..end].rfind('@') {
            Some(host) => {
                let user = after[..host].split(':').next().filter(|user| user.len() < host).unwrap_or_default();
                shown.push_str(user);
                shown.push(':');
                shown.push_str(HIDDEN);
                rest = &after[host..];
            }
            None => rest = after,
        }
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_shown() {
        let shown = |text: &str| SecretUrl::new(text).to_string();
        assert_eq!(shown("redis://host:1"), "redis://host:1");
        assert_eq!(shown("redis://user:secret@host:1/2"), "redis://user:***@host:1/2");
        assert_eq!(shown("rediss://:secret@host"), "rediss://:***@host");
        assert_eq!(shown("rediss://secret@host"), "rediss://:***@host");
        assert_eq!(shown("redis://a:s@h:1,redis://b:s,e/c@@h:2"), "redis://a:***@h:1,redis://b:***@h:2");
        assert_eq!(format!("{:?}", SecretUrl::new("redis://u:secret@h")), "\"redis://u:***@h\"");
        assert_eq!(shown("no address at all"), "no address at all");
    }

    #[test]
    fn whoever_connects_gets_each_address_whole() {
        let url = SecretUrl::new("redis://u:p@a:1, redis://u:p@b:2");
        assert_eq!(url.reveal().collect::<Vec<_>>(), ["redis://u:p@a:1", "redis://u:p@b:2"]);
    }
}
