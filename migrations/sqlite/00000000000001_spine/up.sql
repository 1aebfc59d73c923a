-- The spine: accounts, devices and their chains, conversations, mailboxes.
-- Keys named *_key are small integers that never leave the node; *_id are the public ids. Times: *_ms Unix milliseconds, *_s Unix seconds.

-- One row: what this store is. The epoch is part of every stream's epoch, so that a restore can bump them all at once.
CREATE TABLE store (
    store_key INTEGER PRIMARY KEY CHECK (store_key = 1),
    store_id BLOB NOT NULL,
    epoch BIGINT NOT NULL
);
INSERT INTO store (store_key, store_id, epoch) VALUES (1, randomblob(16), 1);

CREATE TABLE accounts (
    account_key INTEGER PRIMARY KEY,
    account_id BLOB NOT NULL UNIQUE,
    username TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    list_n BIGINT NOT NULL,
    list_hash BLOB NOT NULL
);

-- The signature chain, as it was signed.
CREATE TABLE device_lists (
    account_key BIGINT NOT NULL REFERENCES accounts,
    n BIGINT NOT NULL,
    list BLOB NOT NULL,
    -- A SignedDeviceList (protobuf) whose `list` field is empty.
    signatures BLOB NOT NULL,
    PRIMARY KEY (account_key, n)
) WITHOUT ROWID;

-- Revoked devices stay as tombstones: a device id is never used again.
CREATE TABLE devices (
    device_key INTEGER PRIMARY KEY,
    device_id BLOB NOT NULL UNIQUE,
    account_key BIGINT NOT NULL REFERENCES accounts,
    name TEXT NOT NULL,
    platform TEXT NOT NULL,
    signing_key BLOB NOT NULL,
    mailbox_key BLOB NOT NULL,
    -- 0 active, 1 suspended, 2 revoked
    status SMALLINT NOT NULL,
    linked_at_ms BIGINT NOT NULL,
    -- End of its signed prekey; past it the device is dormant.
    prekey_not_after_ms BIGINT NOT NULL
);
CREATE INDEX devices_account ON devices (account_key);

