//! What this device believes about accounts and conversations: pinned chains that only ever grow.
//!
//! Everything here came from the server and was checked by [`martlet_protocol::chain`]; nothing is believed because the server says
//! so. It does no I/O: where something is missing, it says what to fetch ([`Need`]).

mod account;
mod conversation;

use std::collections::BTreeMap;

use martlet_protocol::{
    chain::members::{LinkPlace, MembershipChain, MembershipError, MembershipLink, Signer, SignerKey},
    id::{AccountId, ConversationId, DeviceId, Hash},
    rest::{ListHead, SignedDeviceList, SignedMembershipLink},
};

pub use account::{AccountRecord, Dispute, HeadRelation, KnownAccount, ListChange};
pub use conversation::{ConversationRecord, KnownConversation};

use crate::refused::Refused;

/// Something to fetch before going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    /// An account's lists after this number.
    Lists {
        /// Whose.
        account_id: AccountId,
        /// 0: from the beginning.
        after: u64,
    },
    /// A conversation's links after this number.
    Membership {
        /// Which.
        conversation_id: ConversationId,
        /// 0: from the beginning.
        after: u64,
    },
}

/// Why a step could not be finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// Fetch this, then try again.
    #[error("something has to be fetched first")]
    Need(Need),
    /// Trying again won't help.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// All chains that this device knows.
#[derive(Default)]
pub struct Trust {
    accounts: BTreeMap<AccountId, KnownAccount>,
    conversations: BTreeMap<ConversationId, KnownConversation>,
}

impl Trust {
    /// Puts back a stored account.
    pub fn restore_account(&mut self, account: KnownAccount) {
        self.accounts.insert(*account.chain().account_id(), account);
    }

    /// Puts back a stored conversation; its signers' accounts must be back already.
    ///
    /// # Errors
    /// [`Halt`] if the store is broken.
    pub fn restore_conversation(&mut self, id: ConversationId, record: ConversationRecord) -> Result<(), Halt> {
        let ConversationRecord { links, title, gone, list_floors } = record;
        for signed in &links {
            // What was known when a link was taken decided then; later knowledge doesn't undo it.
            let link = MembershipLink::parse(&signed.link.0).map_err(Refused::from)?;
            let state = self.next_state(&id, signed)?;
            self.check_members(&state)?;
            self.put_link(&id, &link.signer, signed, state);
        }
        if let Some(conversation) = self.conversations.get_mut(&id) {
            for (account_id, n) in list_floors {
                conversation.note_list(account_id, n);
            }
            conversation.title = title;
            conversation.gone = gone;
        }
        Ok(())
    }

    /// An account, if it is known.
    #[must_use]
    pub fn account(&self, account_id: &AccountId) -> Option<&KnownAccount> {
        self.accounts.get(account_id)
    }

    /// An account for changing what people say about it (its name).
    pub fn account_mut(&mut self, account_id: &AccountId) -> Option<&mut KnownAccount> {
        self.accounts.get_mut(account_id)
    }

    /// All known accounts.
    pub fn accounts(&self) -> impl Iterator<Item = &KnownAccount> {
        self.accounts.values()
    }

    /// A conversation, if it is known.
    #[must_use]
    pub fn conversation(&self, id: &ConversationId) -> Option<&KnownConversation> {
        self.conversations.get(id)
    }

    /// A conversation for changing what isn't signed.
    pub fn conversation_mut(&mut self, id: &ConversationId) -> Option<&mut KnownConversation> {
        self.conversations.get_mut(id)
    }

    /// All known conversations.
    pub fn conversations(&self) -> impl Iterator<Item = &KnownConversation> {
        self.conversations.values()
    }

