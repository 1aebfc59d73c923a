//! Shared contents: one row however many devices get it, gone with the last entry that needs it.

use std::collections::BTreeMap;

use diesel::{ExpressionMethods as _, QueryResult, RunQueryDsl as _, sql_types::BigInt};

use crate::db::{
    Conn, ContentKey, KEYS_PER_QUERY, StorageError,
    conn::on,
    error::expect_rows,
    schema::contents,
    sqlite::rows::{self, BatchRow, Values},
};

/// Stores a content for as many entries.
pub(in crate::db) fn insert(conn: &mut Conn, content: &[u8], refs: usize) -> Result<ContentKey, StorageError> {
    let refs = i64::try_from(refs).unwrap_or(i64::MAX);
    let key = on!(conn, c => diesel::insert_into(contents::table)
        .values((contents::content.eq(content), contents::refs.eq(refs)))
        .returning(contents::content_key)
        .get_result(c))?;
    Ok(key)
}

/// Entries are gone: each item is one of them. Contents that no entry needs any more go too.
pub(in crate::db) fn release(
    conn: &mut Conn,
    of_entries: impl IntoIterator<Item = ContentKey>,
) -> Result<(), StorageError> {
    let mut gone: BTreeMap<ContentKey, i64> = BTreeMap::new();
    for key in of_entries {
        *gone.entry(key).or_default() += 1;
    }
    let released: Vec<Released> = gone.into_iter().map(|(content, entries)| Released { content, entries }).collect();
    let found = match conn {
        Conn::Sqlite(c) => rows::execute(c, &released)?,
    };
    expect_rows(found, released.len(), "an entry's content is not there")?;
    let keys: Vec<ContentKey> = released.iter().map(|released| released.content).collect();
    for keys in keys.chunks(KEYS_PER_QUERY) {
        on!(conn, c => diesel::delete(contents::table)
            .filter(contents::content_key.eq_any(keys))
            .filter(contents::refs.eq(0))
            .execute(c))?;
    }
    Ok(())
}

/// Entries of a content that are gone. The table refuses fewer references than none.
struct Released {
    content: ContentKey,
    entries: i64,
}

impl BatchRow for Released {
    type Statement = Self;
    const BEFORE: &'static str = "UPDATE contents SET refs = refs - released.column2 FROM (";
    const AFTER: &'static str = ") AS released WHERE contents.content_key = released.column1";

    fn bind<'b>(&'b self, values: &mut Values<'_, 'b>) -> QueryResult<()> {
        values.add::<BigInt, _>(&self.content)?;
        values.add::<BigInt, _>(&self.entries)
    }
}
