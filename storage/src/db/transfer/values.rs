//! Rows whose columns are known only at run time: read from either backend, bound to statements of either.

use diesel::{
    backend::Backend,
    deserialize::{self, FromSql, QueryableByName},
    pg::Pg,
    query_builder::{BoxedSqlQuery, SqlQuery},
    row::{Field as _, NamedRow},
    sql_types::{Array, BigInt, Binary, Nullable, SmallInt, Text},
    sqlite::{Sqlite, SqliteType},
};

use super::{Kind, Table};
use crate::db::StorageError;

/// A value of a column. No `Debug`: it is user data.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// NULL.
    Null,
    /// A number of either size.
    Integer(i64),
    /// UTF-8.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// The values of a row, in the order of the table's columns.
pub type Row = Vec<Value>;

/// A row on its way out of a query.
pub(super) struct Read(pub(super) Row);

/// PostgreSQL's numbers of its own types.
mod oid {
    pub(super) const BYTEA: u32 = 17;
    pub(super) const INT8: u32 = 20;
    pub(super) const INT2: u32 = 21;
    pub(super) const TEXT: u32 = 25;
}

/// A value as a backend gives it.
trait Raw: Backend {
    fn value(raw: Self::RawValue<'_>) -> deserialize::Result<Value>;
}

impl Raw for Sqlite {
    fn value(raw: Self::RawValue<'_>) -> deserialize::Result<Value> {
        Ok(match raw.value_type() {
            None => Value::Null,
            Some(SqliteType::Long | SqliteType::Integer | SqliteType::SmallInt) => {
                Value::Integer(<i64 as FromSql<BigInt, Self>>::from_sql(raw)?)
            }
            Some(SqliteType::Text) => Value::Text(<String as FromSql<Text, Self>>::from_sql(raw)?),
            Some(SqliteType::Binary) => Value::Bytes(<Vec<u8> as FromSql<Binary, Self>>::from_sql(raw)?),
            Some(_) => return Err("a value that is neither number, text nor bytes".into()),
        })
    }
}

impl Raw for Pg {
    fn value(raw: Self::RawValue<'_>) -> deserialize::Result<Value> {
        Ok(match raw.get_oid().get() {
            oid::INT8 => Value::Integer(<i64 as FromSql<BigInt, Self>>::from_sql(raw)?),
            oid::INT2 => Value::Integer(<i16 as FromSql<SmallInt, Self>>::from_sql(raw)?.into()),
            oid::TEXT => Value::Text(<String as FromSql<Text, Self>>::from_sql(raw)?),
            oid::BYTEA => Value::Bytes(raw.as_bytes().to_vec()),
            _ => return Err("a value that is neither number, text nor bytes".into()),
        })
    }
}

impl<DB: Raw> QueryableByName<DB> for Read {
    fn build<'a>(row: &impl NamedRow<'a, DB>) -> deserialize::Result<Self> {
        let value = |index: usize| {
            let field = diesel::row::Row::get(row, index).ok_or(diesel::result::UnexpectedEndOfRow)?;
            field.value().map_or(Ok(Value::Null), DB::value)
        };
        (0..row.field_count()).map(value).collect::<Result<_, _>>().map(Self)
    }
}

/// A statement that is put together at run time.
pub(super) type Statement<'a, DB> = BoxedSqlQuery<'a, DB, SqlQuery>;

/// Binds the values of a key, one by one.
macro_rules! bind_key {
    ($statement:expr, $key:expr) => {{
        let mut statement = $statement;
        for value in $key {
            statement = match value {
                Value::Integer(number) => statement.bind::<BigInt, _>(*number),
                Value::Bytes(bytes) => statement.bind::<Binary, _>(bytes.as_slice()),
                Value::Null | Value::Text(_) => return Err(WRONG_KIND),
            };
        }
        statement
    }};
}

pub(super) fn bind_sqlite<'a>(
    statement: Statement<'a, Sqlite>,
    key: &'a [Value],
) -> Result<Statement<'a, Sqlite>, StorageError> {
    Ok(bind_key!(statement, key))
}

pub(super) fn bind_postgres<'a>(
    statement: Statement<'a, Pg>,
    key: &'a [Value],
) -> Result<Statement<'a, Pg>, StorageError> {
    Ok(bind_key!(statement, key))
}

/// Binds rows column by column, each as one array.
pub(super) fn bind_columns<'a>(
    mut statement: Statement<'a, Pg>,
    table: &Table,
    rows: &'a [Row],
) -> Result<Statement<'a, Pg>, StorageError> {
    for (at, column) in table.columns.iter().enumerate() {
        statement = match column.kind {
            Kind::BigInt => statement.bind::<Array<Nullable<BigInt>>, _>(gather(rows, at, integer)?),
            Kind::SmallInt => statement.bind::<Array<Nullable<SmallInt>>, _>(gather(rows, at, small)?),
            Kind::Text => statement.bind::<Array<Nullable<Text>>, _>(gather(rows, at, text)?),
            Kind::Bytes => statement.bind::<Array<Nullable<Binary>>, _>(gather(rows, at, bytes)?),
        };
    }
    Ok(statement)
}

const WRONG_KIND: StorageError = StorageError::Inconsistent("a value of another kind than its column's");

/// One column of many rows.
fn gather<'a, T>(
    rows: &'a [Row],
    at: usize,
    take: impl Fn(&'a Value) -> Option<T>,
) -> Result<Vec<Option<T>>, StorageError> {
    rows.iter()
        .map(|row| match row.get(at) {
            Some(Value::Null) => Ok(None),
            Some(value) => take(value).map(Some).ok_or(WRONG_KIND),
            None => Err(WRONG_KIND),
        })
        .collect()
}

fn integer(value: &Value) -> Option<i64> {
    if let Value::Integer(number) = value { Some(*number) } else { None }
}

fn small(value: &Value) -> Option<i16> {
    integer(value).and_then(|number| number.try_into().ok())
}

fn text(value: &Value) -> Option<&str> {
    if let Value::Text(text) = value { Some(text) } else { None }
}

fn bytes(value: &Value) -> Option<&[u8]> {
    if let Value::Bytes(bytes) = value { Some(bytes) } else { None }
}
