//! The macro that declares a section: each key is written once and becomes field, default, rule and documentation.
//!
//! It exists so that the words an operator reads and the words a programmer reads cannot drift apart. It has no other cleverness.

/// One key as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The section it stands in.
    pub section: &'static str,
    /// Its name within the section.
    pub name: &'static str,
    /// Its documentation, line by line, with the space that `///` leaves in front.
    pub docs: &'static [&'static str],
    /// What is allowed, to end a sentence with.
    pub allowed: String,
    /// Its value as TOML.
    pub value: String,
}

/// Why a value was not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotSet {
    /// The section has no key of that name.
    UnknownKey,
    /// The value is not one of the allowed ones, which this describes.
    NotAllowed(String),
}

/// Declares `pub struct $Section` whose fields read `/// docs`, `name: Type = default, Rule;`.
macro_rules! section {
    (
        $(#[doc = $about:literal])*
        $Section:ident as $section:literal {
            $( $(#[doc = $doc:literal])* $name:ident : $Type:ty = $default:expr, $rule:expr; )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $Section {
            $( $(#[doc = $doc])* pub $name: $Type, )*
        }

        impl Default for $Section {
            fn default() -> Self {
                Self { $( $name: $default, )* }
            }
        }

        impl $Section {
            /// The section's own documentation, line by line.
            pub(super) const ABOUT: &'static [&'static str] = &[$($about),*];

            /// Every key with its present value, in the order of declaration.
            pub(super) fn keys(&self) -> Vec<$crate::config::declare::Key> {
                use $crate::config::rules::Rule;
                vec![$( $crate::config::declare::Key {
                    section: $section,
                    name: stringify!($name),
                    docs: &[$($doc),*],
                    allowed: Rule::<$Type>::allowed(&$rule),
                    value: Rule::<$Type>::write(&$rule, &self.$name),
                }, )*]
            }

            /// Sets one key from text, if its rule allows the value.
            pub(super) fn set(&mut self, key: &str, text: &str) -> Result<(), $crate::config::declare::NotSet> {
                use $crate::config::{declare::NotSet, rules::Rule};
                match key {
                    $( stringify!($name) => {
                        let rule = $rule;
                        self.$name = Rule::<$Type>::read(&rule, text)
                            .ok_or_else(|| NotSet::NotAllowed(Rule::<$Type>::allowed(&rule)))?;
                        Ok(())
                    } )*
                    _ => Err(NotSet::UnknownKey),
                }
            }
        }
    };
}

/// Declares `Config` from its sections: `name: Section,` in the order in which they are printed.
macro_rules! config {
    ( $( $name:ident : $Section:ident, )* ) => {
        /// Everything an operator can set. `Config::default()` runs a node on the embedded default with nothing set.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct Config {
            $( #[doc = concat!("The section `[", stringify!($name), "]`.")] pub $name: $Section, )*
        }

        impl Config {
            /// The sections in order: name and documentation.
            pub(super) const SECTIONS: &'static [(&'static str, &'static [&'static str])] =
                &[$( (stringify!($name), $Section::ABOUT), )*];

            /// Every key of every section with its present value.
            #[must_use]
            pub fn keys(&self) -> Vec<$crate::config::declare::Key> {
                let mut keys = Vec::new();
                $( keys.extend(self.$name.keys()); )*
                keys
            }

            /// Sets `section.key` from text.
            pub(super) fn set(
                &mut self, section: &str, key: &str, text: &str,
            ) -> Result<(), $crate::config::declare::NotSet> {
                match section {
                    $( stringify!($name) => self.$name.set(key, text), )*
                    _ => Err($crate::config::declare::NotSet::UnknownKey),
                }
            }
        }
    };
}