CREATE TABLE tokens (
    token_hash BLOB PRIMARY KEY,
    device_key BIGINT NOT NULL REFERENCES devices,
    expires_at_ms BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX tokens_device ON tokens (device_key);
CREATE INDEX tokens_expiry ON tokens (expires_at_ms);

CREATE TABLE socket_tickets (
    ticket_hash BLOB PRIMARY KEY,
    device_key BIGINT NOT NULL REFERENCES devices,
    expires_at_ms BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX socket_tickets_device ON socket_tickets (device_key);
CREATE INDEX socket_tickets_expiry ON socket_tickets (expires_at_ms);

CREATE TABLE links (
    link_id BLOB PRIMARY KEY,
    poll_hash BLOB NOT NULL,
    offer BLOB NOT NULL,
    -- Set by the existing device that answers.
    account_key BIGINT REFERENCES accounts,
    answer BLOB,
    expires_at_ms BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX links_expiry ON links (expires_at_ms);

-- kind: 1 signed (one current row per device), 2 one-time. Claimed one-time keys stay without their body, so that an id is never reused.
CREATE TABLE prekeys (
    device_key BIGINT NOT NULL REFERENCES devices,
    kind SMALLINT NOT NULL,
    key_id BIGINT NOT NULL,
    public_key BLOB NOT NULL,
    not_after_ms BIGINT NOT NULL,
    -- A SignedPrekey (protobuf); NULL once claimed, replaced or expired.
    signed_prekey BLOB,
    PRIMARY KEY (device_key, kind, key_id)
) WITHOUT ROWID;
CREATE INDEX prekeys_available ON prekeys (device_key, kind, key_id) WHERE signed_prekey IS NOT NULL;
CREATE INDEX prekeys_expiry ON prekeys (not_after_ms) WHERE signed_prekey IS NOT NULL;

CREATE TABLE conversations (
    conversation_key INTEGER PRIMARY KEY,
    conversation_id BLOB NOT NULL UNIQUE,
    -- As in the schema's ConversationKind.
    kind SMALLINT NOT NULL,
    m BIGINT NOT NULL,
    head_hash BLOB NOT NULL,
    title BLOB,
    -- Both accounts of a direct conversation, the smaller key first.
    direct_low BIGINT,
    direct_high BIGINT,
    UNIQUE (direct_low, direct_high)
);

CREATE TABLE membership_links (
    conversation_key BIGINT NOT NULL REFERENCES conversations,
    m BIGINT NOT NULL,
    link BLOB NOT NULL,
    signature BLOB NOT NULL,
    PRIMARY KEY (conversation_key, m)
) WITHOUT ROWID;

CREATE TABLE members (
    conversation_key BIGINT NOT NULL REFERENCES conversations,
    account_key BIGINT NOT NULL REFERENCES accounts,
    fingerprint BLOB NOT NULL,
    -- As in the schema's Role.
    role SMALLINT NOT NULL,
    joined_m BIGINT NOT NULL,
    PRIMARY KEY (conversation_key, account_key)
) WITHOUT ROWID;
CREATE INDEX members_account ON members (account_key, conversation_key);

-- The row that a send locks: hands out seq, and carries the account's list number so that the check costs no query.
CREATE TABLE mailbox_heads (
    device_key INTEGER PRIMARY KEY REFERENCES devices,
    -- Added to the store's, for a mailbox whose numbering alone restarts.
    epoch BIGINT NOT NULL,
    head_seq BIGINT NOT NULL,
    list_n BIGINT NOT NULL,
    -- Ever added; what rests now is this less mailbox_acks.removed_*.
    added_bytes BIGINT NOT NULL,
    added_entries BIGINT NOT NULL
);

-- Apart from the heads, so that acks and sends don't wait for each other.
CREATE TABLE mailbox_acks (
    device_key INTEGER PRIMARY KEY REFERENCES devices,
    acked_seq BIGINT NOT NULL,
    removed_bytes BIGINT NOT NULL,
    removed_entries BIGINT NOT NULL
);

-- Append-only table and one narrow index: on SQLite measured three times as fast as clustering by device. The narrow columns stand
-- first, so that acks and expiry don't read past them. content_key has no foreign key: checking it would scan this table for every content
-- that goes.
CREATE TABLE mailbox_entries (
    entry_key INTEGER PRIMARY KEY,
    device_key BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    -- What it counts towards the mailbox's quota: the seal and the shared content.
    size_bytes BIGINT NOT NULL,
    expires_at_s BIGINT NOT NULL,
    -- 1: the message asked for a shorter life than the mailbox's own.
    own_lifetime SMALLINT NOT NULL,
    -- Shared content over the inline limit.
    content_key BIGINT,
    entry_id BLOB NOT NULL,
    sealed BLOB NOT NULL
);
CREATE UNIQUE INDEX mailbox_entries_seq ON mailbox_entries (device_key, seq);
CREATE INDEX mailbox_entries_lifetime ON mailbox_entries (expires_at_s) WHERE own_lifetime = 1;

-- What had to be discarded; neighbours of one reason are merged. reason as in the schema's GapReason.
CREATE TABLE mailbox_gaps (
    device_key BIGINT NOT NULL,
    from_seq BIGINT NOT NULL,
    to_seq BIGINT NOT NULL,
    count BIGINT NOT NULL,
    reason SMALLINT NOT NULL,
    PRIMARY KEY (device_key, from_seq)
) WITHOUT ROWID;

-- Content over the inline limit, stored once, deleted with the last entry that needs it.
CREATE TABLE contents (
    content_key INTEGER PRIMARY KEY,
    content BLOB NOT NULL,
    refs BIGINT NOT NULL CHECK (refs >= 0)
);

-- Append-only, so that the oldest rows are swept from the front. No sender, no recipient: see docs/PROTOCOL.md.
CREATE TABLE send_answers (
    answer_key INTEGER PRIMARY KEY,
    request_key BLOB NOT NULL,
    request_mac BLOB NOT NULL,
    answer BLOB NOT NULL,
    expires_at_s BIGINT NOT NULL
);
CREATE UNIQUE INDEX send_answers_request ON send_answers (request_key);

CREATE TABLE control_heads (
    control_key INTEGER PRIMARY KEY CHECK (control_key = 1),
    head_seq BIGINT NOT NULL
);
INSERT INTO control_heads (control_key, head_seq) VALUES (1, 0);

CREATE TABLE control_entries (
    -- Given by the head, never by the database.
    seq INTEGER PRIMARY KEY,
    -- A ControlEntry (protobuf).
    event BLOB NOT NULL,
    created_at_s BIGINT NOT NULL
);
