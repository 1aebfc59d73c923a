//! The tables, as the newest migration leaves them.

use diesel::{allow_tables_to_appear_in_same_query, joinable, table};

table! {
    store (store_key) {
        store_key -> BigInt,
        store_id -> Binary,
        epoch -> BigInt,
        secret_check -> Nullable<Binary>,
        lineage -> Text,
    }
}

table! {
    accounts (account_key) {
        account_key -> BigInt,
        account_id -> Binary,
        username -> Text,
        password_hash -> Text,
        fingerprint -> Binary,
        list_n -> BigInt,
        list_hash -> Binary,
    }
}

table! {
    device_lists (account_key, n) {
        account_key -> BigInt,
        n -> BigInt,
        list -> Binary,
        signatures -> Binary,
    }
}

table! {
    devices (device_key) {
        device_key -> BigInt,
        device_id -> Binary,
        account_key -> BigInt,
        name -> Text,
        platform -> Text,
        signing_key -> Binary,
        mailbox_key -> Binary,
        status -> SmallInt,
        linked_at_ms -> BigInt,
        prekey_not_after_ms -> BigInt,
    }
}

table! {
    tokens (token_hash) {
        token_hash -> Binary,
        device_key -> BigInt,
        expires_at_ms -> BigInt,
    }
}

table! {
    socket_tickets (ticket_hash) {
        ticket_hash -> Binary,
        device_key -> BigInt,
        expires_at_ms -> BigInt,
    }
}

table! {
    links (link_id) {
        link_id -> Binary,
        poll_hash -> Binary,
        offer -> Binary,
        account_key -> Nullable<BigInt>,
        answer -> Nullable<Binary>,
        expires_at_ms -> BigInt,
    }
}

table! {
    prekeys (device_key, kind, key_id) {
        device_key -> BigInt,
        kind -> SmallInt,
        key_id -> BigInt,
        public_key -> Binary,
        not_after_ms -> BigInt,
        signed_prekey -> Nullable<Binary>,
        store_epoch -> BigInt,
    }
}

table! {
    conversations (conversation_key) {
        conversation_key -> BigInt,
        conversation_id -> Binary,
        kind -> SmallInt,
        m -> BigInt,
        head_hash -> Binary,
        title -> Nullable<Binary>,
        direct_low -> Nullable<BigInt>,
        direct_high -> Nullable<BigInt>,
    }
}

table! {
    membership_links (conversation_key, m) {
        conversation_key -> BigInt,
        m -> BigInt,
        link -> Binary,
        signature -> Binary,
    }
}

table! {
    members (conversation_key, account_key) {
        conversation_key -> BigInt,
        account_key -> BigInt,
        fingerprint -> Binary,
        role -> SmallInt,
        joined_m -> BigInt,
        joined_seq -> BigInt,
    }
}

table! {
    former_members (conversation_key, account_key) {
        conversation_key -> BigInt,
        account_key -> BigInt,
        joined_seq -> BigInt,
        left_seq -> BigInt,
        left_group_epoch -> BigInt,
    }
}

table! {
    log_heads (conversation_key) {
        conversation_key -> BigInt,
        head_seq -> BigInt,
        trimmed_seq -> BigInt,
        group_epoch -> BigInt,
    }
}

table! {
    log_entries (conversation_key, seq) {
        conversation_key -> BigInt,
        seq -> BigInt,
        message_id -> Binary,
        accepted_at_ms -> BigInt,
        group_epoch -> BigInt,
        suite -> BigInt,
        expires_at_s -> BigInt,
        content -> Nullable<Binary>,
    }
}

table! {
    mailbox_heads (device_key) {
        device_key -> BigInt,
        epoch -> BigInt,
        head_seq -> BigInt,
        list_n -> BigInt,
        added_bytes -> BigInt,
        added_entries -> BigInt,
    }
}

table! {
    mailbox_acks (device_key) {
        device_key -> BigInt,
        acked_seq -> BigInt,
        removed_bytes -> BigInt,
        removed_entries -> BigInt,
    }
}

table! {
    mailbox_entries (entry_key) {
        entry_key -> BigInt,
        device_key -> BigInt,
        seq -> BigInt,
        size_bytes -> BigInt,
        expires_at_s -> BigInt,
        own_lifetime -> SmallInt,
        content_key -> Nullable<BigInt>,
        entry_id -> Binary,
        sealed -> Binary,
    }
}

table! {
    mailbox_gaps (device_key, from_seq) {
        device_key -> BigInt,
        from_seq -> BigInt,
        to_seq -> BigInt,
        count -> BigInt,
        reason -> SmallInt,
    }
}

table! {
    contents (content_key) {
        content_key -> BigInt,
        content -> Binary,
        refs -> BigInt,
    }
}

table! {
    send_answers (answer_key) {
        answer_key -> BigInt,
        request_key -> Binary,
        request_mac -> Binary,
        answer -> Binary,
        expires_at_s -> BigInt,
    }
}

table! {
    control_heads (control_key) {
        control_key -> BigInt,
        head_seq -> BigInt,
    }
}

table! {
    control_entries (seq) {
        seq -> BigInt,
        event -> Binary,
        created_at_s -> BigInt,
    }
}

joinable!(devices -> accounts (account_key));
joinable!(tokens -> devices (device_key));
joinable!(socket_tickets -> devices (device_key));
joinable!(members -> accounts (account_key));
joinable!(members -> conversations (conversation_key));
joinable!(former_members -> conversations (conversation_key));
joinable!(log_heads -> conversations (conversation_key));
joinable!(mailbox_entries -> contents (content_key));

allow_tables_to_appear_in_same_query!(
    store,
    accounts,
    devices,
    tokens,
    socket_tickets,
    conversations,
    members,
    former_members,
    log_heads,
    mailbox_heads,
    mailbox_acks,
    mailbox_entries,
    contents,
);
