//! Shared contents: one row however many devices get it, gone with the last entry that needs it.
//!
//! On PostgreSQL a content's key begins with the week in which its last entry expires, and whatever is left of a week goes with its part
//! ([`crate::db::postgres::parts`]); so a content that is missing there has only expired entries.

use std::collections::BTreeMap;

use diesel::{
    ExpressionMethods as _, QueryDsl as _, QueryResult, QueryableByName, RunQueryDsl as _,
    pg::PgConnection,
    sql_types::{BigInt, Binary},
};

use crate::db::{
    Conn, ContentKey, KEYS_PER_QUERY, StorageError,
    conn::on,
    error::expect_rows,
    postgres::{
        parts,
        rows::{Batch, Column},
    },
    schema::contents,
    sqlite::rows::{self, BatchRow, Values},
};

/// A content to be stored for as many entries.
pub(in crate::db) struct NewContent<'a> {
    pub content: &'a [u8],
    pub refs: i64,
    /// Unix seconds: when the last of these entries expires.
    pub expires_at_s: u64,
}

/// Stores contents and returns their keys, in their order.
pub(in crate::db) fn insert(conn: &mut Conn, new: &[NewContent<'_>]) -> Result<Vec<ContentKey>, StorageError> {
    match conn {
        Conn::Sqlite(c) => new
            .iter()
            .map(|new| {
                Ok(diesel::insert_into(contents::table)
                    .values((contents::content.eq(new.content), contents::refs.eq(new.refs)))
                    .returning(contents::content_key)
                    .get_result(c)?)
            })
            .collect(),
        Conn::Postgres(_) if new.is_empty() => Ok(Vec::new()),
        Conn::Postgres(c) => insert_with_weeks(c, new),
    }
}

struct AddContents;

fn insert_with_weeks(c: &mut PgConnection, new: &[NewContent<'_>]) -> Result<Vec<ContentKey>, StorageError> {
    #[derive(QueryableByName)]
    struct Number {
        #[diesel(sql_type = BigInt)]
        number: i64,
    }
    let count = i64::try_from(new.len()).unwrap_or(i64::MAX);
    let numbers: Vec<Number> =
        diesel::sql_query("SELECT nextval('content_keys') AS number FROM generate_series(1, $1)")
            .bind::<BigInt, _>(count)
            .load(c)?;
    expect_rows(numbers.len(), new.len(), "a sequence gave another count of numbers")?;
    let key = |(new, number): (&NewContent<'_>, &Number)| {
        ContentKey((parts::week(new.expires_at_s) << parts::WEEK_SHIFT) | number.number)
    };
    let keys: Vec<ContentKey> = new.iter().zip(&numbers).map(key).collect();
    let batch: Batch<AddContents, _> = Batch::new(
        "INSERT INTO contents (content_key, content, refs) SELECT * FROM unnest($1, $2, $3)",
        (
            keys.iter().copied().collect::<Column<BigInt, _>>(),
            new.iter().map(|new| new.content).collect::<Column<Binary, _>>(),
            new.iter().map(|new| new.refs).collect::<Column<BigInt, _>>(),
        ),
    );
    expect_rows(batch.execute(c)?, keys.len(), "a content was not inserted")?;
    Ok(keys)
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
    if gone.is_empty() {
        return Ok(());
    }
    let released: Vec<Released> = gone.into_iter().map(|(content, entries)| Released { content, entries }).collect();
    let keys: Vec<ContentKey> = released.iter().map(|released| released.content).collect();
    match conn {
        Conn::Sqlite(c) => {
            let found = rows::execute(c, &released)?;
            expect_rows(found, released.len(), "an entry's content is not there")?;
        }
        Conn::Postgres(c) => release_in_order(c, &released, &keys)?,
    }
    for keys in keys.chunks(KEYS_PER_QUERY) {
        on!(conn, c => diesel::delete(contents::table)
            .filter(contents::content_key.eq_any(keys))
            .filter(contents::refs.eq(0))
            .execute(c))?;
    }
    Ok(())
}

struct ReleaseContents;

/// Two nodes may release the same contents at once, so rows are locked by key. Those of a week that is over are gone already.
fn release_in_order(c: &mut PgConnection, released: &[Released], keys: &[ContentKey]) -> Result<(), StorageError> {
    let _: Vec<ContentKey> = contents::table
        .filter(contents::content_key.eq_any(keys))
        .order(contents::content_key)
        .select(contents::content_key)
        .for_update()
        .load(c)?;
    let batch: Batch<ReleaseContents, _> = Batch::new(
        "UPDATE contents SET refs = contents.refs - released.entries \
         FROM unnest($1, $2) AS released (content_key, entries) WHERE contents.content_key = released.content_key",
        (
            keys.iter().copied().collect::<Column<BigInt, _>>(),
            released.iter().map(|released| released.entries).collect::<Column<BigInt, _>>(),
        ),
    );
    batch.execute(c)?;
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
