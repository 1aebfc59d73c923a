//! Creating a conversation and moving its membership on.

use bytes::Bytes;
use diesel::{ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, RunQueryDsl as _};
use martlet_protocol::{
    id::ConversationId,
    rest::SignedMembershipLink,
    wire::{self, ConversationKind, control_entry::Event},
};

use super::{AppendLink, AppendLinkError, CreateError, MemberChange, NewConversation, NewMember};
use crate::db::{
    AccountKey, Conn, ConversationKey, KEYS_PER_QUERY, StorageError,
    conn::on,
    control,
    convert::{read_id, store_enum, store_u64},
    error::expect_rows,
    logs,
    schema::{accounts, conversations, log_heads, members, membership_links},
};

/// Number of a conversation's first link.
const FIRST_LINK: u64 = 1;

/// Creates a conversation with link 1 and its members.
///
/// # Errors
/// [`CreateError`]; the transaction must then be rolled back.
pub fn create(conn: &mut Conn, new: &NewConversation<'_>) -> Result<ConversationKey, CreateError> {
    let pair = direct_pair(new)?;
    let Some(conversation_key) = insert_row(conn, new, pair)? else {
        return Err(CreateError::Exists { conversation_id: existing(conn, &new.conversation_id, pair)? });
    };
    insert_link(conn, conversation_key, FIRST_LINK, new.link)?;
    if new.kind == ConversationKind::Large {
        let empty = (log_heads::head_seq.eq(0), log_heads::trimmed_seq.eq(0), log_heads::group_epoch.eq(0));
        on!(conn, c => diesel::insert_into(log_heads::table)
            .values((log_heads::conversation_key.eq(conversation_key), empty))
            .execute(c))
        .map_err(StorageError::from)?;
    }
    for member in new.members {
        add_member(conn, conversation_key, FIRST_LINK, member, None)?;
    }
    Ok(conversation_key)
}

/// Both accounts of a direct conversation, the smaller key first, so that the pair is unique.
fn direct_pair(new: &NewConversation<'_>) -> Result<Option<(AccountKey, AccountKey)>, StorageError> {
    match (new.kind, new.members) {
        (ConversationKind::Direct, [a, b]) if a.account_key != b.account_key => {
            Ok(Some((a.account_key.min(b.account_key), a.account_key.max(b.account_key))))
        }
        (ConversationKind::Direct, _) => {
            Err(StorageError::Inconsistent("a direct conversation of other than two accounts"))
        }
        _ => Ok(None),
    }
}

/// None if the id or the pair is there already.
fn insert_row(
    conn: &mut Conn,
    new: &NewConversation<'_>,
    pair: Option<(AccountKey, AccountKey)>,
) -> Result<Option<ConversationKey>, StorageError> {
    let id = new.conversation_id.as_bytes().as_slice();
    let key = on!(conn, c => diesel::insert_into(conversations::table)
        .values((
            conversations::conversation_id.eq(id),
            conversations::kind.eq(store_enum(new.kind)),
            conversations::m.eq(store_u64(FIRST_LINK)),
            conversations::head_hash.eq(id),
            conversations::title.eq(new.title),
            conversations::direct_low.eq(pair.map(|(low, _)| low)),
            conversations::direct_high.eq(pair.map(|(_, high)| high)),
        ))
        .on_conflict_do_nothing()
        .returning(conversations::conversation_key)
        .get_result(c)
        .optional())?;
    Ok(key)
}

/// The conversation that is in a new one's way.
fn existing(
    conn: &mut Conn,
    conversation_id: &ConversationId,
    pair: Option<(AccountKey, AccountKey)>,
) -> Result<ConversationId, StorageError> {
    let id = conversation_id.as_bytes().as_slice();
    let mut found: Option<Vec<u8>> = on!(conn, c => conversations::table
        .filter(conversations::conversation_id.eq(id))
        .select(conversations::conversation_id)
        .first(c)
        .optional())?;
    if let (None, Some((low, high))) = (&found, pair) {
        found = on!(conn, c => conversations::table
            .filter(conversations::direct_low.eq(low))
            .filter(conversations::direct_high.eq(high))
            .select(conversations::conversation_id)
            .first(c)
            .optional())?;
    }
    read_id(&found.ok_or(StorageError::Inconsistent("a conversation that is in the way is not there"))?)
}

/// Appends a link, applies its changes and appends `MembershipChanged` to the control stream.
///
/// # Errors
/// [`AppendLinkError`]; the transaction must then be rolled back.
pub fn append_link(conn: &mut Conn, append: &AppendLink<'_>) -> Result<(), AppendLinkError> {
    let m = append.expected_m + 1;
    let conversation_id = move_head(conn, append, m)?.ok_or(AppendLinkError::Conflict)?;
    insert_link(conn, append.conversation_key, m, append.link)?;
    let log = logs::stand(conn, append.conversation_key)?;
    for change in append.changes {
        apply(conn, append.conversation_key, m, change, log)?;
    }
    let event = Event::MembershipChanged(wire::MembershipChanged {
        conversation_id: conversation_id.to_wire(),
        removed_account_ids: removed(conn, append.changes)?,
    });
    control::tell(conn, event, append.now_s)?;
    Ok(())
}