    /// Takes lists of an account: pins it at first contact, extends its chain afterwards.
    ///
    /// # Errors
    /// [`Refused`]; nothing is taken then, but a proved second branch, or a new chain, marks the account as disputed.
    pub fn absorb_lists(
        &mut self,
        account_id: &AccountId,
        lists: &[SignedDeviceList],
        expected_fingerprint: Option<Hash>,
    ) -> Result<ListChange, Refused> {
        if let Some(known) = self.accounts.get_mut(account_id) {
            if expected_fingerprint.is_some_and(|expected| expected != known.chain().fingerprint()) {
                return Err(Refused::FingerprintChanged);
            }
            return known.absorb(lists);
        }
        let expected = expected_fingerprint.or_else(|| self.fingerprint_by_members(account_id));
        let account = KnownAccount::first_contact(account_id, lists, expected)?;
        self.accounts.insert(*account_id, account);
        Ok(ListChange { first_contact: true, ..ListChange::default() })
    }

    /// What members of known conversations say the account's list 1 is: signed, so better than what the server says.
    fn fingerprint_by_members(&self, account_id: &AccountId) -> Option<Hash> {
        self.conversations
            .values()
            .find_map(|conversation| conversation.head().members.get(account_id))
            .map(|m| m.fingerprint)
    }

    /// Takes links of a conversation's membership. Returns how many were new.
    ///
    /// # Errors
    /// [`Halt::Need`] if a signer's lists are to be fetched first; then links before that one were taken.
    pub fn absorb_membership(&mut self, id: &ConversationId, links: &[SignedMembershipLink]) -> Result<usize, Halt> {
        let mut new = 0;
        for signed in links {
            let link = MembershipLink::parse(&signed.link.0).map_err(Refused::from)?;
            if self.is_known_link(id, &link, signed)? {
                continue;
            }
            self.check_signer_known(&link.signer)?;
            let state = self.next_state(id, signed)?;
            self.check_signer_current(id, &link.signer)?;
            self.check_members(&state)?;
            self.put_link(id, &link.signer, signed, state);
            new += 1;
        }
        Ok(new)
    }

    fn put_link(
        &mut self,
        id: &ConversationId,
        signer: &Signer,
        signed: &SignedMembershipLink,
        state: MembershipChain,
    ) {
        match self.conversations.get_mut(id) {
            Some(conversation) => conversation.push(signed.clone(), state),
            None => drop(self.conversations.insert(*id, KnownConversation::new(signed.clone(), state))),
        }
        if let Some(conversation) = self.conversations.get_mut(id) {
            conversation.note_list(signer.account_id, signer.list_n);
        }
    }

    /// Remembers lists that an accepted message named beside a membership that is known here. Returns whether any was news.
    pub fn note_lists(&mut self, id: &ConversationId, heads: &[ListHead]) -> bool {
        let Some(conversation) = self.conversations.get_mut(id) else { return false };
        let mut is_news = false;
        for head in heads {
            is_news |= conversation.note_list(head.account_id, head.n);
        }
        is_news
    }

    fn is_known_link(
        &self,
        id: &ConversationId,
        link: &MembershipLink,
        signed: &SignedMembershipLink,
    ) -> Result<bool, Refused> {
        let Some(known) = self.conversations.get(id) else { return Ok(false) };
        match known.link(link.m()) {
            None => Ok(false),
            Some(mine) if mine.link == signed.link => Ok(true),
            Some(_) if matches!(link.place, LinkPlace::Creation { .. }) => {
                Err(Refused::MembershipInvalid(MembershipError::WrongConversation))
            }
            Some(_) => Err(Refused::MembershipForked),
        }
    }

    fn check_signer_known(&self, signer: &Signer) -> Result<(), Halt> {
        let head = ListHead { account_id: signer.account_id, n: signer.list_n, hash: signer.list_hash };
        self.check_head(&head)
    }

