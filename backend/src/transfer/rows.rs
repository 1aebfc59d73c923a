//! A table as a file: its rows in the order of the key, one value after the other. The same bytes are hashed on the way out of one database
//! and, after the import, on the way out of the other.
//!
//! ```text
//! row     = value of each column, in the order of the table's columns
//! value   = 0                                       NULL
//!         | 1 ‖ number (64 bits, two's complement)
//!         | 2 ‖ length (32 bits) ‖ UTF-8
//!         | 3 ‖ length (32 bits) ‖ bytes
//! ```
//! Numbers are big-endian. There is no header: format and schema stand in the manifest.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, BufWriter, Read, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use martlet_storage::transfer::{Row, Table, Value};
use sha2::{Digest as _, Sha256};

use super::{TableSum, TransferError, at, create_private, hexadecimal};

/// No value is longer: the largest content that a config allows is 16 MiB.
const MAX_VALUE_BYTES: u32 = 64 << 20;
/// What is read and written at once.
const BUFFER_BYTES: usize = 1 << 20;

mod tag {
    pub(super) const NULL: u8 = 0;
    pub(super) const INTEGER: u8 = 1;
    pub(super) const TEXT: u8 = 2;
    pub(super) const BYTES: u8 = 3;
}

/// Where a table's rows are in a folder.
pub fn path(folder: &Path, table: &Table) -> PathBuf {
    folder.join(format!("{}.rows", table.name))
}

fn encode(row: &[Value], out: &mut Vec<u8>) {
    for value in row {
        match value {
            Value::Text(text) => encode_sized(tag::TEXT, text.as_bytes(), out),
            Value::Bytes(bytes) => encode_sized(tag::BYTES, bytes, out),
            Value::Null => out.push(tag::NULL),
            Value::Integer(number) => {
                out.push(tag::INTEGER);
                out.extend(number.to_be_bytes());
            }
        }
    }
}

fn encode_sized(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    // A value of 4 GiB fits into neither database.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.push(tag);
    out.extend(length.to_be_bytes());
    out.extend(bytes);
}

/// Counts and hashes rows.
#[derive(Default)]
pub struct Sum {
    rows: u64,
    bytes: u64,
    hash: Sha256,
    encoded: Vec<u8>,
}

impl Sum {
    /// Adds rows; returns their bytes.
    pub fn add(&mut self, rows: &[Row]) -> &[u8] {
        self.encoded.clear();
        rows.iter().for_each(|row| encode(row, &mut self.encoded));
        self.hash.update(&self.encoded);
        self.rows += rows.len() as u64;
        self.bytes += self.encoded.len() as u64;
        &self.encoded
    }

    /// What it came to.
    pub fn of(self, table: &Table) -> TableSum {
        let sha256 = hexadecimal(&self.hash.finalize());
        TableSum { table: table.name.to_owned(), rows: self.rows, bytes: self.bytes, sha256 }
    }
}

/// Writes a table's file.
pub struct Writer {
    path: PathBuf,
    file: BufWriter<fs::File>,
    sum: Sum,
}

impl Writer {
    /// Creates it.
    pub fn create(folder: &Path, table: &Table) -> Result<Self, TransferError> {
        let path = path(folder, table);
        let file = create_private(&path).map_err(at(&path))?;
        Ok(Self { path, file: BufWriter::with_capacity(BUFFER_BYTES, file), sum: Sum::default() })
    }

    /// Adds rows.
    pub fn add(&mut self, rows: &[Row]) -> Result<(), TransferError> {
        self.file.write_all(self.sum.add(rows)).map_err(at(&self.path))
    }

    /// Waits until it is on disk.
    pub fn finish(mut self, table: &Table) -> Result<TableSum, TransferError> {
        self.file.flush().and_then(|()| self.file.get_ref().sync_all()).map_err(at(&self.path))?;
        Ok(self.sum.of(table))
    }
}

/// Whether the file is the one that was exported: its length and its hash. Tells how many bytes it has read as it goes.
pub fn is_intact(path: &Path, sum: &TableSum, read: impl Fn(u64)) -> Result<bool, TransferError> {
    let mut file = fs::File::open(path).map_err(at(path))?;
    if file.metadata().map_err(at(path))?.len() != sum.bytes {
        return Ok(false);
    }
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer).map_err(at(path))? {
            0 => return Ok(hexadecimal(&hash.finalize()) == sum.sha256),
            length => {
                hash.update(&buffer[..length]);
                read(length as u64);
            }
        }
    }
}

/// Reads a table's file.
pub struct Reader {
    path: PathBuf,
    file: BufReader<fs::File>,
    columns: usize,
    at: u64,
}

impl Reader {
    /// Opens it where a row begins.
    pub fn open(folder: &Path, table: &Table, at_bytes: u64) -> Result<Self, TransferError> {
        let path = path(folder, table);
        let mut file = fs::File::open(&path).map_err(at(&path))?;
        file.seek(SeekFrom::Start(at_bytes)).map_err(at(&path))?;
        let file = BufReader::with_capacity(BUFFER_BYTES, file);
        Ok(Self { path, file, columns: table.columns.len(), at: at_bytes })
    }

    /// Where the next row begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// At most so many rows; none at the end.
    pub fn page(&mut self, rows: usize) -> Result<Vec<Row>, TransferError> {
        let mut page = Vec::new();
        while page.len() < rows && !self.is_at_end()? {
            let row = (0..self.columns).map(|_| self.value()).collect::<io::Result<Row>>();
            page.push(row.map_err(|error| match error.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => TransferError::Damaged(self.path.clone()),
                _ => at(&self.path)(error),
            })?);
        }
        Ok(page)
    }

    fn is_at_end(&mut self) -> Result<bool, TransferError> {
        Ok(self.file.fill_buf().map_err(at(&self.path))?.is_empty())
    }

    fn value(&mut self) -> io::Result<Value> {
        let [tag] = self.take()?;
        Ok(match tag {
            tag::NULL => Value::Null,
            tag::INTEGER => Value::Integer(i64::from_be_bytes(self.take()?)),
            tag::TEXT => Value::Text(String::from_utf8(self.sized()?).map_err(|_| io::ErrorKind::InvalidData)?),
            tag::BYTES => Value::Bytes(self.sized()?),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn sized(&mut self) -> io::Result<Vec<u8>> {
        let length = u32::from_be_bytes(self.take()?);
        if length > MAX_VALUE_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length as usize];
        self.file.read_exact(&mut bytes)?;
        self.at += u64::from(length);
        Ok(bytes)
    }
}
