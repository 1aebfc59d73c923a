//! Statements over many rows: each column travels as one array, so that a statement is prepared once per connection whatever the number of
//! rows. PostgreSQL's parser takes milliseconds for a `VALUES` list of some thousand parameters, and nothing for seven arrays.

use std::marker::PhantomData;

use diesel::{
    QueryResult, RunQueryDsl,
    pg::{Pg, PgConnection},
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    serialize::ToSql,
    sql_types::{Array, HasSqlType, Untyped},
};

/// A statement with its arrays. `S` names it in the connection's cache, so one `S` means one SQL text.
pub(in crate::db) struct Batch<S, B> {
    sql: &'static str,
    binds: B,
    name: PhantomData<S>,
}

impl<S, B> Batch<S, B> {
    /// `$1`, `$2` … in the SQL are the columns in their order, each mentioned once.
    pub(in crate::db) fn new(sql: &'static str, binds: B) -> Self {
        Self { sql, binds, name: PhantomData }
    }
}

/// An array of values of the SQL type `T`.
pub(in crate::db) struct Column<T, V>(Vec<V>, PhantomData<T>);

impl<T, V> FromIterator<V> for Column<T, V> {
    fn from_iter<I: IntoIterator<Item = V>>(values: I) -> Self {
        Self(values.into_iter().collect(), PhantomData)
    }
}

/// What can stand for a `$n`.
pub(in crate::db) trait Bind {
    fn bind<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()>;
}

impl<T, V> Bind for Column<T, V>
where
    T: 'static,
    Pg: HasSqlType<T> + HasSqlType<Array<T>>,
    Vec<V>: ToSql<Array<T>, Pg>,
{
    fn bind<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_bind_param::<Array<T>, Vec<V>>(&self.0)
    }
}

/// All columns of a statement.
pub(in crate::db) trait Binds {
    fn each<'b>(&'b self, take: &mut dyn FnMut(&'b dyn Bind) -> QueryResult<()>) -> QueryResult<()>;
}

macro_rules! binds {
    ($($name:ident),+) => {
        impl<$($name: Bind),+> Binds for ($($name,)+) {
            #[expect(non_snake_case, reason = "a type parameter's name serves its value too")]
            fn each<'b>(&'b self, take: &mut dyn FnMut(&'b dyn Bind) -> QueryResult<()>) -> QueryResult<()> {
                let ($($name,)+) = self;
                $(take($name)?;)+
                Ok(())
            }
        }
    };
}

binds!(A);
binds!(A, B);
binds!(A, B, C);
binds!(A, B, C, D);
binds!(A, B, C, D, E, F, G, H);
binds!(A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P);

impl<S: 'static, B> QueryId for Batch<S, B> {
    type QueryId = S;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<S, B> Query for Batch<S, B> {
    type SqlType = Untyped;
}

impl<S, B> RunQueryDsl<PgConnection> for Batch<S, B> {}

impl<S, B: Binds> QueryFragment<Pg> for Batch<S, B> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        // Diesel writes `$1`, `$2` … itself, so the text is walked along with the columns.
        let mut rest = self.sql;
        let mut number = 0;
        self.binds.each(&mut |column| {
            number += 1;
            let mark = format!("${number}");
            let (before, after) = rest.split_once(mark.as_str()).ok_or(diesel::result::Error::QueryBuilderError(
                "a statement without a place for one of its columns".into(),
            ))?;
            out.push_sql(before);
            rest = after;
            column.bind(&mut out)
        })?;
        out.push_sql(rest);
        Ok(())
    }
}
