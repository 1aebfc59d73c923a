//! Conversations: creating and listing them, their titles, and the signed chain of their membership.
//!
//! In reading order: this file (what members ask), [`creation`], [`membership`] (links after the first), [`signer`] (whose key a link
//! is checked with), [`log`] (the history and the members of a large one). Only members see that a conversation exists; titles are opaque.
//!
//! It knows nothing of HTTP and nothing of messages.

mod accounts;
mod creation;
mod error;
mod log;
mod membership;
mod signer;

use std::sync::Arc;

use martlet_protocol::{
    id::{Blob, ConversationId},
    rest::{Conversation, ConversationKind, ConversationMember, MembershipLinks, Page, PageQuery, Role},
    wire,
};
use martlet_storage::{
    Conn, Db, StorageError,
    conversations::{self, ConversationRow},
};

pub use error::ConversationError;
pub use log::LogToFollow;

use crate::{
    accounts::DeviceIdentity,
    clock::Clock,
    config::{self, Config},
    streams::Streams,
};

const DEFAULT_PAGE: u32 = 50;
const MAX_PAGE: u32 = 200;

/// Everything about conversations. Cheap to clone.
#[derive(Clone)]
pub struct Conversations(Arc<Inner>);

struct Inner {
    config: Arc<Config>,
    clock: Clock,
    db: Db,
    streams: Streams,
}

impl Conversations {
    /// Keeps nothing of its own in memory.
    #[must_use]
    pub fn new(config: Arc<Config>, clock: Clock, db: Db, streams: Streams) -> Self {
        Self(Arc::new(Inner { config, clock, db, streams }))
    }

    /// A page of the asker's conversations, oldest first.
    ///
    /// # Errors
    /// [`ConversationError::CursorUnknown`].
    pub async fn page(
        &self,
        identity: &DeviceIdentity,
        query: &PageQuery,
    ) -> Result<Page<Conversation>, ConversationError> {
        let limit = query.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
        let cursor = query.cursor.as_deref().map(str::parse::<ConversationId>).transpose();
        let cursor = cursor.map_err(|_| ConversationError::CursorUnknown)?;
        let account_key = identity.account_key;
        self.0
            .db
            .read(move |conn| {
                // The cursor is the last conversation shown: row keys never leave the node.
                let after = match cursor {
                    Some(id) => Some(find(conn, &id, account_key).map_err(cursor_unknown)?.conversation_key),
                    None => None,
                };
                // One more than asked for tells whether there is a next page.
                let mut rows = conversations::page_for_member(conn, account_key, after, limit + 1)?;
                let more = rows.len() > limit as usize;
                rows.truncate(limit as usize);
                let items = rows.into_iter().map(|row| show(conn, row)).collect::<Result<Vec<_>, _>>()?;
                let last = items.last().filter(|_| more);
                Ok(Page { next_cursor: last.map(|last| last.conversation_id.to_text()), items })
            })
            .await
    }

    /// One of the asker's conversations.
    ///
    /// # Errors
    /// [`ConversationError::NotFound`], also for somebody else's.
    pub async fn get(
        &self,
        identity: &DeviceIdentity,
        conversation_id: ConversationId,
    ) -> Result<Conversation, ConversationError> {
        let account_key = identity.account_key;
        self.0
            .db
            .read(move |conn| {
                let row = find(conn, &conversation_id, account_key)?;
                show(conn, row)
            })
            .await
    }

    /// The membership links after number `m`.
    ///
    /// # Errors
    /// [`ConversationError::NotFound`], also for somebody else's.
    pub async fn links_after(
        &self,
        identity: &DeviceIdentity,
        conversation_id: ConversationId,
        m: u64,
    ) -> Result<MembershipLinks, ConversationError> {
        let account_key = identity.account_key;
        self.0
            .db
            .read(move |conn| {
                let row = find(conn, &conversation_id, account_key)?;
                Ok(MembershipLinks { links: conversations::links_after(conn, row.conversation_key, m)? })
            })
            .await
    }