/// The public ids of those whom the changes take away.
fn removed(conn: &mut Conn, changes: &[MemberChange]) -> Result<Vec<Bytes>, StorageError> {
    let key = |change: &MemberChange| match change {
        MemberChange::Remove(account_key) => Some(*account_key),
        MemberChange::Add(_) | MemberChange::SetRole(..) => None,
    };
    let keys: Vec<AccountKey> = changes.iter().filter_map(key).collect();
    let mut removed = Vec::with_capacity(keys.len());
    for keys in keys.chunks(KEYS_PER_QUERY) {
        let ids: Vec<Vec<u8>> = on!(conn, c => accounts::table
            .filter(accounts::account_key.eq_any(keys))
            .select(accounts::account_id)
            .load(c))?;
        removed.extend(ids.into_iter().map(Bytes::from));
    }
    Ok(removed)
}

/// Moves the head if it is the expected one; none if not.
fn move_head(conn: &mut Conn, append: &AppendLink<'_>, m: u64) -> Result<Option<ConversationId>, StorageError> {
    let id: Option<Vec<u8>> = on!(conn, c => diesel::update(conversations::table)
        .filter(conversations::conversation_key.eq(append.conversation_key))
        .filter(conversations::m.eq(store_u64(append.expected_m)))
        .set((
            conversations::m.eq(store_u64(m)),
            conversations::head_hash.eq(append.hash.as_bytes().as_slice()),
        ))
        .returning(conversations::conversation_id)
        .get_result(c)
        .optional())?;
    id.map(|id| read_id(&id)).transpose()
}

fn insert_link(
    conn: &mut Conn,
    conversation_key: ConversationKey,
    m: u64,
    signed: &SignedMembershipLink,
) -> Result<(), StorageError> {
    on!(conn, c => diesel::insert_into(membership_links::table)
        .values((
            membership_links::conversation_key.eq(conversation_key),
            membership_links::m.eq(store_u64(m)),
            membership_links::link.eq(signed.link.0.as_ref()),
            membership_links::signature.eq(signed.signature.as_bytes().as_slice()),
        ))
        .execute(c))?;
    Ok(())
}

fn apply(
    conn: &mut Conn,
    conversation_key: ConversationKey,
    m: u64,
    change: &MemberChange,
    log: Option<logs::Stand>,
) -> Result<(), StorageError> {
    match *change {
        MemberChange::Add(ref member) => add_member(conn, conversation_key, m, member, log),
        MemberChange::Remove(account_key) => {
            let joined_seq: Option<i64> = on!(conn, c => diesel::delete(members::table.find((conversation_key, account_key)))
                .returning(members::joined_seq)
                .get_result(c)
                .optional())?;
            let joined_seq = joined_seq.ok_or(StorageError::Inconsistent("a member to remove is not there"))?;
            logs::leave(conn, conversation_key, account_key, joined_seq, log)
        }
        MemberChange::SetRole(account_key, role) => {
            let updated = on!(conn, c => diesel::update(members::table.find((conversation_key, account_key)))
                .set(members::role.eq(store_enum(role)))
                .execute(c))?;
            expect_rows(updated, 1, "a member whose role changes is not there")
        }
    }
}

fn add_member(
    conn: &mut Conn,
    conversation_key: ConversationKey,
    m: u64,
    member: &NewMember,
    log: Option<logs::Stand>,
) -> Result<(), StorageError> {
    let joined_seq = logs::join(conn, conversation_key, member.account_key, log)?;
    on!(conn, c => diesel::insert_into(members::table)
        .values((
            members::conversation_key.eq(conversation_key),
            members::account_key.eq(member.account_key),
            members::fingerprint.eq(member.fingerprint.as_bytes().as_slice()),
            members::role.eq(store_enum(member.role)),
            members::joined_m.eq(store_u64(m)),
            members::joined_seq.eq(joined_seq),
        ))
        .execute(c))?;
    Ok(())
}

/// Sets or clears the title.
///
/// # Errors
/// [`StorageError::Inconsistent`] if there is no such conversation.
pub fn set_title(conn: &mut Conn, conversation_key: ConversationKey, title: Option<&[u8]>) -> Result<(), StorageError> {
    let updated = on!(conn, c => diesel::update(conversations::table.find(conversation_key))
        .set(conversations::title.eq(title))
        .execute(c))?;
    expect_rows(updated, 1, "a conversation to name is not there")
}
