//! Every table that a store has, with its columns. A test compares this list with the schemas of both databases, so that a table or a
//! column that is added later can't be left behind.

/// Rows of one page: enough that its query hardly counts, few enough for memory.
const PAGE_ROWS: usize = 500;
/// Shared contents may be as large as `messages.max_content_bytes` allows.
const PAGE_CONTENTS: usize = 8;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number of 64 bits.
    BigInt,
    /// A number of 16 bits.
    SmallInt,
    /// UTF-8.
    Text,
    /// Bytes.
    Bytes,
}

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds, or NULL.
    pub kind: Kind,
}

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns; the key's come first, and rows travel in the order of the key.
    pub columns: &'static [Column],
    /// How many columns the key has.
    pub key: usize,
    /// At most so many rows are read or written at once.
    pub page_rows: usize,
    /// The database numbers its rows by the first column.
    pub(super) is_numbered: bool,
    /// It has one row from the first migration on, which an import replaces.
    pub(super) is_single: bool,
}

impl Table {
    const fn new(name: &'static str, key: usize, columns: &'static [Column]) -> Self {
        Self { name, columns, key, page_rows: PAGE_ROWS, is_numbered: false, is_single: false }
    }

    const fn numbered(name: &'static str, columns: &'static [Column]) -> Self {
        Self { is_numbered: true, ..Self::new(name, 1, columns) }
    }

    const fn single(name: &'static str, columns: &'static [Column]) -> Self {
        Self { is_single: true, ..Self::new(name, 1, columns) }
    }

    /// The key's columns.
    pub(super) fn key_columns(&self) -> &'static [Column] {
        &self.columns[..self.key]
    }

    /// Whether the table is the one of shared contents, whose keys are not the same in both databases.
    pub(super) fn is_contents(&self) -> bool {
        self.name == CONTENTS
    }
}

pub(super) const CONTENTS: &str = "contents";

const fn int(name: &'static str) -> Column {
    Column { name, kind: Kind::BigInt }
}

const fn small(name: &'static str) -> Column {
    Column { name, kind: Kind::SmallInt }
}

const fn text(name: &'static str) -> Column {
    Column { name, kind: Kind::Text }
}

const fn bytes(name: &'static str) -> Column {
    Column { name, kind: Kind::Bytes }
}

/// All of them, so that a row comes after those it refers to.
pub const TABLES: &[Table] = &[
    Table::single(
        "store",
        &[int("store_key"), bytes("store_id"), int("epoch"), bytes("secret_check"), text("lineage")],
    ),
    Table::numbered(
        "accounts",
        &[
            int("account_key"),
            bytes("account_id"),
            text("username"),
            text("password_hash"),
            bytes("fingerprint"),
            int("list_n"),
            bytes("list_hash"),
        ],
    ),
    Table::new("device_lists", 2, &[int("account_key"), int("n"), bytes("list"), bytes("signatures")]),
    Table::numbered(
        "devices",
        &[
            int("device_key"),
            bytes("device_id"),
            int("account_key"),
            text("name"),
            text("platform"),
            bytes("signing_key"),
            bytes("mailbox_key"),
            small("status"),
            int("linked_at_ms"),
            int("prekey_not_after_ms"),
        ],
    ),
    Table::new("tokens", 1, &[bytes("token_hash"), int("device_key"), int("expires_at_ms")]),
    Table::new("socket_tickets", 1, &[bytes("ticket_hash"), int("device_key"), int("expires_at_ms")]),
    Table::new(
        "links",
        1,
        &[
            bytes("link_id"),
            bytes("poll_hash"),
            bytes("offer"),
            int("account_key"),
            bytes("answer"),
            int("expires_at_ms"),
        ],
    ),
    Table::new(
        "prekeys",
        3,
        &[
            int("device_key"),
            small("kind"),
            int("key_id"),
            bytes("public_key"),
            int("not_after_ms"),
            bytes("signed_prekey"),
            int("store_epoch"),
        ],
    ),
    Table::numbered(
        "conversations",
        &[
            int("conversation_key"),
            bytes("conversation_id"),
            small("kind"),
            int("m"),
            bytes("head_hash"),
            bytes("title"),
            int("direct_low"),
            int("direct_high"),
        ],
    ),
    Table::new("membership_links", 2, &[int("conversation_key"), int("m"), bytes("link"), bytes("signature")]),
    Table::new(
        "members",
        2,
        &[
            int("conversation_key"),
            int("account_key"),
            bytes("fingerprint"),
            small("role"),
            int("joined_m"),
            int("joined_seq"),
        ],
    ),
    Table::new(
        "former_members",
        2,
        &[int("conversation_key"), int("account_key"), int("joined_seq"), int("left_seq"), int("left_group_epoch")],
    ),
    Table::new("log_heads", 1, &[int("conversation_key"), int("head_seq"), int("trimmed_seq"), int("group_epoch")]),
    Table {
        page_rows: PAGE_CONTENTS,
        ..Table::new(
            "log_entries",
            2,
            &[
                int("conversation_key"),
                int("seq"),
                bytes("message_id"),
                int("accepted_at_ms"),
                int("group_epoch"),
                int("suite"),
                int("expires_at_s"),
                bytes("content"),
            ],
        )
    },
    Table::new(
        "mailbox_heads",
        1,
        &[int("device_key"), int("epoch"), int("head_seq"), int("list_n"), int("added_bytes"), int("added_entries")],
    ),
    Table::new("mailbox_acks", 1, &[int("device_key"), int("acked_seq"), int("removed_bytes"), int("removed_entries")]),
    // SQLite's entry_key only keeps its rows in the order in which they came.
    Table::new(
        "mailbox_entries",
        2,
        &[
            int("device_key"),
            int("seq"),
            int("size_bytes"),
            int("expires_at_s"),
            small("own_lifetime"),
            int("content_key"),
            bytes("entry_id"),
            bytes("sealed"),
        ],
    ),
    Table::new("mailbox_gaps", 2, &[int("device_key"), int("from_seq"), int("to_seq"), int("count"), small("reason")]),
    // Numbered by a sequence that is not the key alone: see `target`.
    Table { page_rows: PAGE_CONTENTS, ..Table::new(CONTENTS, 1, &[int("content_key"), bytes("content"), int("refs")]) },
    Table::numbered(
        "send_answers",
        &[int("answer_key"), bytes("request_key"), bytes("request_mac"), bytes("answer"), int("expires_at_s")],
    ),
    Table::single("control_heads", &[int("control_key"), int("head_seq")]),
    Table::new("control_entries", 1, &[int("seq"), bytes("event"), int("created_at_s")]),
];
