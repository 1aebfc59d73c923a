-- Which part of a large conversation's log an account may read: from after it joined up to where it left.

-- The log's head when the account was added; it reads what comes after. Of a conversation without a log, and of members from before this
-- migration, 0: everything.
ALTER TABLE members ADD COLUMN joined_seq BIGINT NOT NULL DEFAULT 0;

-- Who left a log, or was removed, and may still fetch what it was owed by then. A table of its own: for whatever reads members, also the
-- previous release, a row there is somebody who belongs to the conversation. Goes when the log no longer holds any of it.
CREATE TABLE former_members (
    conversation_key BIGINT NOT NULL REFERENCES conversations,
    account_key BIGINT NOT NULL REFERENCES accounts,
    joined_seq BIGINT NOT NULL,
    -- The log's head at that moment.
    left_seq BIGINT NOT NULL,
    -- The group's epoch at that moment: the current one is nothing to somebody who left.
    left_group_epoch BIGINT NOT NULL,
    PRIMARY KEY (conversation_key, account_key)
);
