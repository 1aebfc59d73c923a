//! How the addresses of services are written. They may hold passwords, so what is printed of them leaves those out.

use martlet_storage::DatabaseUrl;

use super::{
    rules::{Rule, quoted},
    secret::SecretUrl,
};

/// Address of a PostgreSQL database, or nothing.
pub struct Database;
/// Addresses of PostgreSQL databases, separated by commas, or nothing.
pub struct Databases;
/// Addresses of Redis, separated by commas, or nothing.
pub(super) struct RedisUrls;

impl Rule<Option<SecretUrl>> for RedisUrls {
    fn read(&self, text: &str) -> Option<Option<SecretUrl>> {
        if text.is_empty() {
            return Some(None);
        }
        let parses = |part: &str| {
            let known = part.starts_with("redis://") || part.starts_with("rediss://");
            known && redis::parse_redis_url(part).is_some_and(|url| url.has_host())
        };
        text.split(',').map(str::trim).all(parses).then(|| Some(SecretUrl::new(text)))
    }

    fn write(&self, value: &Option<SecretUrl>) -> String {
        quoted(&value.as_ref().map(ToString::to_string).unwrap_or_default())
    }

    fn allowed(&self) -> String {
        "\"redis://host:port\", or \"rediss://user:password@host:port\" with TLS; several with commas between; or \"\" for none"
            .into()
    }
}

const DATABASE: &str = "\"postgres://user:password@host:5432/database\" (with ?sslmode=require for TLS)";

impl Rule<Option<DatabaseUrl>> for Database {
    fn read(&self, text: &str) -> Option<Option<DatabaseUrl>> {
        if text.is_empty() { Some(None) } else { DatabaseUrl::new(text).map(Some) }
    }

    fn write(&self, value: &Option<DatabaseUrl>) -> String {
        quoted(&value.as_ref().map(ToString::to_string).unwrap_or_default())
    }

    fn allowed(&self) -> String {
        format!("{DATABASE}, or \"\" for none")
    }
}

impl Rule<Vec<DatabaseUrl>> for Databases {
    fn read(&self, text: &str) -> Option<Vec<DatabaseUrl>> {
        if text.is_empty() {
            return Some(Vec::new());
        }
        text.split(',').map(|part| DatabaseUrl::new(part.trim())).collect()
    }

    fn write(&self, value: &Vec<DatabaseUrl>) -> String {
        quoted(&value.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    }

    fn allowed(&self) -> String {
        format!("{DATABASE}; several with commas between; or \"\" for none")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_redis_are_allowed() {
        assert!(
            RedisUrls.read("redis://localhost:6379, rediss://u:p@example.org:6380/1").is_some_and(|url| url.is_some())
        );
        assert_eq!(RedisUrls.read(""), Some(None));
        for wrong in ["redis://localhost,http://example.org", "redis://", "localhost:6379", "redis://a,"] {
            assert_eq!(RedisUrls.read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_addresses_of_postgresql_are_databases() {
        assert!(Database.read("postgres://u:p@db/chat").is_some_and(|url| url.is_some()));
        assert_eq!(Database.read("mysql://db/chat"), None);
        assert_eq!(Databases.read("postgres://a/x, postgres://b/x").map(|urls| urls.len()), Some(2));
    }
}
