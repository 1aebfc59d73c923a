//! Tables as files, in the format of `martlet export` (docs/MIGRATION.md): reading the few rows of a template, and writing many.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// What is written at once.
const BUFFER_BYTES: usize = 1 << 20;

mod tag {
    pub(super) const NULL: u8 = 0;
    pub(super) const INTEGER: u8 = 1;
    pub(super) const TEXT: u8 = 2;
    pub(super) const BYTES: u8 = 3;
}

/// A value of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
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

impl Value {
    /// A number that fits: keys, times in milliseconds.
    pub fn number(number: u64) -> Self {
        Self::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }

    /// A copy of some bytes.
    pub fn bytes(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bytes(bytes.as_ref().to_vec())
    }
}

/// The values of a row.
pub type Row = Vec<Value>;

fn encode(row: &[Value], out: &mut Vec<u8>) -> Result<()> {
    for value in row {
        match value {
            Value::Null => out.push(tag::NULL),
            Value::Integer(number) => {
                out.push(tag::INTEGER);
                out.extend(number.to_be_bytes());
            }
            Value::Text(text) => sized(tag::TEXT, text.as_bytes(), out)?,
            Value::Bytes(bytes) => sized(tag::BYTES, bytes, out)?,
        }
    }
    Ok(())
}

fn sized(tag: u8, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
    out.push(tag);
    out.extend(u32::try_from(bytes.len()).context("a value of 4 GiB")?.to_be_bytes());
    out.extend(bytes);
    Ok(())
}

/// Reads all rows of a small table.
///
/// # Errors
/// When it can't be read, or its rows have another number of columns.
pub fn read(folder: &Path, table: &str, columns: usize) -> Result<Vec<Row>> {
    let path = folder.join(format!("{table}.rows"));
    let text = fs::read(&path).with_context(|| format!("{} can't be read", path.display()))?;
    decode(&text, columns).with_context(|| format!("table {table} is not as this program knows it"))
}

fn decode(mut bytes: &[u8], columns: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        rows.push((0..columns).map(|_| value(&mut bytes)).collect::<Result<Row>>()?);
    }
    Ok(rows)
}

fn value(bytes: &mut &[u8]) -> Result<Value> {
    let [tag] = take(bytes)?;
    Ok(match tag {
        tag::NULL => Value::Null,
        tag::INTEGER => Value::Integer(i64::from_be_bytes(take(bytes)?)),
        tag::TEXT => Value::Text(String::from_utf8(take_sized(bytes)?)?),
        tag::BYTES => Value::Bytes(take_sized(bytes)?),
        other => bail!("a value of kind {other}"),
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk().context("a value that is cut off")?;
    *bytes = rest;
    Ok(*taken)
}

fn take_sized(bytes: &mut &[u8]) -> Result<Vec<u8>> {
    let length = u32::from_be_bytes(take(bytes)?) as usize;
    let (taken, rest) = bytes.split_at_checked(length).context("a value that is cut off")?;
    *bytes = rest;
    Ok(taken.to_vec())
}

/// A table's entry in the manifest.
#[derive(Debug, Serialize)]
pub struct Sum {
    /// Its name.
    pub table: &'static str,
    /// How many rows.
    pub rows: u64,
    /// Length of its file.
    pub bytes: u64,
    /// SHA-256 of its file, in hexadecimal.
    pub sha256: String,
}

/// Writes a table's file. The caller puts the rows in the order of the table's key.
pub struct Writer {
    table: &'static str,
    columns: usize,
    file: BufWriter<File>,
    hash: Sha256,
    rows: u64,
    bytes: u64,
    encoded: Vec<u8>,
}

impl Writer {
    /// Creates it.
    ///
    /// # Errors
    /// When it is there, or can't be written.
    pub fn create(folder: &Path, table: &'static str, columns: usize) -> Result<Self> {
        let path = folder.join(format!("{table}.rows"));
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("{} can't be written", path.display()))?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok(Self { table, columns, file, hash: Sha256::new(), rows: 0, bytes: 0, encoded: Vec::new() })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn add(&mut self, row: &[Value]) -> Result<()> {
        ensure!(row.len() == self.columns, "a row of {} has {} columns", self.table, row.len());
        self.encoded.clear();
        encode(row, &mut self.encoded)?;
        self.hash.update(&self.encoded);
        self.rows += 1;
        self.bytes += self.encoded.len() as u64;
        Ok(self.file.write_all(&self.encoded)?)
    }

    /// Ends it.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn finish(mut self) -> Result<Sum> {
        self.file.flush()?;
        let sha256 = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Sum { table: self.table, rows: self.rows, bytes: self.bytes, sha256 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let rows = [
            vec![Value::Integer(-3), Value::Null, Value::Text("a name".to_owned())],
            vec![Value::number(u64::MAX), Value::bytes([0xff; 300]), Value::Text(String::new())],
        ];
        let mut writer = Writer::create(folder.path(), "things", 3).expect("created");
        rows.iter().for_each(|row| writer.add(row).expect("written"));
        assert!(writer.add(&rows[0][..2]).is_err(), "a column is missing");
        let sum = writer.finish().expect("ended");
        let text = fs::read(folder.path().join("things.rows")).expect("there");
        assert_eq!((sum.rows, sum.bytes), (2, text.len() as u64));
        assert_eq!(sum.sha256, Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        assert_eq!(read(folder.path(), "things", 3).expect("read"), rows);
        assert!(read(folder.path(), "things", 4).is_err(), "another number of columns");
        assert!(decode(&text[..text.len() - 1], 3).is_err(), "cut off");
    }

    #[test]
    fn the_format_is_the_documented_one() {
        let mut out = Vec::new();
        encode(&[Value::Null, Value::Integer(1), Value::Text("é".to_owned()), Value::Bytes(vec![7])], &mut out)
            .expect("encoded");
        assert_eq!(out, [0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 2, 0xc3, 0xa9, 3, 0, 0, 0, 1, 7]);
    }
}
