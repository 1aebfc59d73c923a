//! Finding the key that somebody probably meant.

use super::declare::Key;

/// The known key that `given` resembles most, if it resembles any: a few letters away, or the same name in another section.
pub fn key(given: &str, known: Vec<Key>) -> Option<String> {
    let given = given.to_ascii_lowercase().replace('-', "_");
    let name = given.rsplit('.').next().unwrap_or(&given);
    known
        .into_iter()
        .map(|key| {
            let full = format!("{}.{}", key.section, key.name);
            // A right name in the wrong section is a smaller mistake than a wrong name, hence the plus one.
            let distance = distance(&given, &full).min(distance(name, key.name) + 1);
            (distance, full)
        })
        .filter(|(distance, _)| *distance <= 1 + name.len() / 4)
        .min()
        .map(|(_, full)| full)
}

/// Letters to insert, delete or replace to get from `a` to `b` (Levenshtein's distance, by rows).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn slips_are_recognised_and_inventions_are_not() {
        let nearest = |given: &str| key(given, Config::default().keys());
        assert_eq!(nearest("server.lisen").as_deref(), Some("server.listen"));
        assert_eq!(nearest("server.max-connections").as_deref(), Some("server.max_connections"));
        assert_eq!(nearest("listen").as_deref(), Some("server.listen"));
        assert_eq!(nearest("messages.max_bytes").as_deref(), Some("mailbox.max_bytes"));
        assert_eq!(nearest("colour.of_the_sea"), None);
    }
}
