//! The device list: a chain in which devices vouch for devices, so that there is no account key to steal or to hand over.
//!
//! List n is a `DeviceList` (protobuf) whose exact bytes are signed by a device of list n-1; a device that list n adds signs it too;
//! list 1 is signed by its only device. The account's fingerprint is SHA-256 of list 1, the hash of a list SHA-256 of its bytes.
//!
//! ```text
//! signature input = "martlet/v1/device list\0" ‖ list bytes (length-prefixed, u32 big-endian)
//! ```
//! The bytes are canonical: proto3 fields in the order of their numbers, defaults left out, repeated numbers packed, nothing
//! unknown. Devices stand in ascending order of their ids, suites ascending.
//!
//! Here are the list itself ([`DeviceList`]) and the verified head of a chain ([`DeviceChain`]). It does not decide what to do
//! about a second branch; a client stops sending and shows both to its user.

mod chain;
mod list;
mod rules;

pub use chain::DeviceChain;
pub use list::{DeviceList, ListedDevice, sign_list};

/// Most devices that a list may hold, whatever a node's own limit is.
pub const MAX_LISTED_DEVICES: usize = 64;

/// Why a device list was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Not protobuf, or a field of the wrong length.
    #[error("the list can't be read")]
    Unreadable,
    /// Readable, but not the bytes that encoding it gives: unknown fields, another order, spelled-out defaults.
    #[error("the list is not in canonical form")]
    NotCanonical,
    /// Of another account than the chain.
    #[error("the list is of another account")]
    WrongAccount,
    /// Not newer than the head, though on its branch as far as is known: rolled back or repeated.
    #[error("the list is not newer than the one known")]
    Shorter,
    /// Neither the head's number plus one nor one that the chain has (or list 1 with another number).
    #[error("the list has number {given} where {expected} is due")]
    WrongNumber {
        /// The number that must come.
        expected: u64,
        /// The number that came.
        given: u64,
    },
    /// Names another predecessor than the head, or differs from the known list of its number.
    #[error("the list is on another branch")]
    OtherBranch,
    /// No signature by a device of the list before.
    #[error("no device of the list before has signed")]
    OldDeviceSignatureMissing,
    /// Signed by a device that neither the list before nor this one holds.
    #[error("a signer is not listed")]
    SignerNotListed,
    /// Signed by a device that an earlier list removed.
    #[error("a signer has been removed")]
    SignerRemoved,
    /// An added device did not sign.
    #[error("an added device has not signed")]
    NewDeviceSignatureMissing,
    /// A device signed twice.
    #[error("a device has signed twice")]
    DuplicateSignature,
    /// A signature that does not verify.
    #[error("a signature is not valid")]
    BadSignature,
    /// No device left.
    #[error("the list has no device")]
    NoDevices,
    /// List 1 with more than its maker.
    #[error("list 1 must hold one device")]
    FirstNotAlone,
    /// Over [`MAX_LISTED_DEVICES`].
    #[error("the list has too many devices")]
    TooManyDevices,
    /// The same device twice.
    #[error("a device stands in the list twice")]
    DuplicateDevice,
    /// One key for two purposes or two devices, or an added device with a key that was listed before.
    #[error("a key is used twice")]
    ReusedKey,
    /// A removed device was added again.
    #[error("a removed device has come back")]
    DeviceReturned,
    /// A device that stays has other keys or another `added_at_ms` than before.
    #[error("the entry of a listed device was changed")]
    DeviceChanged,
    /// A device without suites, or with suite 0.
    #[error("a device has no valid suites")]
    UnknownSuite,
    /// A key that is malformed or of small order.
    #[error("a device's key is malformed or weak")]
    WeakKey,
}
