//! Names, passwords and labels as they may be. What has passed here has the type that says so.

use martlet_protocol::rest::DeviceLabel;
use zeroize::Zeroizing;

use super::AccountError;

const USERNAME_CHARS: std::ops::RangeInclusive<usize> = 3..=32;
const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 8..=1024;
const MAX_NAME_CHARS: usize = 64;
const MAX_PLATFORM_CHARS: usize = 32;

/// A username of the allowed form: lower-case ASCII only, so that no two look alike.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Username(String);

impl Username {
    pub(super) fn parse(text: &str) -> Result<Self, AccountError> {
        let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        let starts_well = text.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
        if USERNAME_CHARS.contains(&text.len()) && starts_well && text.bytes().all(inside) {
            Ok(Self(text.to_owned()))
        } else {
            Err(AccountError::UsernameInvalid)
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A password of allowed length; wiped when dropped, no `Debug`.
pub(super) struct Password(Zeroizing<String>);

impl Password {
    pub(super) fn parse(text: String) -> Result<Self, AccountError> {
        let password = Self(Zeroizing::new(text));
        if PASSWORD_BYTES.contains(&password.0.len()) { Ok(password) } else { Err(AccountError::PasswordInvalid) }
    }

    /// For signing in, where a length that can't be right must take as long to refuse as a wrong password.
    pub(super) fn any(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// A device's name.
pub(super) fn name(text: &str) -> Result<(), AccountError> {
    label_text("name", text, MAX_NAME_CHARS)
}

/// A device's name and platform.
pub(super) fn label(label: &DeviceLabel) -> Result<(), AccountError> {
    name(&label.name)?;
    label_text("platform", &label.platform, MAX_PLATFORM_CHARS)
}

fn label_text(what: &'static str, text: &str, max_chars: usize) -> Result<(), AccountError> {
    // Bytes first: a char has at most four, so counting never walks further than that.
    let fits = !text.is_empty() && text.len() <= max_chars * 4 && text.chars().count() <= max_chars;
    if fits && !text.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(AccountError::TextInvalid { what, max_chars })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usernames_have_one_form() {
        for good in ["abc", "a.b-c_9", "0ab", &"x".repeat(32)] {
            assert!(Username::parse(good).is_ok(), "{good}");
        }
        for bad in ["ab", ".abc", "Abc", "a b", "ünal", "abc\n", "", &"x".repeat(33)] {
            assert!(Username::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_are_counted_in_characters() {
        assert!(name(&"ü".repeat(64)).is_ok());
        for bad in ["", "a\u{7}", &"ü".repeat(65)] {
            assert!(name(bad).is_err());
        }
    }
}
