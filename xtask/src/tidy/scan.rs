//! Just enough understanding of Rust's text for the rules: what is comment or literal, where an item ends, which lines are tests.
//!
//! It is not a parser. Where it errs, it errs on code that rustfmt doesn't produce.

/// The text with comments and the insides of string and character literals replaced by spaces, so that every byte that is left is code
/// and stands where it stood.
pub fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match literal_end(bytes, at) {
            Some(end) => end,
            None => {
                at += 1;
                continue;
            }
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    // Every byte of a blanked character became a space, every other character is whole.
    String::from_utf8_lossy(&out).into_owned()
}

/// If a comment or literal begins at `at`: where it ends.
fn literal_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let in_word = at > 0 && is_word(bytes[at - 1]);
    match rest {
        [b'/', b'/', ..] => Some(at + position(rest, b"\n").unwrap_or(rest.len())),
        [b'/', b'*', ..] => Some(at + block_comment(rest)),
        [b'"', ..] => Some(at + quoted(rest, b'"')),
        [b'r', b'"' | b'#', ..] if !in_word => raw_string(rest, 1).map(|len| at + len),
        [b'b', b'r', b'"' | b'#', ..] if !in_word => raw_string(rest, 2).map(|len| at + len),
        // A quote two or more bytes on is a character; otherwise this is a lifetime.
        [b'\'', b'\\', ..] => Some(at + quoted(rest, b'\'')),
        [b'\'', ..] => {
            let character =
                std::str::from_utf8(&rest[1..rest.len().min(5)]).map_or_else(|e| e.valid_up_to(), |s| s.len());
            let first = std::str::from_utf8(&rest[1..=character]).ok()?.chars().next()?.len_utf8();
            (rest.get(1 + first) == Some(&b'\'')).then_some(at + first + 2)
        }
        _ => None,
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn position(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

fn block_comment(bytes: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

fn quoted(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The length of a raw string whose hashes begin after `prefix` bytes; `None` for a raw identifier.
fn raw_string(bytes: &[u8], prefix: usize) -> Option<usize> {
    let hashes = bytes[prefix..].iter().take_while(|byte| **byte == b'#').count();
    let open = prefix + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    Some(position(&bytes[open + 1..], &close).map_or(bytes.len(), |found| open + 1 + found + close.len()))
}

/// Where the item that begins at `from` ends (the byte after its `}` or `;`), in blanked code.
pub fn item_end(code: &str, from: usize) -> usize {
    let (mut round, mut braces) = (0_isize, 0_isize);
    for (offset, byte) in code.as_bytes()[from..].iter().enumerate() {
        match byte {
            b'(' | b'[' => round += 1,
            b')' | b']' => round -= 1,
            b'{' => braces += 1,
            b'}' => {
                braces -= 1;
                if braces == 0 && round == 0 {
                    return from + offset + 1;
                }
            }
            b';' if braces == 0 && round == 0 => return from + offset + 1,
            _ => {}
        }
    }
    code.len()
}

/// The line, counted from 1, on which a byte stands.
pub fn line_at(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

/// Which lines belong to tests: all of a test file, and items under `#[cfg(test)]` or `#[test]`.
pub fn test_lines(code: &str, whole_file: bool) -> Vec<bool> {
    let mut lines = vec![whole_file; code.lines().count()];
    for marker in ["#[cfg(test)]", "#[test]"] {
        for (at, _) in code.match_indices(marker) {
            let end = item_end(code, at + marker.len());
            let (first, last) = (line_at(code, at), line_at(code, end - 1));
            for line in &mut lines[first - 1..last] {
                *line = true;
            }
        }
    }
    lines
}

/// Every function as `(name, byte offset of fn, byte offset after its body)`; declarations without a body are left out.
pub fn functions(code: &str) -> Vec<(&str, usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if at > 0 && is_word(code.as_bytes()[at - 1]) {
            continue;
        }
        let name = code[at + 3..].trim_start();
        let name = &name[..name.bytes().take_while(|byte| is_word(*byte)).count()];
        let end = item_end(code, at);
        if !name.is_empty() && code[..end].ends_with('}') {
            found.push((name, at, end));
        }
    }
    found
}

/// The words (identifiers and keywords) of blanked code with their byte offsets.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let bytes = code.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        at += bytes[at..].iter().position(|byte| is_word(*byte))?;
        let start = at;
        at += bytes[at..].iter().position(|byte| !is_word(*byte)).unwrap_or(bytes.len() - at);
        Some((start, &code[start..at]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_code_stays() {
        let text = "let a = \"x { \\\" y\"; // fn b() {\nlet c = '{'; let d: &'a str = r#\"} \" \"#; /* { /* } */ */ e('\\'', 'ü');";
        let code = blank(text);
        assert_eq!(code.len(), text.len());
        assert!(!code.contains(['{', '}', '"', 'ü']), "{code}");
        assert!(code.contains("let d: &'a str ="), "{code}");
        assert!(code.contains("e("), "{code}");
    }

    #[test]
    fn functions_end_where_their_braces_end() {
        let code = "impl A { fn one(x: [u8; 3]) -> u8 { if x { 1 } else { 2 } }\n fn two();\n}\nconst fn three() {}\n";
        let names: Vec<_> = functions(code)
            .into_iter()
            .map(|(name, from, to)| (name, line_at(code, from), &code[to - 1..to]))
            .collect();
        assert_eq!(names, [("one", 1, "}"), ("three", 4, "}")]);
    }

    #[test]
    fn test_items_are_told_from_others() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n  #[test]\n  fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nuse x;\n";
        let lines = test_lines(code, false);
        assert_eq!(lines, [false, true, true, true, true, true, false, true, true]);
    }
}
