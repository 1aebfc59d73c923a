//! Values that are allowed alone but don't work together.
//!
//! Each refusal names both keys with their values and says which way to change them.

use std::net::SocketAddr;

use super::load::ConfigError;
use super::sections::{Config, RedisKind};

/// Bytes one fork takes in a frame at most beside its header, in either sub-protocol: two ids, names of fields, base64.
const FORK_OVERHEAD_BYTES: usize = 120;
/// Bytes around an entry's content: ids, times, names of fields, seal.
const ENTRY_OVERHEAD_BYTES: usize = 1024;
/// The size of the built-in suite's fork header, which is what a full send is reckoned with.
const HEADER_BYTES: usize = 85;

/// Everything in `config` that does not work together.
pub fn refused(config: &Config) -> Vec<ConfigError> {
    [
        listeners(config),
        inline_content(config),
        frames(config),
        outbound(config),
        quota(config),
        stock(config),
        pings(config),
        send_burst(config),
        ephemeral_burst(config),
        account_send_burst(config),
        frame_burst(config),
        account_frame_burst(config),
        address_frame_burst(config),
        account_ephemeral_burst(config),
        request_burst(config),
        connection_burst(config),
        claims(config),
        reconnects(config),
        several_servers(config),
        relay_alone(config),
        replicas_alone(config),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn refuse(keys: [&str; 2], why: String) -> Option<ConfigError> {
    Some(ConfigError::Combination { keys: keys.join(" and "), why })
}

fn listeners(config: &Config) -> Option<ConfigError> {
    let (public, internal) = (config.server.listen, config.server.internal_listen);
    let overlap = |a: SocketAddr, b: SocketAddr| a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    if public.port() == 0 || public.port() != internal.port() || !overlap(public, internal) {
        return None;
    }
    let why = format!("{public} and {internal} are the same place; give one of them another port");
    refuse(["server.listen", "server.internal_listen"], why)
}

fn inline_content(config: &Config) -> Option<ConfigError> {
    let (inline, max) = (config.messages.inline_content_bytes, config.messages.max_content_bytes);
    if inline <= max {
        return None;
    }
    let why = format!(
        "content of {inline} bytes is inlined but only {max} are accepted; lower the first or raise the second"
    );
    refuse(["messages.inline_content_bytes", "messages.max_content_bytes"], why)
}

/// A frame must hold the largest send, in base64 too.
fn frames(config: &Config) -> Option<ConfigError> {
    let messages = &config.messages;
    let fork = HEADER_BYTES * 4 / 3 + FORK_OVERHEAD_BYTES;
    let needed = messages.max_content_bytes * 4 / 3 + messages.max_forks_per_send * fork + ENTRY_OVERHEAD_BYTES;
    let frame = config.socket.max_frame_bytes;
    if needed <= frame {
        return None;
    }
    let why =
        format!("the largest send takes {needed} bytes and a frame holds {frame}; raise the last or lower the others");
    refuse(["messages.max_content_bytes, messages.max_forks_per_send", "socket.max_frame_bytes"], why)
}

/// One entry must fit into what may wait for a slow device, or it would never be delivered.
fn outbound(config: &Config) -> Option<ConfigError> {
    let needed = (config.messages.max_content_bytes + config.messages.max_header_bytes) * 4 / 3 + ENTRY_OVERHEAD_BYTES;
    let budget = config.socket.outbound_budget_bytes;
    if needed <= budget {
        return None;
    }
    let why = format!("the largest entry takes {needed} bytes and only {budget} may wait for a device; raise the last");
    refuse(["messages.max_content_bytes", "socket.outbound_budget_bytes"], why)
}

fn quota(config: &Config) -> Option<ConfigError> {
    let needed = (config.messages.max_content_bytes + config.messages.max_header_bytes + ENTRY_OVERHEAD_BYTES) as u64;
    let quota = config.mailbox.max_bytes;
    if needed <= quota {
        return None;
    }
    let why = format!("the largest entry takes {needed} bytes and a mailbox holds {quota}; raise the last");
    refuse(["messages.max_content_bytes", "mailbox.max_bytes"], why)
}

fn stock(config: &Config) -> Option<ConfigError> {
    let (low, max) = (config.prekeys.low_water, config.prekeys.max_one_time);
    if low < max {
        return None;
    }
    let why = format!("devices would be asked for more below {low} but may keep only {max}; lower the first");
    refuse(["prekeys.low_water", "prekeys.max_one_time"], why)
}

fn pings(config: &Config) -> Option<ConfigError> {
    let (interval, timeout) = (config.socket.ping_interval, config.socket.pong_timeout);
    if timeout <= interval {
        return None;
    }
    let why = format!("an answer may take {timeout:?} but the next ping goes out after {interval:?}; lower the second");
    refuse(["socket.ping_interval", "socket.pong_timeout"], why)
}

fn send_burst(config: &Config) -> Option<ConfigError> {
    let limits = &config.limits;
    let keys = ["limits.sends_per_device_per_second", "limits.sends_burst"];
    burst(limits.sends_per_device_per_second, limits.sends_burst, keys)
}

fn ephemeral_burst(config: &Config) -> Option<ConfigError> {
    let limits = &config.limits;
    let keys = ["limits.ephemeral_per_device_per_second", "limits.ephemeral_burst"];
    burst(limits.ephemeral_per_device_per_second, limits.ephemeral_burst, keys)
}

fn account_send_burst(config: &Config) -> Option<ConfigError> {
    let limits = &config.limits;
    let keys = ["limits.sends_per_account_per_second", "limits.sends_per_account_burst"];
    burst(limits.sends_per_account_per_second, limits.sends_per_account_burst, keys)
}

fn account_ephemeral_burst(config: &Config) -> Option<ConfigError> {
    let limits = &config.limits;
    let keys = ["limits.ephemeral_per_account_per_second", "limits.ephemeral_per_account_burst"];
    burst(limits.ephemeral_per_account_per_second, limits.ephemeral_per_account_burst, keys)
}

fn account_frame_burst(config: &Config) -> Option<ConfigError> {
    let limits = &config.limits;
    let keys = ["limits.frames_per_account_per_second", "limits.frames_per_account_burst"];
    burst(limits.frames_per_account_per_second, limits.frames_per_account_burst, keys)
}

fn address_frame_burst(config: &Config) -> Option<ConfigError> {
    let limits = &config.limits;
    let keys = ["limits.frames_per_address_per_second", "limits.frames_per_address_burst"];
    burst(limits.frames_per_address_per_second, limits.frames_per_address_burst, keys)
}

fn frame_burst(config: &Config) -> Option<ConfigError> {
    let limits = &config.limits;
    let keys = ["limits.frames_per_socket_per_second", "limits.frames_burst"];
    burst(limits.frames_per_socket_per_second, limits.frames_burst, keys)
}

fn request_burst(config: &Config) -> Option<ConfigError> {
    let limits = &config.limits;
    let keys = ["limits.requests_per_address_per_second", "limits.requests_per_address_burst"];
    burst(limits.requests_per_address_per_second, limits.requests_per_address_burst, keys)
}

fn connection_burst(config: &Config) -> Option<ConfigError> {
    let limits = &config.limits;
    let keys = ["limits.connections_per_address_per_second", "limits.connections_per_address_burst"];
    burst(limits.connections_per_address_per_second, limits.connections_per_address_burst, keys)
}

fn burst(rate: u32, burst: u32, keys: [&str; 2]) -> Option<ConfigError> {
    if rate == 0 || burst >= rate {
        return None;
    }
    let why = format!("{rate} a second need a burst of at least as many, not {burst}; raise the second");
    refuse(keys, why)
}

/// A claim takes one of the rate per account, all at once: for a group that is larger it would be refused for ever.
fn claims(config: &Config) -> Option<ConfigError> {
    let (rate, members) = (config.limits.claims_per_claimer_per_minute, config.conversations.max_members_group);
    if rate == 0 || rate as usize >= members {
        return None;
    }
    let why = format!(
        "a first message to a group claims keys of up to {members} accounts at once and only {rate} a minute are allowed; raise the \
         first to at least {members} or lower the second"
    );
    refuse(["limits.claims_per_claimer_per_minute", "conversations.max_members_group"], why)
}

fn reconnects(config: &Config) -> Option<ConfigError> {
    let (min, max) = (config.relay.reconnect_min, config.relay.reconnect_max);
    if min <= max {
        return None;
    }
    let why = format!("the first pause of {min:?} is longer than the longest of {max:?}; lower the first");
    refuse(["relay.reconnect_min", "relay.reconnect_max"], why)
}

/// Nodes that don't share a database have nothing to tell each other.
fn relay_alone(config: &Config) -> Option<ConfigError> {
    if config.relay.redis_url.is_none() || config.storage.is_shared() {
        return None;
    }
    let why =
        "nodes talk through Redis only if they share a database; set the second, or leave the first empty".to_owned();
    refuse(["relay.redis_url", "storage.database_url"], why)
}

fn replicas_alone(config: &Config) -> Option<ConfigError> {
    if config.storage.replica_urls.is_empty() || config.storage.is_shared() {
        return None;
    }
    refuse(["storage.replica_urls", "storage.database_url"], "replicas of no database; set the second".to_owned())
}

fn several_servers(config: &Config) -> Option<ConfigError> {
    let several = config.relay.redis_url.as_ref().is_some_and(|url| url.reveal().count() > 1);
    if !several || config.relay.redis_kind != RedisKind::Single {
        return None;
    }
    let why = "several addresses are given, but the kind is \"single\"; say \"cluster\" or \"sentinel\"".to_owned();
    refuse(["relay.redis_url", "relay.redis_kind"], why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, SecretUrl, kib, mib, secs};

    fn keys_refused(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        refused(&config).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_defaults_work_together() {
        assert_eq!(keys_refused(|_| ()), [""; 0]);
    }

    #[test]
    fn each_bad_combination_names_its_keys() {
        let one = |expected: &str, change: fn(&mut Config)| {
            let refused = keys_refused(change);
            assert!(refused.iter().any(|text| text.starts_with(expected)), "{expected}: {refused:?}");
        };
        one("server.listen and server.internal_listen: ", |c| c.server.internal_listen = c.server.listen);
        one("messages.inline_content_bytes and ", |c| c.messages.inline_content_bytes = kib(128));
        one("messages.max_content_bytes, messages.max_forks_per_send and socket.max_frame_bytes: ", |c| {
            c.messages.max_content_bytes = mib(1);
        });
        one("messages.max_content_bytes and socket.outbound_budget_bytes: ", |c| {
            c.messages.max_content_bytes = kib(250)
        });
        one("messages.max_content_bytes and mailbox.max_bytes: ", |c| c.messages.max_content_bytes = mib(200));
        one("prekeys.low_water and ", |c| c.prekeys.low_water = 200);
        one("socket.ping_interval and ", |c| c.socket.ping_interval = secs(5));
        one("limits.sends_per_device_per_second and ", |c| c.limits.sends_burst = 1);
        one("relay.reconnect_min and ", |c| c.relay.reconnect_min = secs(6));
        one("relay.redis_url and ", |c| c.relay.redis_url = Some(SecretUrl::new("redis://a,redis://b")));
        one("limits.ephemeral_per_device_per_second and ", |c| c.limits.ephemeral_burst = 1);
        one("limits.sends_per_account_per_second and ", |c| c.limits.sends_per_account_burst = 1);
        one("limits.frames_per_socket_per_second and ", |c| c.limits.frames_burst = 1);
        one("limits.frames_per_account_per_second and ", |c| c.limits.frames_per_account_burst = 1);
        one("limits.frames_per_address_per_second and ", |c| c.limits.frames_per_address_burst = 1);
        one("limits.ephemeral_per_account_per_second and ", |c| c.limits.ephemeral_per_account_burst = 1);
        one("limits.requests_per_address_per_second and ", |c| c.limits.requests_per_address_burst = 1);
        one("limits.connections_per_address_per_second and ", |c| c.limits.connections_per_address_burst = 1);
        one("limits.claims_per_claimer_per_minute and conversations.max_members_group: ", |c| {
            c.limits.claims_per_claimer_per_minute = 255;
        });
        one("limits.claims_per_claimer_per_minute and ", |c| c.conversations.max_members_group = 601);
    }

    #[test]
    fn claims_without_a_rate_are_enough_for_any_group() {
        assert_eq!(keys_refused(|c| c.limits.claims_per_claimer_per_minute = 0), [""; 0]);
        assert_eq!(keys_refused(|c| c.limits.claims_per_claimer_per_minute = 256), [""; 0]);
    }

    #[test]
    fn free_ports_never_collide() {
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        assert_eq!(keys_refused(|c| (c.server.listen, c.server.internal_listen) = (any, any)), [""; 0]);
    }
}
