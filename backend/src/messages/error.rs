//! Why a message was not accepted. All of these mean "not committed", but for [`SendError::OutcomeUnknown`].

use martlet_protocol::{problem::Code, wire};
use martlet_storage::StorageError;

use crate::accounts::AccountError;

/// A refused send.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// A field that can't be what the schema says.
    #[error("{0}")]
    Malformed(&'static str),
    /// Over a limit of the config; names it.
    #[error("{what} has {given} bytes or items, {allowed} are allowed")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// What came.
        given: usize,
        /// The limit.
        allowed: usize,
    },
    /// The conversation is missing, or the sender is no member: never told apart.
    #[error("no such conversation")]
    NotFound,
    /// The device was ended since it authenticated.
    #[error("the device has ended")]
    Unauthenticated,
    /// A suite that some recipient's list does not name.
    #[error("suite {0} is not listed by every member's devices")]
    SuiteUnknown(u32),
    /// A lifetime over the mailbox's retention, or over what an ephemeral message may have.
    #[error("a lifetime of {given_s} s is over the {allowed_s} s that are allowed")]
    LifetimeInvalid {
        /// What came, in seconds.
        given_s: u64,
        /// The limit, in seconds.
        allowed_s: u64,
    },
    /// The sender encrypted for other devices than there are.
    #[error("lists, membership or forks differ from what the node has")]
    Mismatch(Box<wire::Mismatch>),
    /// The group is in another epoch than the sender named: it gave way to a change that was committed before.
    #[error("the group is in epoch {current}")]
    EpochConflict {
        /// The one that it is in.
        current: u64,
    },
    /// The same client_message_id came with other bytes before.
    #[error("this client_message_id was used for another message")]
    MessageIdReused,
    /// Too many sends of this device; come back after so many milliseconds.
    #[error("too many sends")]
    RateLimited(u32),
    /// The commit queue is full.
    #[error("the node has too much to do")]
    Busy,
    /// The node is going down.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// The store failed in the commit: the message may or may not be stored. A retry with the same bytes finds out.
    #[error("the store failed, the outcome is not known")]
    OutcomeUnknown,
    /// The store failed before the commit.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Looking up bundles for a mismatch failed.
    #[error(transparent)]
    Accounts(#[from] AccountError),
}

/// How long a sender is asked to wait when a queue is full, in milliseconds.
const BUSY_RETRY_MS: u32 = 500;

impl SendError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Malformed(_) => Code::Malformed,
            Self::TooLarge { .. } => Code::TooLarge,
            Self::NotFound => Code::NotFound,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::SuiteUnknown(_) => Code::SuiteUnknown,
            Self::LifetimeInvalid { .. } => Code::LifetimeInvalid,
            Self::Mismatch(_) => Code::Mismatch,
            Self::EpochConflict { .. } => Code::EpochConflict,
            Self::MessageIdReused => Code::MessageIdReused,
            Self::RateLimited(_) => Code::RateLimited,
            Self::Busy | Self::Storage(StorageError::Busy) => Code::Busy,
            Self::ShuttingDown | Self::OutcomeUnknown => Code::Unavailable,
            Self::Storage(error) if error.may_pass() => Code::Unavailable,
            Self::Storage(_) => Code::Internal,
            Self::Accounts(error) => error.code(),
        }
    }

    /// The answer on the wire, the same for socket and REST.
    #[must_use]
    pub fn into_problem(self) -> wire::Problem {
        let code = self.code();
        // Causes inside the node are for its log, not for strangers.
        let detail = match code {
            Code::Internal => String::new(),
            _ => self.to_string(),
        };
        let mut problem = code.problem(detail);
        match self {
            Self::Mismatch(mismatch) => problem.mismatch = Some(*mismatch),
            Self::EpochConflict { current } => problem.group_epoch = current,
            Self::RateLimited(retry_after_ms) | Self::Accounts(AccountError::RateLimited(retry_after_ms)) => {
                problem.retry_after_ms = retry_after_ms;
            }
            _ if matches!(code, Code::Busy | Code::Unavailable) => problem.retry_after_ms = BUSY_RETRY_MS,
            _ => {}
        }
        problem
    }

    /// Whether an earlier attempt with the same bytes could have passed where this one did not: because lists, membership or load
    /// changed in between.
    pub(super) fn may_have_been_accepted_before(&self) -> bool {
        matches!(
            self,
            Self::Mismatch(_)
                | Self::NotFound
                | Self::SuiteUnknown(_)
                | Self::LifetimeInvalid { .. }
                | Self::TooLarge { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_names_its_wait_wherever_it_was_met() {
        for error in [SendError::RateLimited(700), SendError::Accounts(AccountError::RateLimited(700))] {
            let problem = error.into_problem();
            assert_eq!((problem.code.as_str(), problem.retry_after_ms), (Code::RateLimited.as_str(), 700));
        }
    }
}
