//! What calls of the SDK fail with. What a dishonest server is caught at is [`Refused`], of its own module.

use martlet_protocol::{problem::Code, rest};

use crate::{refused::Refused, store::StoreError};

/// A call that failed. Nothing of it is done unless the variant says so.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No answer. Whether the server did what was asked is not known.
    #[error("the server can't be reached: {0}")]
    Unreachable(String),
    /// The server refused, with a stable code.
    #[error("the server refused: {} {}", .0.title, .0.detail)]
    Problem(Box<rest::Problem>),
    /// An answer that is not of the schema.
    #[error("the server's answer can't be read: {0}")]
    BadAnswer(String),
    /// The address can't be used.
    #[error("{0:?} is no server address; give one like http://127.0.0.1:8080")]
    BadAddress(String),
    /// The server was caught at something that clients don't accept.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The local store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store has no device yet.
    #[error("there is no device here yet: register, or link this one to an account")]
    NoDevice,
    /// The store has a device already.
    #[error("this folder already holds a device; use another --home for a further one")]
    DeviceExists,
    /// No such conversation is known here.
    #[error("there is no such conversation (any more); `conversations` lists them")]
    NoSuchConversation,
    /// No such account.
    #[error("there is no account of that name")]
    NoSuchAccount,
    /// No such device in the account's list.
    #[error("the account has no such device; `devices` lists them")]
    NoSuchDevice,
    /// The code that was typed or scanned can't be read.
    #[error("this is not a link code: {0}")]
    BadLinkCode(String),
    /// The existing device's human said no.
    #[error("the link was not confirmed")]
    LinkNotConfirmed,
    /// The link's ten minutes are over.
    #[error("nobody confirmed the link in time; start again")]
    LinkExpired,
    /// This device was revoked, suspended or signed out.
    #[error("this device was ended ({0}); sign in again, or link a new one")]
    Ended(String),
    /// What is not stored can only be sent while the socket is open.
    #[error("this device is not connected")]
    NotConnected,
    /// The change would break a rule of the device list or the membership.
    #[error("{0}")]
    NotAllowed(String),
}

impl ClientError {
    /// The server's code, if it answered with one.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Problem(problem) => Code::parse(&problem.code),
            _ => None,
        }
    }

    /// Trying again later, unchanged, may help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Problem(problem) => match Code::parse(&problem.code) {
                Some(code) => matches!(code, Code::RateLimited | Code::Busy | Code::Unavailable | Code::Internal),
                None => problem.status >= 500,
            },
            _ => false,
        }
    }

    /// When the server wants to be asked again.
    #[must_use]
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Problem(problem) => problem.retry_after_ms.map(u64::from),
            _ => None,
        }
    }
}
