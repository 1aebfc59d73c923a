//! Who is who: which log an account reads, who writes, and which token its device has. All of it follows from the seed and the
//! account's number, so that whoever connects needs no file. No I/O.

use std::ops::Range;

use martlet_protocol::id::{Hash, to_base64};
use rand::{SeedableRng as _, rngs::StdRng};

/// A population by its rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct People {
    /// How many accounts, numbered from 0.
    pub accounts: u32,
    /// How many logs, numbered from 0; at most as many as accounts.
    pub logs: u32,
    /// What keys and tokens are derived from.
    pub seed: u64,
}

impl People {
    /// The numbers of a log's members. Logs follow each other; the first ones have one more member where it does not divide.
    #[must_use]
    pub fn members(&self, log: u32) -> Range<u32> {
        let (each, left) = (self.accounts / self.logs, self.accounts % self.logs);
        let start = log * each + log.min(left);
        start..start + each + u32::from(log < left)
    }

    /// The log that an account reads.
    #[must_use]
    pub fn log_of(&self, account: u32) -> u32 {
        let (each, left) = (self.accounts / self.logs, self.accounts % self.logs);
        let larger = left * (each + 1);
        if account < larger { account / (each + 1) } else { left + (account - larger) / each }
    }

    /// The member that made the log and writes to it: its first.
    #[must_use]
    pub fn writer(&self, log: u32) -> u32 {
        self.members(log).start
    }

    /// The device's token, in the form that a node gives: 32 bytes that look random.
    #[must_use]
    pub fn token(&self, account: u32) -> String {
        format!("mt_{}", to_base64(self.derive("token", account).as_bytes()))
    }

    /// As the account signs in.
    #[must_use]
    pub fn username(&self, account: u32) -> String {
        format!("p{:x}-{account}", self.seed)
    }

    /// Where the account's ids and keys come from.
    #[must_use]
    pub fn keys(&self, account: u32) -> StdRng {
        StdRng::from_seed(*self.derive("keys", account).as_bytes())
    }

    /// Where a log's nonce and its message come from.
    #[must_use]
    pub fn log(&self, log: u32) -> StdRng {
        StdRng::from_seed(*self.derive("log", log).as_bytes())
    }

    fn derive(&self, what: &str, number: u32) -> Hash {
        Hash::of(format!("martlet-load population {what} {} {number}", self.seed).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_account_is_a_member_of_one_log() {
        for (accounts, logs) in [(20, 2), (10, 3), (11, 3), (7, 7), (1, 1), (1000, 7)] {
            let people = People { accounts, logs, seed: 1 };
            let mut next = 0;
            for log in 0..logs {
                let members = people.members(log);
                assert_eq!((members.start, people.writer(log)), (next, next), "{accounts}/{logs}");
                assert!(members.clone().all(|account| people.log_of(account) == log), "{accounts}/{logs}: {log}");
                assert!(members.len().abs_diff((accounts / logs) as usize) <= 1);
                next = members.end;
            }
            assert_eq!(next, accounts);
        }
    }

    #[test]
    fn a_million_in_ten_logs_are_100_000_each() {
        let people = People { accounts: 1_000_000, logs: 10, seed: 1 };
        assert!((0..10).all(|log| people.members(log).len() == 100_000));
    }

    #[test]
    fn tokens_have_the_form_of_a_node_s_and_differ() {
        let people = People { accounts: 3, logs: 1, seed: 1 };
        let token = people.token(0);
        assert!(token.strip_prefix("mt_").is_some_and(|secret| secret.len() == 43), "{token}");
        assert_eq!(token, people.token(0));
        assert_ne!(token, people.token(1));
        assert_ne!(token, People { seed: 2, ..people }.token(0));
    }
}
