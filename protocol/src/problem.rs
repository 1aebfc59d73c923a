//! The stable error codes. Each is one line of [`Code`]; docs/PROTOCOL.md lists them for client authors and a test keeps both equal.
//!
//! REST answers them as RFC 9457 problem details, the socket as a `Problem` frame; close codes stand in [`close`].

use serde::{Deserialize, Serialize};

use crate::wire;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal, $title:literal;)*) => {
        /// A stable error code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* #[doc = concat!("\n\n`", $text, "`, HTTP ", stringify!($status), ".")] $name,)* }

        impl Code {
            /// All of them, in the order of the documents.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status),* }
            }

            /// The same sentence for every occurrence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title),* }
            }

            /// Reads a code from the wire.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)* _ => None }
            }
        }
    };
}

codes! {
    /// JSON, protobuf or base64 that can't be read, or a field of the wrong length.
    Malformed = "malformed", 400, "The request could not be read.";
    /// A path that leads nowhere, or an object that is missing or belongs to somebody else.
    NotFound = "not_found", 404, "There is no such object.";
    /// The route exists, the method does not.
    MethodNotAllowed = "method_not_allowed", 405, "This address does not take this method.";
    /// Over a byte limit of the config.
    TooLarge = "too_large", 413, "The request is over a size limit.";
    /// Over a rate limit; `retry_after_ms` says when to come back.
    RateLimited = "rate_limited", 429, "Too many requests.";
    /// A bounded queue is full; `retry_after_ms` says when to come back.
    Busy = "busy", 503, "The node has too much to do.";
    /// The node is shutting down or has lost its store.
    Unavailable = "unavailable", 503, "The node can't serve this now.";
    /// A bug or a broken store; the log has the cause under the request id.
    Internal = "internal", 500, "Something went wrong on the node.";

    /// No token, or one that is unknown, expired or of a device that was revoked.
    Unauthenticated = "unauthenticated", 401, "A valid device token is needed.";
    /// Unknown username, wrong password, unknown device or bad proof: never told apart.
    WrongCredentials = "wrong_credentials", 401, "Username, password or device proof is wrong.";
    /// A ticket that is unknown, expired or was used.
    TicketInvalid = "ticket_invalid", 401, "The socket ticket is not valid (any more).";
    /// The member's role does not allow this.
    Forbidden = "forbidden", 403, "Your role does not allow this.";

    /// A username outside the allowed form.
    UsernameInvalid = "username_invalid", 422, "The username is not of the allowed form.";
    /// A username that is in use.
    UsernameTaken = "username_taken", 409, "The username is taken.";
    /// A password under the least length or over the greatest.
    PasswordInvalid = "password_invalid", 422, "The password is too short or too long.";
    /// An account or device id that was used before.
    IdTaken = "id_taken", 409, "The id was used before.";
    /// Over the account's device limit.
    TooManyDevices = "too_many_devices", 409, "The account has as many devices as it may have.";
    /// A name, platform or title over its length.
    TextInvalid = "text_invalid", 422, "A text is too long or has characters it may not have.";

    /// A device list that does not follow the chain's rules.
    DeviceListInvalid = "device_list_invalid", 422, "The device list is not valid.";
    /// A device list that does not extend the exact head; the answer has the links after the one named.
    DeviceListConflict = "device_list_conflict", 409, "The device list has moved on.";
    /// A signature that does not verify.
    SignatureInvalid = "signature_invalid", 422, "A signature is not valid.";
    /// A prekey of the wrong kind, suite, life or list.
    PrekeyInvalid = "prekey_invalid", 422, "A prekey is not valid.";
    /// A prekey id that was used for another key.
    PrekeyIdReused = "prekey_id_reused", 409, "A prekey id was used for another key.";
    /// More one-time prekeys than the node keeps per device.
    TooManyPrekeys = "too_many_prekeys", 409, "The device has as many one-time prekeys as it may have.";
    /// A link that was answered, completed or is over its life.
    LinkInvalid = "link_invalid", 409, "The link is not open (any more).";

    /// A membership link that does not follow the chain's rules.
    MembershipInvalid = "membership_invalid", 422, "The membership link is not valid.";
    /// A membership link that does not extend the exact head; the answer has the links after the one named.
    MembershipConflict = "membership_conflict", 409, "The membership has moved on.";
    /// A direct conversation between the two exists; the detail does not tell others.
    ConversationExists = "conversation_exists", 409, "The two already have a direct conversation.";
    /// The last owner can't leave or step down while others stay.
    LastOwner = "last_owner", 409, "A conversation needs an owner.";
    /// Over a limit of members or forks.
    TooManyMembers = "too_many_members", 409, "The conversation has as many members as it may have.";

    /// Lists, membership or forks are not what the node has; the answer has what is needed to try again.
    Mismatch = "mismatch", 409, "The message was encrypted for other devices than there are.";
    /// The group is in another epoch than the message names; the answer has the current one.
    EpochConflict = "epoch_conflict", 409, "The group's epoch has moved on.";
    /// A suite that the conversation's devices don't all have.
    SuiteUnknown = "suite_unknown", 422, "The suite is not known here.";
    /// The same client_message_id with other bytes.
    MessageIdReused = "message_id_reused", 409, "The client_message_id was used for another message.";
    /// A lifetime over the mailbox's retention, or over an ephemeral message's.
    LifetimeInvalid = "lifetime_invalid", 422, "The message's lifetime is over what the node keeps.";

    /// A cursor whose epoch is not the stream's: read from the beginning.
    CursorEpoch = "cursor_epoch", 409, "The stream's numbering has started anew.";
    /// A cursor or ack beyond what was delivered.
    CursorAhead = "cursor_ahead", 422, "The cursor is beyond what was delivered.";
    /// Over `logs.max_per_socket`.
    TooManyLogs = "too_many_logs", 422, "A socket does not read so many logs.";
    /// A frame that may not come now (a second resume, a send before hello).
    FrameUnexpected = "frame_unexpected", 422, "This frame may not come now.";
}

