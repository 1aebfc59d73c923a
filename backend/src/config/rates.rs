//! The keys of `limits`: rates that protect the node and its accounts. Written as those in `sections`.

use super::rules::{Count, Switch};

/// Rates go up to a million; more than that is no limit, for which 0 is the word.
const RATE: Count<u32> = Count(0..=1_000_000);

section! {
    /// Rates that protect the node and its accounts. 0 means no limit.
    Limits as "limits" {
        /// Sends per second of one device, over time. Over it a send is refused with the time to wait; the SDK waits and tries again.
        sends_per_device_per_second: u32 = 5, RATE;
        /// Sends a device may make at once after a rest.
        sends_burst: u32 = 200, RATE;
        /// Sends per second of all devices of one account together, over time: an account can't send more by linking more devices.
        sends_per_account_per_second: u32 = 15, RATE;
        /// Sends that the devices of an account may make at once after a rest.
        sends_per_account_burst: u32 = 400, RATE;
        /// Frames of any kind per second on one socket, over time: acks and subscriptions too, and sends that are refused. Over it the socket
        /// is closed with code 4429.
        frames_per_socket_per_second: u32 = 100, RATE;
        /// Frames that may come on a socket at once after a rest.
        frames_burst: u32 = 1000, RATE;
        /// The same of all sockets of one account together.
        frames_per_account_per_second: u32 = 300, RATE;
        /// Frames that may come on the sockets of an account at once after a rest.
        frames_per_account_burst: u32 = 3000, RATE;
        /// The same of all sockets from one address together. An address may be that of a whole company, whose sockets would all be closed;
        /// behind a proxy it is the proxy's unless trust_forwarded_for is on.
        frames_per_address_per_second: u32 = 20_000, RATE;
        /// Frames that may come on the sockets from an address at once after a rest.
        frames_per_address_burst: u32 = 100_000, RATE;
        /// Ephemeral messages (typing, presence, call signalling) per second of one device, over time.
        ephemeral_per_device_per_second: u32 = 10, RATE;
        /// Ephemeral messages a device may send at once after a rest.
        ephemeral_burst: u32 = 50, RATE;
        /// The same of all devices of one account together.
        ephemeral_per_account_per_second: u32 = 30, RATE;
        /// Ephemeral messages that the devices of an account may send at once after a rest.
        ephemeral_per_account_burst: u32 = 150, RATE;
        /// Attempts to sign in per minute from one address.
        sign_ins_per_address_per_minute: u32 = 10, RATE;
        /// Attempts to sign in per minute to one account, from wherever: what guessing passwords from many addresses comes to.
        sign_ins_per_account_per_minute: u32 = 20, RATE;
        /// Accounts made per minute from one address.
        registrations_per_address_per_minute: u32 = 10, RATE;
        /// Accounts whose prekeys one device may claim per minute. The first message to a group claims all of its members at once, so it
        /// is at least conversations.max_members_group.
        claims_per_claimer_per_minute: u32 = 600, RATE;
        /// Prekey claims per minute for one device, whoever claims: it keeps others from draining its one-time prekeys.
        claims_per_target_per_minute: u32 = 120, RATE;
        /// Look-ups of usernames per minute by one device.
        lookups_per_device_per_minute: u32 = 60, RATE;
        /// Other requests per minute of one device: everything but sends, claims and look-ups.
        requests_per_device_per_minute: u32 = 600, RATE;
        /// Requests of all devices of one account together: these, claims, look-ups and new sockets.
        requests_per_account_per_minute: u32 = 1800, RATE;
        /// Requests of any kind per second from one address, signed in or not, over time. Counted first of all. An address may be that of a
        /// whole company; behind a proxy it is the proxy's unless trust_forwarded_for is on.
        requests_per_address_per_second: u32 = 100, RATE;
        /// Requests that may come from an address at once after a rest.
        requests_per_address_burst: u32 = 1000, RATE;
        /// Questions per minute from one address whether a new device's link was answered. A device asks every second or two.
        link_polls_per_address_per_minute: u32 = 300, RATE;
        /// New sockets per second that the node accepts. Over it they are sent away with the time to wait, before anything of them is looked at.
        connections_per_second: u32 = 2000, RATE;
        /// New sockets per second from one address, over time.
        connections_per_address_per_second: u32 = 100, RATE;
        /// New sockets that may come from an address at once after a rest.
        connections_per_address_burst: u32 = 2000, RATE;
        /// New sockets per minute of one device.
        connections_per_device_per_minute: u32 = 60, RATE;
        /// Take a client's address from the last entry of X-Forwarded-For. Only behind a proxy that sets it: anybody else could
        /// name any address there.
        trust_forwarded_for: bool = false, Switch;
    }
}
