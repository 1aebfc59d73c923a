//! Chains and prekeys in JSON: the signed bytes stay bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    id::{AccountId, Blob, DeviceId, Hash, InvalidText, PublicKey, Signature},
    wire,
};

/// A device list as it was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignedDeviceList {
    /// The exact bytes of a `DeviceList` (protobuf).
    pub list: Blob,
    /// Who signed it.
    pub signatures: Vec<DeviceSignature>,
}

/// One device's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceSignature {
    /// The device that signed.
    pub device_id: DeviceId,
    /// Ed25519 over the labelled list bytes.
    pub signature: Signature,
}

/// A membership link as it was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignedMembershipLink {
    /// The exact bytes of a `MembershipLink` (protobuf).
    pub link: Blob,
    /// By the signer that the link names.
    pub signature: Signature,
}

/// The kind of a prekey.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PrekeyKind {
    /// Used until it is replaced.
    Signed,
    /// Given out once.
    OneTime,
}

/// A prekey with its device's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignedPrekey {
    /// The suite it is for.
    pub suite: u32,
    /// Signed or one-time.
    pub kind: PrekeyKind,
    /// Chosen by the device, never used for another key.
    pub key_id: u32,
    /// X25519.
    pub public_key: PublicKey,
    /// Unix milliseconds.
    pub not_after_ms: u64,
    /// Number of the list its signer knew.
    pub list_n: u64,
    /// Hash of that list.
    pub list_hash: Hash,
    /// Ed25519 over the prekey transcript (docs/PROTOCOL.md).
    pub signature: Signature,
}

/// What a sender needs to fork to one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceBundle {
    /// Whose device.
    pub account_id: AccountId,
    /// Which device.
    pub device_id: DeviceId,
    /// Its current signed prekey.
    pub signed_prekey: SignedPrekey,
    /// Absent when the pool is drained or the claimer claimed lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_time_prekey: Option<SignedPrekey>,
}

/// A list head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListHead {
    /// Whose.
    pub account_id: AccountId,
    /// Number of the newest list.
    pub n: u64,
    /// Its hash.
    pub hash: Hash,
}

/// An account's lists after the one that the asker named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccountLists {
    /// Whose.
    pub account_id: AccountId,
    /// In order.
    pub lists: Vec<SignedDeviceList>,
}

impl From<&SignedDeviceList> for wire::SignedDeviceList {
    fn from(list: &SignedDeviceList) -> Self {
        Self {
            list: list.list.0.clone(),
            signatures: list
                .signatures
                .iter()
                .map(|s| wire::DeviceSignature { device_id: s.device_id.to_wire(), signature: s.signature.to_wire() })
                .collect(),
        }
    }
}

impl TryFrom<&wire::SignedDeviceList> for SignedDeviceList {
    type Error = InvalidText;

    fn try_from(list: &wire::SignedDeviceList) -> Result<Self, InvalidText> {
        let signatures = list
            .signatures
            .iter()
            .map(|s| {
                Ok(DeviceSignature {
                    device_id: s.device_id.as_ref().try_into()?,
                    signature: s.signature.as_ref().try_into()?,
                })
            })
            .collect::<Result<_, InvalidText>>()?;
        Ok(Self { list: Blob(list.list.clone()), signatures })
    }
}

impl From<&SignedMembershipLink> for wire::SignedMembershipLink {
    fn from(link: &SignedMembershipLink) -> Self {
        Self { link: link.link.0.clone(), signature: link.signature.to_wire() }
    }
}

impl TryFrom<&wire::SignedMembershipLink> for SignedMembershipLink {
    type Error = InvalidText;

    fn try_from(link: &wire::SignedMembershipLink) -> Result<Self, InvalidText> {
        Ok(Self { link: Blob(link.link.clone()), signature: link.signature.as_ref().try_into()? })
    }
}

impl From<PrekeyKind> for wire::PrekeyKind {
    fn from(kind: PrekeyKind) -> Self {
        match kind {
            PrekeyKind::Signed => Self::Signed,
            PrekeyKind::OneTime => Self::OneTime,
        }
    }
}

impl From<&SignedPrekey> for wire::SignedPrekey {
    fn from(key: &SignedPrekey) -> Self {
        Self {
            suite: key.suite,
            kind: wire::PrekeyKind::from(key.kind).into(),
            key_id: key.key_id,
            public_key: key.public_key.to_wire(),
            not_after_ms: key.not_after_ms,
            list_n: key.list_n,
            list_hash: key.list_hash.to_wire(),
            signature: key.signature.to_wire(),
        }
    }
}

impl TryFrom<&wire::SignedPrekey> for SignedPrekey {
    type Error = InvalidText;

    /// An unspecified kind is read as signed; the signature, which covers the kind, settles it.
    fn try_from(key: &wire::SignedPrekey) -> Result<Self, InvalidText> {
        let kind = match key.kind() {
            wire::PrekeyKind::OneTime => PrekeyKind::OneTime,
            _ => PrekeyKind::Signed,
        };
        Ok(Self {
            suite: key.suite,
            kind,
            key_id: key.key_id,
            public_key: key.public_key.as_ref().try_into()?,
            not_after_ms: key.not_after_ms,
            list_n: key.list_n,
            list_hash: key.list_hash.as_ref().try_into()?,
            signature: key.signature.as_ref().try_into()?,
        })
    }
}

impl From<&DeviceBundle> for wire::DeviceBundle {
    fn from(bundle: &DeviceBundle) -> Self {
        Self {
            account_id: bundle.account_id.to_wire(),
            device_id: bundle.device_id.to_wire(),
            signed_prekey: Some((&bundle.signed_prekey).into()),
            one_time_prekey: bundle.one_time_prekey.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<&wire::DeviceBundle> for DeviceBundle {
    type Error = InvalidText;

    fn try_from(bundle: &wire::DeviceBundle) -> Result<Self, InvalidText> {
        let missing = InvalidText::WrongLength { given: 0, expected: PublicKey::LEN };
        Ok(Self {
            account_id: bundle.account_id.as_ref().try_into()?,
            device_id: bundle.device_id.as_ref().try_into()?,
            signed_prekey: bundle.signed_prekey.as_ref().ok_or(missing)?.try_into()?,
            one_time_prekey: bundle.one_time_prekey.as_ref().map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&ListHead> for wire::ListHead {
    fn from(head: &ListHead) -> Self {
        Self { account_id: head.account_id.to_wire(), n: head.n, hash: head.hash.to_wire() }
    }
}

impl TryFrom<&wire::ListHead> for ListHead {
    type Error = InvalidText;

    fn try_from(head: &wire::ListHead) -> Result<Self, InvalidText> {
        Ok(Self { account_id: head.account_id.as_ref().try_into()?, n: head.n, hash: head.hash.as_ref().try_into()? })
    }
}

impl From<&AccountLists> for wire::AccountLists {
    fn from(lists: &AccountLists) -> Self {
        Self { account_id: lists.account_id.to_wire(), lists: lists.lists.iter().map(Into::into).collect() }
    }
}

impl TryFrom<&wire::AccountLists> for AccountLists {
    type Error = InvalidText;

    fn try_from(lists: &wire::AccountLists) -> Result<Self, InvalidText> {
        Ok(Self {
            account_id: lists.account_id.as_ref().try_into()?,
            lists: lists.lists.iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

/// A field of the wire that ids read from.
pub(super) fn wire_ids<T: for<'a> TryFrom<&'a [u8], Error = InvalidText>>(
    fields: &[Bytes],
) -> Result<Vec<T>, InvalidText> {
    fields.iter().map(|field| T::try_from(field.as_ref())).collect()
}