    /// Sets the title, which the node can't read. An empty one clears it.
    ///
    /// # Errors
    /// [`ConversationError::NotFound`], [`ConversationError::Forbidden`] for plain members, [`ConversationError::TitleTooLong`].
    pub async fn set_title(
        &self,
        identity: &DeviceIdentity,
        conversation_id: ConversationId,
        title: Blob,
    ) -> Result<(), ConversationError> {
        let account_key = identity.account_key;
        let allowed = self.0.config.conversations.max_title_bytes;
        self.0
            .db
            .write(move |conn| {
                conversations::lock(conn, &conversation_id)?;
                // Existence first: what a stranger is told must not depend on the title.
                let row = find(conn, &conversation_id, account_key)?;
                if role(row.role)? < Role::Admin {
                    return Err(ConversationError::Forbidden);
                }
                check_title(Some(&title), allowed)?;
                let title = Some(title.0.as_ref()).filter(|title| !title.is_empty());
                Ok(conversations::set_title(conn, row.conversation_key, title)?)
            })
            .await
    }
}

fn find(
    conn: &mut Conn,
    conversation_id: &ConversationId,
    account_key: martlet_storage::AccountKey,
) -> Result<ConversationRow, ConversationError> {
    conversations::by_id_for_member(conn, conversation_id, account_key)?.ok_or(ConversationError::NotFound)
}

fn cursor_unknown(error: ConversationError) -> ConversationError {
    match error {
        ConversationError::NotFound => ConversationError::CursorUnknown,
        other => other,
    }
}

/// The conversation as its members see it. The members of a large one are not listed with it: a page of such would be megabytes.
fn show(conn: &mut Conn, row: ConversationRow) -> Result<Conversation, ConversationError> {
    let kind = kind(row.kind)?;
    let (members, member_count) = if kind == ConversationKind::Large {
        (Vec::new(), conversations::member_count(conn, row.conversation_key)?)
    } else {
        let members = conversations::members(conn, row.conversation_key)?;
        let members = members
            .iter()
            .map(|member| Ok(ConversationMember { account_id: member.account_id, role: role(member.role)? }))
            .collect::<Result<Vec<_>, StorageError>>()?;
        let count = members.len() as u64;
        (members, count)
    };
    Ok(Conversation {
        conversation_id: row.conversation_id,
        kind,
        membership_m: row.m,
        membership_hash: row.head_hash,
        title: row.title.map(Blob),
        role: role(row.role)?,
        members,
        member_count,
    })
}

fn check_title(title: Option<&Blob>, allowed: usize) -> Result<(), ConversationError> {
    if title.is_some_and(|title| title.0.len() > allowed) {
        return Err(ConversationError::TitleTooLong { allowed });
    }
    Ok(())
}

fn most_members(kind: ConversationKind, limits: &config::Conversations) -> usize {
    match kind {
        ConversationKind::Direct => 2,
        ConversationKind::Group => limits.max_members_group,
        ConversationKind::Large => limits.max_members_large,
    }
}

fn role(stored: wire::Role) -> Result<Role, StorageError> {
    match stored {
        wire::Role::Member => Ok(Role::Member),
        wire::Role::Admin => Ok(Role::Admin),
        wire::Role::Owner => Ok(Role::Owner),
        wire::Role::Unspecified => Err(StorageError::Inconsistent("a member without a role")),
    }
}

fn kind(stored: wire::ConversationKind) -> Result<ConversationKind, StorageError> {
    match stored {
        wire::ConversationKind::Direct => Ok(ConversationKind::Direct),
        wire::ConversationKind::Group => Ok(ConversationKind::Group),
        wire::ConversationKind::Large => Ok(ConversationKind::Large),
        wire::ConversationKind::Unspecified => {
            Err(StorageError::Inconsistent("a conversation of a kind that is not served"))
        }
    }
}
