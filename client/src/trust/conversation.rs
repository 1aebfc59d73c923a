//! One conversation: the verified chain of its membership.

use std::collections::{BTreeMap, VecDeque};

use martlet_protocol::{
    chain::members::MembershipChain,
    id::{AccountId, ConversationId},
    rest::{ConversationKind, SignedMembershipLink},
};
use serde::{Deserialize, Serialize};

/// States kept at hand for messages that name a membership shortly before the newest; older ones are replayed from the links.
const RECENT_STATES: usize = 16;

/// A conversation as it rests in the store.
#[derive(Clone, Serialize, Deserialize)]
pub struct ConversationRecord {
    /// From the creation record to the head.
    pub links: Vec<SignedMembershipLink>,
    /// As a member told it in a message.
    pub title: Option<String>,
    /// This account is no member any more.
    pub gone: bool,
    /// See [`KnownConversation::list_floor`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub list_floors: Vec<(AccountId, u64)>,
}

/// A conversation that is known here.
pub struct KnownConversation {
    links: Vec<SignedMembershipLink>,
    recent: VecDeque<MembershipChain>,
    list_floors: BTreeMap<AccountId, u64>,
    /// As a member told it in a message.
    pub title: Option<String>,
    /// This account is no member any more, or the server says so.
    pub gone: bool,
}

impl KnownConversation {
    pub(super) fn new(first: SignedMembershipLink, state: MembershipChain) -> Self {
        Self {
            links: vec![first],
            recent: VecDeque::from([state]),
            list_floors: BTreeMap::new(),
            title: None,
            gone: false,
        }
    }

    pub(super) fn push(&mut self, link: SignedMembershipLink, state: MembershipChain) {
        self.links.push(link);
        self.recent.push_back(state);
        if self.recent.len() > RECENT_STATES {
            self.recent.pop_front();
        }
    }

    /// The newest verified state.
    ///
    /// # Panics
    /// Never: a conversation is made with its first state.
    #[must_use]
    pub fn head(&self) -> &MembershipChain {
        self.recent.back().expect("a conversation has a state from its making")
    }

    /// Which.
    #[must_use]
    pub fn id(&self) -> ConversationId {
        self.head().conversation_id
    }

    /// Direct or group.
    #[must_use]
    pub fn kind(&self) -> ConversationKind {
        self.head().kind
    }

    /// Its signed links, from the creation record.
    #[must_use]
    pub fn links(&self) -> &[SignedMembershipLink] {
        &self.links
    }

    /// The newest list of an account that a link of this conversation was signed under, or that an accepted message here named: links
    /// after the head can't have been made under an older one. 0: none newer than list 1.
    #[must_use]
    pub fn list_floor(&self, account_id: &AccountId) -> u64 {
        self.list_floors.get(account_id).copied().unwrap_or(0)
    }

    /// Raises an account's floor; returns whether that was news. List 1 is none: nothing is older.
    pub(super) fn note_list(&mut self, account_id: AccountId, n: u64) -> bool {
        let is_news = n > 1 && n > self.list_floor(&account_id);
        if is_news {
            self.list_floors.insert(account_id, n);
        }
        is_news
    }

    /// Link `m`.
    #[must_use]
    pub fn link(&self, m: u64) -> Option<&SignedMembershipLink> {
        self.links.get(usize::try_from(m.checked_sub(1)?).ok()?)
    }

    pub(super) fn links_to(&self, m: u64) -> Option<&[SignedMembershipLink]> {
        self.links.get(..usize::try_from(m).ok()?)
    }

    pub(super) fn recent(&self, m: u64) -> Option<&MembershipChain> {
        self.recent.iter().rev().find(|state| state.m == m)
    }

    /// As it rests in the store.
    #[must_use]
    pub fn record(&self) -> ConversationRecord {
        ConversationRecord {
            links: self.links.clone(),
            title: self.title.clone(),
            gone: self.gone,
            list_floors: self.list_floors.iter().map(|(account_id, n)| (*account_id, *n)).collect(),
        }
    }
}