impl Code {
    /// A problem with a detail for this occurrence. The detail holds no user data but what the asker sent.
    #[must_use]
    pub fn problem(self, detail: impl Into<String>) -> wire::Problem {
        wire::Problem {
            code: self.as_str().to_owned(),
            title: self.title().to_owned(),
            detail: detail.into(),
            status: u32::from(self.status()),
            mismatch: None,
            retry_after_ms: 0,
            group_epoch: 0,
        }
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("unknown code"))
    }
}

/// WebSocket close codes (RFC 6455, section 7.4; 4000 to 4999 are ours).
pub mod close {
    /// The node shuts down; the `Draining` frame before it said when to come back. Without that frame the store has become another one, or
    /// the node missed part of the control stream: come back at once.
    pub const GOING_AWAY: u16 = 1001;
    /// A frame that breaks RFC 6455.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// A binary frame on the JSON sub-protocol, or a text frame on the other.
    pub const UNSUPPORTED: u16 = 1003;
    /// Text that is not UTF-8.
    pub const INVALID_TEXT: u16 = 1007;
    /// A message over the size limit.
    pub const TOO_BIG: u16 = 1009;
    /// A frame that could not be read as JSON or protobuf of the schema.
    pub const MALFORMED: u16 = 4400;
    /// The device was revoked or suspended, or its token ended.
    pub const DEVICE_ENDED: u16 = 4401;
    /// No pong in time.
    pub const TIMED_OUT: u16 = 4408;
    /// The device opened a newer socket, here or on another node.
    pub const REPLACED: u16 = 4409;
    /// More frames than a socket may send; come back with patience. A send over its own rate is answered with `rate_limited` instead.
    pub const RATE_LIMITED: u16 = 4429;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_read_back() {
        for code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(*code));
            assert!((400..600).contains(&code.status()));
        }
    }
}
