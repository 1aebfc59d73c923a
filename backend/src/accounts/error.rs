//! Why something about an account was refused. Every variant but the store's own means: nothing was changed.

use martlet_protocol::{
    chain::devices::ListError,
    problem::Code,
    rest::{PrekeyKind, SignedDeviceList},
};
use martlet_storage::{
    StorageError,
    accounts::{AppendListError, InsertAccountError},
};

use crate::limits::RetryAfterMs;

/// A refusal about accounts, devices, prekeys, links or tokens.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// No token, or one that serves no longer.
    #[error("the token is unknown, expired or ended")]
    Unauthenticated,
    /// Never says what was wrong.
    #[error("username, password, device or proof is wrong, or the device's clock is off by more than five minutes")]
    WrongCredentials,
    /// The ticket serves no longer.
    #[error("the ticket is unknown, expired or used")]
    TicketInvalid,
    /// `accounts.registration` is closed.
    #[error("this node takes no new accounts")]
    RegistrationClosed,
    /// Not of the allowed form.
    #[error("a username has 3 to 32 of a-z 0-9 . _ - and starts with a letter or digit")]
    UsernameInvalid,
    /// In use.
    #[error("the username is taken")]
    UsernameTaken,
    /// Too short or too long.
    #[error("a password has 8 to 1024 bytes")]
    PasswordInvalid,
    /// A label over its length, or with control characters.
    #[error("the {what} has 1 to {max_chars} characters, none of them control characters")]
    TextInvalid {
        /// Which text.
        what: &'static str,
        /// Its limit.
        max_chars: usize,
    },
    /// An account or device id that was used before.
    #[error("the account's or the device's id was used before")]
    IdTaken,
    /// Over `accounts.max_devices`.
    #[error("an account has at most {allowed} devices here")]
    TooManyDevices {
        /// The limit.
        allowed: usize,
    },
    /// The list breaks a rule of the chain.
    #[error("device list: {0}")]
    List(ListError),
    /// The list is sound, but not what this address takes.
    #[error("device list: {0}")]
    ListUnfit(&'static str),
    /// The list does not extend the head: these come after the one it extends.
    #[error("the device list has moved on")]
    ListConflict(Vec<SignedDeviceList>),
    /// A prekey's signature does not verify.
    #[error("the signature of {kind:?} prekey {key_id} is not valid")]
    PrekeySignature {
        /// Of which kind.
        kind: PrekeyKind,
        /// Which one.
        key_id: u32,
    },
    /// A prekey of the wrong kind, suite, life or list.
    #[error("prekey: {0}")]
    PrekeyInvalid(&'static str),
    /// A prekey id with another key.
    #[error("a prekey id was used for another key")]
    PrekeyIdReused,
    /// The pool would be over `prekeys.max_one_time`.
    #[error("a device has at most {allowed} one-time prekeys here")]
    TooManyPrekeys {
        /// The limit.
        allowed: usize,
    },
    /// The link was answered or completed already, or does not fit.
    #[error("link: {0}")]
    LinkInvalid(&'static str),
    /// A field that is not what the schema says.
    #[error("{0}")]
    Malformed(&'static str),
    /// Over a limit of the config.
    #[error("{what} has {given} bytes or items, {allowed} are allowed")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// What came.
        given: usize,
        /// The limit.
        allowed: usize,
    },
    /// Missing, or somebody else's: never told apart.
    #[error("there is no such account, device or link")]
    NotFound,
    /// Over a rate; come back after so many milliseconds.
    #[error("too many requests")]
    RateLimited(RetryAfterMs),
    /// Too many passwords wait to be hashed.
    #[error("too many passwords wait to be checked")]
    Busy,
    /// argon2 refused its parameters, or a hash in the store can't be read.
    #[error("password hashing: {0}")]
    Hashing(String),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl AccountError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Unauthenticated => Code::Unauthenticated,
            Self::WrongCredentials => Code::WrongCredentials,
            Self::TicketInvalid => Code::TicketInvalid,
            Self::RegistrationClosed => Code::Forbidden,
            Self::UsernameInvalid => Code::UsernameInvalid,
            Self::UsernameTaken => Code::UsernameTaken,
            Self::PasswordInvalid => Code::PasswordInvalid,
            Self::TextInvalid { .. } => Code::TextInvalid,
            Self::IdTaken => Code::IdTaken,
            Self::TooManyDevices { .. } => Code::TooManyDevices,
            Self::List(ListError::BadSignature) | Self::PrekeySignature { .. } => Code::SignatureInvalid,
            Self::List(_) | Self::ListUnfit(_) => Code::DeviceListInvalid,
            Self::ListConflict(_) => Code::DeviceListConflict,
            Self::PrekeyInvalid(_) => Code::PrekeyInvalid,
            Self::PrekeyIdReused => Code::PrekeyIdReused,
            Self::TooManyPrekeys { .. } => Code::TooManyPrekeys,
            Self::LinkInvalid(_) => Code::LinkInvalid,
            Self::Malformed(_) => Code::Malformed,
            Self::TooLarge { .. } => Code::TooLarge,
            Self::NotFound => Code::NotFound,
            Self::RateLimited(_) => Code::RateLimited,
            Self::Busy | Self::Storage(StorageError::Busy) => Code::Busy,
            Self::Storage(error) if error.may_pass() => Code::Unavailable,
            Self::Hashing(_) | Self::Storage(_) => Code::Internal,
        }
    }
}

impl From<InsertAccountError> for AccountError {
    fn from(error: InsertAccountError) -> Self {
        match error {
            InsertAccountError::UsernameTaken => Self::UsernameTaken,
            InsertAccountError::IdTaken => Self::IdTaken,
            InsertAccountError::PrekeyIdReused => Self::PrekeyIdReused,
            InsertAccountError::Storage(error) => Self::Storage(error),
        }
    }
}

impl From<AppendListError> for AccountError {
    /// A conflict names no lists here; who appends adds them.
    fn from(error: AppendListError) -> Self {
        match error {
            AppendListError::Conflict => Self::ListConflict(Vec::new()),
            AppendListError::IdTaken => Self::IdTaken,
            AppendListError::PrekeyIdReused => Self::PrekeyIdReused,
            AppendListError::Storage(error) => Self::Storage(error),
        }
    }
}
