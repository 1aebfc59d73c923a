//! Bugs that are planted on purpose, to show that a run finds them: the test-only build of the node (its feature `planted`) has each
//! behind a switch in the environment.

use anyhow::{Result, bail};

/// A planted bug. The node's side of it is `martlet_storage::planted::Bug`, under the same names.
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
    /// PostgreSQL answers commits before they are on disk.
    UnsafeDurability,
    /// The socket of a revoked device stays open.
    OpenAfterRevocation,
    /// An ack deletes what was never delivered, beyond a gap.
    AckAcrossGap,
    /// The answers that make a retry a repeat are forgotten at a start.
    ForgottenAnswers,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::AnswerBeforeCommit,
        Self::RelayBeforeCommit,
        Self::SerialCursor,
        Self::ReadBeforeSubscription,
        Self::UnsafeDurability,
        Self::OpenAfterRevocation,
        Self::AckAcrossGap,
        Self::ForgottenAnswers,
    ];

    /// As on the command line and in the environment.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AnswerBeforeCommit => "answer-before-commit",
            Self::RelayBeforeCommit => "relay-before-commit",
            Self::SerialCursor => "serial-cursor",
            Self::ReadBeforeSubscription => "read-before-subscription",
            Self::UnsafeDurability => "unsafe-durability",
            Self::OpenAfterRevocation => "open-after-revocation",
            Self::AckAcrossGap => "ack-across-gap",
            Self::ForgottenAnswers => "forgotten-answers",
        }
    }

    /// The bugs that a word on the command line means: one by its name, or `all`.
    ///
    /// # Errors
    /// There is no such bug.
    pub fn parse(word: &str) -> Result<Vec<Self>> {
        let found: Vec<_> = Self::ALL.into_iter().filter(|bug| word == "all" || bug.name() == word).collect();
        if found.is_empty() {
            let names: Vec<_> = Self::ALL.iter().map(|bug| bug.name()).collect();
            bail!("there is no planted bug {word}; there are all, {}", names.join(", "));
        }
        Ok(found)
    }

    /// What PostgreSQL is set to for it.
    #[must_use]
    pub fn postgres_settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::UnsafeDurability => &[("synchronous_commit", "off"), ("fsync", "off"), ("wal_writer_delay", "200ms")],
            _ => &[],
        }
    }

    /// What the node is set to for it.
    #[must_use]
    pub fn node_settings(self) -> &'static [&'static str] {
        match self {
            Self::UnsafeDurability => &["storage.durability=normal"],
            _ => &[],
        }
    }
}
