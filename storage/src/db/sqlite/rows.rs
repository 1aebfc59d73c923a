//! Inserting or updating many rows by one statement that is prepared once.
//!
//! Diesel prepares a batch insert of borrowed rows, and any `UPDATE`, anew each time (it asks not to be cached); profiles of the commit
//! showed SQLite's parser for that. Here the number of rows is part of the statement's type, and so of its key in the connection's
//! cache.

use diesel::{
    QueryResult, RunQueryDsl as _,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    serialize::ToSql,
    sql_types::HasSqlType,
    sqlite::{Sqlite, SqliteConnection},
};

/// Rows of one statement: few statements per batch, and few rows left over that go one by one. Chosen, not tuned.
const ROWS_PER_STATEMENT: usize = 32;

/// A row of a `VALUES` list that a statement inserts or updates from.
pub(in crate::db) trait BatchRow {
    /// Names the statement in the cache: a type without lifetimes, one per kind of row.
    type Statement: 'static;
    /// The statement up to `VALUES`.
    const BEFORE: &'static str;
    /// What follows the rows.
    const AFTER: &'static str = "";

    /// Binds the values, in the order of the columns.
    fn bind<'b>(&'b self, values: &mut Values<'_, 'b>) -> QueryResult<()>;
}

/// The values of one row on their way into the statement.
pub(in crate::db) struct Values<'a, 'b> {
    out: AstPass<'a, 'b, Sqlite>,
    is_first: bool,
}

impl<'b> Values<'_, 'b> {
    /// Binds the next one.
    pub(in crate::db) fn add<S, T>(&mut self, value: &'b T) -> QueryResult<()>
    where
        Sqlite: HasSqlType<S>,
        T: ToSql<S, Sqlite> + ?Sized,
    {
        if !std::mem::replace(&mut self.is_first, false) {
            self.out.push_sql(", ");
        }
        self.out.push_bind_param::<S, T>(value)
    }
}

/// Runs the statement over the rows: full chunks by one, the rest one by one. Returns how many rows it changed.
pub(in crate::db) fn execute<R: BatchRow>(conn: &mut SqliteConnection, rows: &[R]) -> QueryResult<usize> {
    let (chunks, rest) = rows.as_chunks::<ROWS_PER_STATEMENT>();
    let mut changed = 0;
    for chunk in chunks {
        changed += OverRows(chunk).execute(conn)?;
    }
    for row in rest {
        changed += OverRows(std::array::from_ref(row)).execute(conn)?;
    }
    Ok(changed)
}

struct OverRows<'a, R, const N: usize>(&'a [R; N]);

/// The key of a statement for `N` rows.
struct Statement<S, const N: usize>(std::marker::PhantomData<S>);

impl<R: BatchRow, const N: usize> QueryId for OverRows<'_, R, N> {
    type QueryId = Statement<R::Statement, N>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<R: BatchRow, const N: usize> Query for OverRows<'_, R, N> {
    type SqlType = diesel::sql_types::Untyped;
}

impl<R, const N: usize> diesel::RunQueryDsl<SqliteConnection> for OverRows<'_, R, N> {}

impl<R: BatchRow, const N: usize> QueryFragment<Sqlite> for OverRows<'_, R, N> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql(R::BEFORE);
        for (position, row) in self.0.iter().enumerate() {
            out.push_sql(if position == 0 { " VALUES (" } else { "), (" });
            row.bind(&mut Values { out: out.reborrow(), is_first: true })?;
        }
        out.push_sql(")");
        out.push_sql(R::AFTER);
        Ok(())
    }
}