    /// A new link must not go by an older list than its signer's account was known by in this conversation: a device that was removed
    /// meanwhile could otherwise go on signing under the list that still held it. That a known list has removed the signer is no
    /// reason by itself, because the link may have been made, and written, before.
    fn check_signer_current(&self, id: &ConversationId, signer: &Signer) -> Result<(), Refused> {
        let floor = self.conversations.get(id).map_or(0, |known| known.list_floor(&signer.account_id));
        if signer.list_n >= floor {
            return Ok(());
        }
        let account = self.accounts.get(&signer.account_id);
        let is_listed = account.is_some_and(|known| known.chain().device(&signer.device_id).is_some());
        Err(if is_listed { Refused::MembershipListOlder } else { Refused::MembershipSignerRemoved })
    }

    /// Whether a head lies on the chain known here.
    ///
    /// # Errors
    /// [`Halt::Need`] if it is of an unknown account or newer; [`Refused::ListForked`] if it is on another branch.
    pub fn check_head(&self, head: &ListHead) -> Result<(), Halt> {
        let Some(account) = self.accounts.get(&head.account_id) else {
            return Err(Halt::Need(Need::Lists { account_id: head.account_id, after: 0 }));
        };
        match account.relation(head) {
            HeadRelation::Known => Ok(()),
            HeadRelation::Newer => {
                Err(Halt::Need(Need::Lists { account_id: head.account_id, after: account.chain().n() }))
            }
            HeadRelation::Forked => Err(Refused::ListForked.into()),
        }
    }

    fn next_state(&self, id: &ConversationId, signed: &SignedMembershipLink) -> Result<MembershipChain, Refused> {
        let state = match self.conversations.get(id) {
            Some(known) => known.head().extend(signed, |signer| self.signer_key(signer))?,
            None => MembershipChain::create(signed, |signer| self.signer_key(signer))?,
        };
        if state.conversation_id != *id {
            return Err(Refused::MembershipInvalid(MembershipError::WrongConversation));
        }
        Ok(state)
    }

    fn signer_key(&self, signer: &Signer) -> Option<SignerKey> {
        self.accounts.get(&signer.account_id)?.chain().signer_key(signer)
    }

    /// A member that is pinned here must be the one that the membership means.
    fn check_members(&self, state: &MembershipChain) -> Result<(), Refused> {
        let differs = state.members.iter().any(|(account_id, member)| {
            self.accounts.get(account_id).is_some_and(|known| known.chain().fingerprint() != member.fingerprint)
        });
        if differs { Err(Refused::FingerprintChanged) } else { Ok(()) }
    }

    /// The membership at link `m`, if that is known.
    #[must_use]
    pub fn membership_at(&self, id: &ConversationId, m: u64) -> Option<MembershipChain> {
        let known = self.conversations.get(id)?;
        if let Some(state) = known.recent(m) {
            return Some(state.clone());
        }
        let links = known.links_to(m)?;
        MembershipChain::replay(links, |signer| self.signer_key(signer)).ok()
    }

    /// Whose device this is, among the accounts that are known, now or in an earlier list.
    #[must_use]
    pub fn account_of_device(&self, device_id: &DeviceId) -> Option<&KnownAccount> {
        self.accounts.values().find(|account| account.chain().device(device_id).is_some())
    }

    /// Heads of all members' lists, as a message names them.
    ///
    /// # Errors
    /// [`Halt::Need`] for a member whose lists were never fetched; [`Refused::AccountDisputed`].
    pub fn heads_of_members(&self, state: &MembershipChain) -> Result<Vec<ListHead>, Halt> {
        state
            .members
            .iter()
            .map(|(account_id, member)| {
                let Some(account) = self.accounts.get(account_id) else {
                    return Err(Halt::Need(Need::Lists { account_id: *account_id, after: 0 }));
                };
                if account.chain().fingerprint() != member.fingerprint {
                    return Err(Refused::FingerprintChanged.into());
                }
                if account.dispute().is_some() {
                    Err(Refused::AccountDisputed.into())
                } else {
                    Ok(account.chain().head())
                }
            })
            .collect()
    }
}
