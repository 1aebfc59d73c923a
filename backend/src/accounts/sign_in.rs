//! A listed device that lost its token proves itself by its account's password and its own key.
//!
//! Unknown name, wrong password, unknown device and wrong proof get one answer after the same work: the same queries, one signature
//! verification and one password verification, against made-up ones where there is nothing to verify against. Only who is let in
//! has a password of another cost than the config's hashed anew.

use std::{sync::OnceLock, time::Duration};

use martlet_protocol::{
    crypto::{SigningKey, verify_sign_in_proof},
    id::PublicKey,
    rest::{DeviceSession, SignInRequest},
};
use martlet_storage::{
    accounts::{self, AccountRow},
    devices::{self, DeviceRow, DeviceStatus},
    tokens,
};

use super::{
    AccountError, Accounts, blocking,
    parse::{Password, Username},
    tokens::{Secret, millis, store_token},
};

/// How far a proof's time may be from the node's, either way.
const MAX_SKEW: Duration = Duration::from_secs(5 * 60);

/// What the store knows of who wants to sign in.
struct Claimant {
    account: Option<AccountRow>,
    device: Option<DeviceRow>,
}

impl Accounts {
    /// Signs a listed device in again. Its earlier tokens end.
    ///
    /// # Errors
    /// [`AccountError::WrongCredentials`], whatever was wrong.
    pub async fn sign_in(&self, request: SignInRequest) -> Result<DeviceSession, AccountError> {
        let inner = &*self.0;
        let SignInRequest { username, password, device_id, signed_at_ms, proof } = request;
        // A name of another form is looked up as the empty one, which nobody has.
        let username = Username::parse(&username).map_or(String::new(), |name| name.as_str().to_owned());
        let name = username.clone();
        let claimant = inner
            .db
            .read(move |conn| {
                let account = accounts::by_username(conn, &name)?;
                Ok::<_, AccountError>(Claimant { account, device: devices::by_id(conn, &device_id)? })
            })
            .await?;

        let recent = inner.clock.now_ms().abs_diff(signed_at_ms) <= millis(MAX_SKEW);
        let key = claimant.device.as_ref().map_or_else(nobodys_key, |device| device.signing_key);
        let proved =
            blocking(move || Ok(verify_sign_in_proof(&username, &device_id, signed_at_ms, &key, &proof).is_ok()))
                .await?;
        let hash = claimant.account.as_ref().map(|account| account.password_hash.clone());
        let account = claimant.account_if_active().filter(|_| recent && proved);
        let verified = inner.passwords.verify(Password::any(password), hash, account.is_some()).await?;

        let Some(account) = account.filter(|_| verified.matches) else {
            return Err(AccountError::WrongCredentials);
        };
        let token = Secret::token(&mut crate::clock::rng());
        let session = inner.session(account.account_id, device_id, &token);
        let (stored, now_s) = (session.clone(), inner.clock.now_s());
        let device_key = inner
            .db
            .write(move |conn| {
                if let Some(renewed) = &verified.renewed {
                    accounts::renew_password_hash(conn, account.account_key, &account.password_hash, renewed)?;
                }
                // Checked again where nothing can change any more: it may have been revoked while the password was hashed.
                let device = devices::by_id(conn, &device_id)?.filter(|now| now.status == DeviceStatus::Active);
                let device = device.ok_or(AccountError::WrongCredentials)?;
                tokens::delete_of_device(conn, device.device_key, &device_id, now_s)?;
                store_token(conn, device.device_key, &token.hash, &stored)?;
                Ok::<_, AccountError>(device.device_key)
            })
            .await?;
        inner.tokens.forget_devices(&[device_key]);
        inner.streams.control_changed();
        Ok(session)
    }
}

impl Claimant {
    /// The account, if the device is an active one of it.
    fn account_if_active(self) -> Option<AccountRow> {
        let (account, device) = (self.account?, self.device?);
        let fits = device.account_key == account.account_key && device.status == DeviceStatus::Active;
        fits.then_some(account)
    }
}

/// A valid key that nobody signs with, for devices that don't exist.
fn nobodys_key() -> PublicKey {
    static KEY: OnceLock<PublicKey> = OnceLock::new();
    *KEY.get_or_init(|| SigningKey::generate(&mut crate::clock::rng()).public())
}
