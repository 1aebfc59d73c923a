//! Conversations and their membership.

use martlet_protocol::{
    id::ConversationId,
    wire::{ConversationKind, Role, control_entry::Event},
};
use martlet_storage::{
    StorageError, control,
    conversations::{self, AppendLinkError, CreateError, MemberChange, NewConversation},
};

use crate::common::{Account, Store, bytes, link, member};

fn direct(store: &Store, id: ConversationId, accounts: &[&Account]) -> Result<(), CreateError> {
    let members: Vec<_> = accounts.iter().map(|account| member(account.key, Role::Member)).collect();
    let new = NewConversation {
        conversation_id: id,
        kind: ConversationKind::Direct,
        link: &link(),
        title: None,
        members: &members,
    };
    store.db.write_blocking(|c| conversations::create(c, &new)).map(drop)
}

#[test]
fn two_accounts_have_one_direct_conversation() {
    let store = Store::new();
    let (a, b, c) = (store.register(1), store.register(1), store.register(1));
    let [first, second, third] = [1, 2, 3].map(|number| ConversationId::new(bytes(number)));
    direct(&store, first, &[&a, &b]).expect("the first");
    assert!(
        matches!(direct(&store, second, &[&b, &a]), Err(CreateError::Exists { conversation_id }) if conversation_id == first)
    );
    assert!(
        matches!(direct(&store, first, &[&a, &c]), Err(CreateError::Exists { conversation_id }) if conversation_id == first)
    );
    direct(&store, third, &[&c, &a]).expect("another pair");
    assert!(matches!(direct(&store, second, &[&a]), Err(CreateError::Storage(StorageError::Inconsistent(_)))));
    assert_eq!(store.number("SELECT count(*) FROM members"), 4);
}

#[test]
fn only_members_see_a_conversation() {
    let store = Store::new();
    let (a, b, c) = (store.register(1), store.register(1), store.register(1));
    let talk = store.converse(&[&a, &b]);
    let seen_by = |account: &Account| store.run(|conn| conversations::by_id_for_member(conn, &talk.id, account.key));
    let row = seen_by(&a).expect("a member sees it");
    assert_eq!((row.conversation_key, row.m, row.kind, row.role), (talk.key, 1, ConversationKind::Group, Role::Member));
    assert_eq!(row.head_hash.as_bytes(), talk.id.as_bytes());
    assert!(seen_by(&c).is_none());
    let missing = ConversationId::new(bytes(999));
    assert!(store.run(|conn| conversations::by_id_for_member(conn, &missing, a.key)).is_none());
}

#[test]
fn pages_follow_each_other() {
    let store = Store::new();
    let (a, b) = (store.register(1), store.register(1));
    let keys: Vec<_> = (0..5).map(|_| store.converse(&[&a, &b]).key).collect();
    store.converse(&[&b]);
    let page = |after| {
        let rows = store.run(|conn| conversations::page_for_member(conn, a.key, after, 2));
        rows.into_iter().map(|row| row.conversation_key).collect::<Vec<_>>()
    };
    assert_eq!(page(None), keys[..2]);
    assert_eq!(page(Some(keys[1])), keys[2..4]);
    assert_eq!(page(Some(keys[3])), keys[4..]);
    assert_eq!(page(Some(keys[4])), []);
}

#[test]
fn links_change_members_and_tell_the_nodes() {
    let store = Store::new();
    let (a, b, c) = (store.register(2), store.register(1), store.register(1));
    let mut talk = store.converse(&[&a, &b]);
    let before = store.run(control::head);
    let changes = [
        MemberChange::Add(member(c.key, Role::Admin)),
        MemberChange::Remove(b.key),
        MemberChange::SetRole(a.key, Role::Owner),
    ];
    store.change(&talk, &changes).expect("link 2");
    assert!(matches!(store.change(&talk, &[]), Err(AppendLinkError::Conflict)));
    talk.m = 2;

    let members = store.run(|conn| conversations::members(conn, talk.key));
    let short: Vec<_> = members.iter().map(|row| (row.account_key, row.account_id, row.role, row.joined_m)).collect();
    assert_eq!(short, [(a.key, a.id, Role::Owner, 1), (c.key, c.id, Role::Admin, 2)]);
    assert_eq!(members[0].list_n, 2);
    assert_eq!(store.run(|conn| conversations::links_after(conn, talk.key, 0)).len(), 2);
    assert_eq!(store.run(|conn| conversations::links_after(conn, talk.key, 1)).len(), 1);
    let told = store.run(|conn| control::after(conn, before, 10));
    assert_eq!(told.len(), 1, "the refused link told nothing");
    assert!(
        matches!(&told[0].1.event, Some(Event::MembershipChanged(changed)) if changed.conversation_id == talk.id.to_wire())
    );

    for change in [MemberChange::Remove(b.key), MemberChange::SetRole(b.key, Role::Admin)] {
        let refused = store.change(&talk, &[change]);
        assert!(matches!(refused, Err(AppendLinkError::Storage(StorageError::Inconsistent(_)))));
    }
    assert_eq!(store.run(|conn| conversations::links_after(conn, talk.key, 0)).len(), 2, "nothing of it stays");
}

#[test]
fn a_title_is_set_and_cleared() {
    let store = Store::new();
    let a = store.register(1);
    let talk = store.converse(&[&a]);
    let title = || store.run(|c| conversations::by_id_for_member(c, &talk.id, a.key)).and_then(|row| row.title);
    store.run(|c| conversations::set_title(c, talk.key, Some(b"cipher")));
    assert_eq!(title().as_deref(), Some(b"cipher".as_slice()));
    store.run(|c| conversations::set_title(c, talk.key, None));
    assert_eq!(title(), None);
    let missing = martlet_storage::ConversationKey(99);
    assert!(store.db.write_blocking(|c| conversations::set_title(c, missing, None)).is_err());
}

#[test]
fn the_control_stream_is_gapless() {
    let store = Store::new();
    let mut account = store.register(1);
    for _ in 0..3 {
        store.link(&mut account);
    }
    let all = store.run(|c| control::after(c, 0, 100));
    assert_eq!(all.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(store.run(control::head), 3);
    assert_eq!(store.run(|c| control::after(c, 1, 1))[0].0, 2);
}
