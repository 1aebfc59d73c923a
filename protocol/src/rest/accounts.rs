//! Accounts, devices, prekeys, links, tokens.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AccountLists, DeviceBundle, SignedDeviceList, SignedPrekey};
use crate::id::{AccountId, Blob, DeviceId, Hash, LinkId, Signature};

/// What a device shows of itself. The server sees these texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceLabel {
    /// Up to 64 characters, for the account's own device page.
    pub name: String,
    /// Up to 32 characters, such as `linux` or `firefox`.
    pub platform: String,
}

/// The prekeys that a device registers with.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PrekeyUpload {
    /// Replaces the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_prekey: Option<SignedPrekey>,
    /// Added to the pool; one that is there already, with the same key, changes nothing.
    #[serde(default)]
    pub one_time_prekeys: Vec<SignedPrekey>,
}

/// Body of `POST /v1/accounts`.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct RegisterRequest {
    /// 3 to 32 of `a-z 0-9 . _ -`, starting with a letter or digit.
    pub username: String,
    /// 8 to 1024 bytes.
    pub password: String,
    /// List 1: its only device registers. It names the account id that the client drew.
    pub device_list: SignedDeviceList,
    /// Shown on the account's device page.
    pub label: DeviceLabel,
    /// Must hold a signed prekey.
    pub prekeys: PrekeyUpload,
}

/// A device is registered, linked or signed in again.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct DeviceSession {
    /// The account.
    pub account_id: AccountId,
    /// The device.
    pub device_id: DeviceId,
    /// `Authorization: Bearer …`. Shown once.
    pub token: String,
    /// Unix milliseconds; rotate before.
    pub token_expires_at_ms: u64,
}

/// Body of `POST /v1/sessions`: a listed device that lost its token signs in again.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct SignInRequest {
    /// The account's name.
    pub username: String,
    /// The account's password.
    pub password: String,
    /// Which device.
    pub device_id: DeviceId,
    /// Unix milliseconds; must be within five minutes of the node's time.
    pub signed_at_ms: u64,
    /// The device's Ed25519 signature (label "sign-in") over username, device id and time.
    pub proof: Signature,
}

/// One of the account's own devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OwnDevice {
    /// Which.
    pub device_id: DeviceId,
    /// Its label.
    #[serde(flatten)]
    pub label: DeviceLabel,
    /// Unix milliseconds.
    pub linked_at_ms: u64,
    /// The device that asks.
    pub is_this: bool,
    /// Suspended by the operator: listed but not served.
    pub suspended: bool,
    /// Its signed prekey has expired; it gets gap markers until it returns.
    pub dormant: bool,
}

/// Answer of `GET /v1/devices`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OwnDevices {
    /// In the order of their linking.
    pub devices: Vec<OwnDevice>,
}

/// Body of `PATCH /v1/devices/{device_id}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RenameRequest {
    /// Up to 64 characters.
    pub name: String,
}

/// Body of `POST /v1/devices/revoke`: a list without the devices that go.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RevokeRequest {
    /// List n+1, which adds nothing.
    pub device_list: SignedDeviceList,
}

/// Who stands behind a username.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccountRef {
    /// The account.
    pub account_id: AccountId,
    /// SHA-256 of its list 1. The client checks it against the chain.
    pub fingerprint: Hash,
}

/// Query of `GET /v1/accounts/{account_id}/lists`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListsQuery {
    /// Only lists after this number.
    #[serde(default)]
    pub after: u64,
}

/// Body of `POST /v1/bundles`: claims keys to fork with.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ClaimRequest {
    /// The accounts whose devices are wanted.
    pub accounts: Vec<ClaimAccount>,
}

/// One account of a claim.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ClaimAccount {
    /// Whose devices.
    pub account_id: AccountId,
    /// The newest list the claimer knows; the answer has those after it.
    pub known_n: u64,
    /// Only these devices; empty: all.
    #[serde(default)]
    pub device_ids: Vec<DeviceId>,
}

/// Answer of `POST /v1/bundles`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ClaimAnswer {
    /// One per active device.
    pub bundles: Vec<DeviceBundle>,
    /// Lists after the ones known.
    pub lists: Vec<AccountLists>,
    /// Devices whose signed prekey has expired: leave them out.
    pub dormant: Vec<DeviceId>,
}

/// Answer of `POST /v1/devices/self/prekeys` and `GET` of the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PrekeyState {
    /// One-time prekeys left.
    pub one_time: u32,
    /// Below the node's low-water mark.
    pub low: bool,
    /// Unix milliseconds.
    pub signed_not_after_ms: u64,
}

/// Answer of `POST /v1/socket-tickets`.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct SocketTicket {
    /// For `/v1/socket?ticket=…`, once.
    pub ticket: String,
    /// Unix milliseconds.
    pub expires_at_ms: u64,
}

/// Body of `POST /v1/links`, by a device that has no account yet.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LinkStart {
    /// The exact bytes of a `LinkOffer` (protobuf).
    pub offer: Blob,
}

/// Answer of `POST /v1/links`.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct LinkStarted {
    /// In the code that people carry across.
    pub link_id: LinkId,
    /// Needed to ask for the answer; stays with the new device.
    pub poll_secret: String,
    /// Unix milliseconds.
    pub expires_at_ms: u64,
}

/// Answer of `GET /v1/links/{link_id}` to an existing device.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LinkOffered {
    /// The offer's exact bytes; the device checks them against the code's hash.
    pub offer: Blob,
    /// Unix milliseconds.
    pub expires_at_ms: u64,
}

/// Body of `PUT /v1/links/{link_id}/answer` by an existing device.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LinkAnswered {
    /// The exact bytes of a `SealedLinkAnswer` (protobuf).
    pub answer: Blob,
}

/// Body of `POST /v1/links/{link_id}/poll` by the new device.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct LinkPoll {
    /// From `LinkStarted`.
    pub poll_secret: String,
}

/// Answer of `POST /v1/links/{link_id}/poll`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LinkPolled {
    /// Absent until an existing device has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Blob>,
}

/// Body of `POST /v1/links/{link_id}/complete` by the new device; answered with a `DeviceSession`.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct LinkComplete {
    /// From `LinkStarted`.
    pub poll_secret: String,
    /// List n+1 with the existing device's and the new device's signature.
    pub device_list: SignedDeviceList,
    /// Shown on the account's device page.
    pub label: DeviceLabel,
    /// Must hold a signed prekey; its keys name list n+1.
    pub prekeys: PrekeyUpload,
}
