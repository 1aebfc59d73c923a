//! Looking for many ids in a file, as bytes and as texts.

use std::collections::HashMap;

use martlet_protocol::id::to_base64;

/// How bytes are written in texts.
#[must_use]
pub fn writings(id: &[u8]) -> [String; 3] {
    let url = to_base64(id);
    let hex = id.iter().map(|byte| format!("{byte:02x}")).collect();
    [url.replace('-', "+").replace('_', "/"), url, hex]
}

/// The places of all runs of four bytes in a file, for many searches in it.
pub struct Haystack<'a> {
    bytes: &'a [u8],
    starts: HashMap<[u8; 4], Vec<usize>>,
}

impl<'a> Haystack<'a> {
    /// Notes all places.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        let mut starts = HashMap::<_, Vec<usize>>::new();
        for (start, run) in bytes.windows(4).enumerate() {
            // Empty pages would make one long list.
            if let Ok(run) = <[u8; 4]>::try_from(run)
                && run != [0; 4]
                && run != *b"mmmm"
            {
                starts.entry(run).or_default().push(start);
            }
        }
        Self { bytes, starts }
    }

    /// Whether the file has these bytes, or a text of them.
    #[must_use]
    pub fn has(&self, id: &[u8]) -> bool {
        let texts = writings(id).map(String::into_bytes);
        std::iter::once(id).chain(texts.iter().map(Vec::as_slice)).any(|needle| {
            let starts = needle.first_chunk().and_then(|run| self.starts.get(run));
            starts.is_some_and(|starts| starts.iter().any(|start| self.bytes[*start..].starts_with(needle)))
        })
    }
}
