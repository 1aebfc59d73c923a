//! New accounts. Everything cheap is checked first, signatures next, the password is hashed last, and then one transaction stores all.

use martlet_protocol::{
    chain::devices::DeviceChain,
    rest::{DeviceSession, RegisterRequest},
};
use martlet_storage::accounts::{self, NewAccount, NewDevice};

use super::{
    AccountError, Accounts, blocking,
    parse::{self, Password, Username},
    prekeys::FirstPrekeys,
    tokens::{Secret, store_token},
};
use crate::config::Registration;

impl Accounts {
    /// Registers an account with its first device.
    ///
    /// # Errors
    /// Typed per cause; nothing of a refused registration is stored.
    pub async fn register(&self, request: RegisterRequest) -> Result<DeviceSession, AccountError> {
        let inner = &*self.0;
        if inner.config.accounts.registration == Registration::Closed {
            return Err(AccountError::RegistrationClosed);
        }
        let username = Username::parse(&request.username)?;
        let password = Password::parse(request.password)?;
        parse::label(&request.label)?;
        inner.check_count(&request.prekeys)?;
        self.refuse_taken(&username).await?;

        let (list, label, now_ms) = (request.device_list, request.label, inner.clock.now_ms());
        let (list, chain, device) = blocking(move || {
            let chain = DeviceChain::first(&list).map_err(AccountError::List)?;
            // `first` allows exactly one.
            let listed = &chain.list().devices[0];
            let prekeys = FirstPrekeys::check(request.prekeys, &chain, listed, now_ms)?;
            let device = NewDevice {
                device_id: listed.device_id,
                label,
                signing_key: listed.signing_key,
                mailbox_key: listed.mailbox_key,
                linked_at_ms: now_ms,
                signed_prekey: prekeys.signed,
                one_time_prekeys: prekeys.one_time,
            };
            Ok((list, chain, device))
        })
        .await?;
        let password_hash = inner.passwords.hash(password).await?;

        let token = Secret::token(&mut crate::clock::rng());
        let session = inner.session(*chain.account_id(), device.device_id, &token);
        let stored = session.clone();
        inner
            .db
            .write(move |conn| {
                let account = NewAccount {
                    account_id: stored.account_id,
                    username: username.as_str(),
                    password_hash: &password_hash,
                    list: &list,
                    fingerprint: chain.fingerprint(),
                    device: &device,
                };
                let (_, device_key) = accounts::insert_account(conn, &account)?;
                Ok::<_, AccountError>(store_token(conn, device_key, &token.hash, &stored)?)
            })
            .await?;
        Ok(session)
    }

    /// Only spares the work of hashing: the insert decides.
    async fn refuse_taken(&self, username: &Username) -> Result<(), AccountError> {
        let username = username.clone();
        let row = self.0.db.read(move |conn| accounts::by_username(conn, username.as_str())).await;
        if row.map_err(AccountError::Storage)?.is_some() { Err(AccountError::UsernameTaken) } else { Ok(()) }
    }
}
