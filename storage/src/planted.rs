//! Bugs that are planted on purpose, so that the nemesis can show that it finds them.
//!
//! Only the test-only build has them (the feature `planted`, off by default), and there one of them is switched on by the environment
//! variable `MARTLET_PLANTED`. In any other build [`is`] is false at compile time and nothing of them is left.

/// A planted bug. The names in the variable are those of the nemesis's command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A send is answered before its transaction commits.
    AnswerBeforeCommit,
    /// Entries are relayed before their transaction commits.
    RelayBeforeCommit,
    /// `seq` is handed out as a `bigserial` column hands it out: before and outside of the transaction.
    SerialCursor,
    /// A socket reads the store before it subscribes, and heads are never compared.
    ReadBeforeSubscription,
    /// The socket of a revoked device stays open.
    OpenAfterRevocation,
    /// An ack deletes what was never delivered, beyond a gap.
    AckAcrossGap,
    /// The answers that make a retry a repeat are forgotten at a start.
    ForgottenAnswers,
}

/// Whether this build and its environment have the bug.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn is(_bug: Bug) -> bool {
    false
}

#[cfg(feature = "planted")]
pub use switched_on::is;

#[cfg(feature = "planted")]
mod switched_on {
    use std::sync::LazyLock;

    use super::Bug;

    static NAME: LazyLock<String> = LazyLock::new(|| std::env::var("MARTLET_PLANTED").unwrap_or_default());

    /// Whether this build and its environment have the bug.
    #[must_use]
    pub fn is(bug: Bug) -> bool {
        *NAME
            == match bug {
                Bug::AnswerBeforeCommit => "answer-before-commit",
                Bug::RelayBeforeCommit => "relay-before-commit",
                Bug::SerialCursor => "serial-cursor",
                Bug::ReadBeforeSubscription => "read-before-subscription",
                Bug::OpenAfterRevocation => "open-after-revocation",
                Bug::AckAcrossGap => "ack-across-gap",
                Bug::ForgottenAnswers => "forgotten-answers",
            }
    }
}
