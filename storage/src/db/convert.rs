//! Between what the tables hold and what the code means: numbers, ids, protobuf.

use super::StorageError;

/// A number on its way into a column. Over the column's range it is stored as its greatest value (times and sizes never are).
pub(crate) fn store_u64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A number from a column.
pub(crate) fn read_u64(value: i64) -> Result<u64, StorageError> {
    u64::try_from(value).map_err(|_| StorageError::Inconsistent("a negative number"))
}

/// Bytes of a fixed length from a column.
pub(crate) fn read_id<T>(bytes: &[u8]) -> Result<T, StorageError>
where
    T: for<'a> TryFrom<&'a [u8]>,
{
    T::try_from(bytes).map_err(|_| StorageError::Inconsistent("bytes of another length"))
}

/// Protobuf from a column.
pub(crate) fn read_message<T: prost::Message + Default>(bytes: &[u8]) -> Result<T, StorageError> {
    T::decode(bytes).map_err(|_| StorageError::Inconsistent("a protobuf that can't be read"))
}

/// An enum of the wire schema from a column.
pub(crate) fn read_enum<T: TryFrom<i32>>(value: i16) -> Result<T, StorageError> {
    T::try_from(i32::from(value)).map_err(|_| StorageError::Inconsistent("an unknown number of an enum"))
}

/// An enum of the wire schema on its way into a column.
pub(crate) fn store_enum(value: impl Into<i32>) -> i16 {
    i16::try_from(value.into()).unwrap_or(0)
}
