//! Shared contents: one row however many devices get it, gone with the last entry that needs it.

use std::collections::BTreeMap;

use diesel::{ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, RunQueryDsl as _};

use crate::db::{Conn, ContentKey, StorageError, conn::on, schema::contents};

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
    for (key, count) in gone {
        let left: Option<i64> = on!(conn, c => diesel::update(contents::table.find(key))
            .set(contents::refs.eq(contents::refs - count))
            .returning(contents::refs)
            .get_result(c)
            .optional())?;
        match left {
            Some(0) => {
                on!(conn, c => diesel::delete(contents::table.find(key)).execute(c))?;
            }
            Some(left) if left > 0 => {}
            Some(_) | None => return Err(StorageError::Inconsistent("a content with fewer references than entries")),
        }
    }
    Ok(())
}
