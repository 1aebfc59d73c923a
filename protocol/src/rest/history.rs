//! Reading a stream's history by cursor: a device's mailbox and a conversation's log ask for it in the same words.

use serde::{Deserialize, Serialize};

const DEFAULT_ITEMS: u32 = 50;
const MAX_ITEMS: u32 = 200;

/// Query of `GET /v1/mailbox` and `GET /v1/conversations/{conversation_id}/log`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// Forwards, the entries after this `seq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Backwards, the entries before this `seq`. With neither: the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// At most this many (default 50, at most 200); fewer if they are large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// From where a page is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryFrom {
    /// Forwards, after this `seq`.
    After(u64),
    /// Backwards, before this `seq`; past the head, the newest.
    Before(u64),
}

/// Both directions at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a page is after a cursor or before one, not both")]
pub struct TwoCursors;

impl HistoryQuery {
    /// From where.
    ///
    /// # Errors
    /// [`TwoCursors`].
    pub const fn from(&self) -> Result<HistoryFrom, TwoCursors> {
        match (self.after, self.before) {
            (Some(_), Some(_)) => Err(TwoCursors),
            (Some(seq), None) => Ok(HistoryFrom::After(seq)),
            (None, Some(seq)) => Ok(HistoryFrom::Before(seq)),
            (None, None) => Ok(HistoryFrom::Before(u64::MAX)),
        }
    }

    /// How many items at most.
    #[must_use]
    pub fn max_items(&self) -> u32 {
        self.limit.unwrap_or(DEFAULT_ITEMS).clamp(1, MAX_ITEMS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_direction_or_the_newest() {
        let from = |after, before| HistoryQuery { after, before, limit: None }.from();
        assert_eq!(from(Some(3), None), Ok(HistoryFrom::After(3)));
        assert_eq!(from(None, Some(3)), Ok(HistoryFrom::Before(3)));
        assert_eq!(from(None, None), Ok(HistoryFrom::Before(u64::MAX)));
        assert_eq!(from(Some(1), Some(2)), Err(TwoCursors));
        let items = |limit| HistoryQuery { limit, ..HistoryQuery::default() }.max_items();
        assert_eq!([items(None), items(Some(0)), items(Some(7)), items(Some(9999))], [50, 1, 7, 200]);
    }
}
