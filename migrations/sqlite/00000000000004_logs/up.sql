-- Conversation logs: what a large conversation's members read, one entry for all of them.

-- The row that a send to the log changes: hands out seq.
CREATE TABLE log_heads (
    conversation_key INTEGER PRIMARY KEY REFERENCES conversations,
    head_seq BIGINT NOT NULL,
    -- Entries up to here have had their time and are gone.
    trimmed_seq BIGINT NOT NULL,
    -- The group's own epoch (of its keys, not of the numbering): moved on by whichever of two concurrent changes commits first.
    group_epoch BIGINT NOT NULL
);

-- No sender: who wrote an entry stands inside its content, for members only.
CREATE TABLE log_entries (
    conversation_key BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    message_id BLOB NOT NULL,
    accepted_at_ms BIGINT NOT NULL,
    -- The group's when the entry was accepted.
    group_epoch BIGINT NOT NULL,
    suite BIGINT NOT NULL,
    expires_at_s BIGINT NOT NULL,
    -- NULL: it had a shorter life than those around it. The row goes with them.
    content BLOB,
    PRIMARY KEY (conversation_key, seq)
);
CREATE INDEX log_entries_expiry ON log_entries (expires_at_s);
