//! Lines of `strace -f -y -xx` as calls with a start and an end.

use std::collections::HashMap;

use anyhow::{Context as _, Result};

/// One finished system call. Start and end are line numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Such as `pwrite64`.
    pub name: String,
    /// The path or kind of the file that the first argument is a descriptor of.
    pub file: String,
    /// Everything in quotes, one after the other; each character is a byte.
    pub data: String,
    /// Where it began.
    pub start: usize,
    /// Where it was over.
    pub end: usize,
    /// What it returned.
    pub result: i64,
}

/// Reads a whole trace. Calls that never returned are left out: nothing may rely on them.
///
/// # Errors
/// A line that is none of strace's.
pub fn parse(text: &str) -> Result<Vec<Call>> {
    let mut unfinished: HashMap<&str, (usize, &str)> = HashMap::new();
    let mut calls = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let (pid, rest) = line.split_once(' ').with_context(|| format!("line {number} has no process id"))?;
        let rest = rest.trim_start();
        if rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        if let Some(beginning) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(pid, (number, beginning));
        } else if rest.starts_with("<...") {
            let end = rest.split_once("resumed>").context("a resumed call")?.1;
            if let Some((start, beginning)) = unfinished.remove(pid) {
                calls.extend(call(start, number, beginning, end)?);
            }
        } else {
            // The last one: an error is followed by its text in parentheses, and data is hexadecimal.
            let split = rest.rfind(" = ").with_context(|| format!("line {number} is no call"))?;
            calls.extend(call(number, number, &rest[..split], &rest[split..])?);
        }
    }
    Ok(calls)
}

/// `None` for a call that was cut off by the process's end.
fn call(start: usize, end: usize, beginning: &str, ending: &str) -> Result<Option<Call>> {
    let Some((_, result)) = ending.rsplit_once(" = ") else { return Ok(None) };
    let Some(result) = result.split_whitespace().next().and_then(|number| number.parse().ok()) else { return Ok(None) };
    let (name, arguments) = beginning.split_once('(').context("a call has arguments")?;
    let file = arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or("", |(file, _)| file);
    let data: String = arguments.split('"').skip(1).step_by(2).map(decode).collect();
    Ok(Some(Call { name: name.to_owned(), file: decode(file), data, start, end, result }))
}

/// `\x41` to `A`; other characters stay.
fn decode(text: &str) -> String {
    let mut parts = text.split("\\x");
    let mut out: String = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                out.push_str(&part[2..]);
            }
            None => out.push_str(part),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = r#"7   pwrite64(7<\x61\x2d\x77\x61\x6c>, "\x00\x41", 2, 32 <unfinished ...>
8   writev(5<\x73\x6f\x63\x6b\x65\x74\x3a\x5b\x31\x5d>, [{iov_base="\x31", iov_len=1}, {iov_base="\x32", iov_len=1}], 2) = 2
7   <... pwrite64 resumed>)           = 2
7   fdatasync(7<\x61\x2d\x77\x61\x6c>) = 0
8   sendto(5<\x73>, "\x68", 1, MSG_NOSIGNAL, NULL, 0) = -1 EPIPE (Broken pipe)
8   fdatasync(7<\x61\x2d\x77\x61\x6c>) = ?
7   +++ killed by SIGKILL +++
"#;

    #[test]
    fn calls_have_a_start_and_an_end() -> Result<()> {
        let calls = parse(TRACE)?;
        let seen: Vec<_> = calls
            .iter()
            .map(|call| (call.name.as_str(), call.file.as_str(), call.data.as_str(), call.start, call.end, call.result))
            .collect();
        assert_eq!(
            seen,
            [
                ("writev", "socket:[1]", "12", 1, 1, 2),
                ("pwrite64", "a-wal", "\0A", 0, 2, 2),
                ("fdatasync", "a-wal", "", 3, 3, 0),
                ("sendto", "s", "h", 4, 4, -1),
            ]
        );
        Ok(())
    }
}
