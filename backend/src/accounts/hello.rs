//! What a device's socket starts with: its stock, its account's head, and what it should do about either.

use martlet_protocol::{
    rest::{ListHead, PrekeyState},
    wire,
};
use martlet_storage::{accounts, prekeys};

use super::{AccountError, Accounts, DeviceIdentity};

/// The account's part of a hello frame.
#[derive(Debug, Clone, PartialEq)]
pub struct HelloFacts {
    /// What is left of the device's prekeys.
    pub stock: wire::PrekeyStock,
    /// The account's newest list.
    pub list_head: wire::ListHead,
    /// What the device should do something about.
    pub notices: Vec<wire::Notice>,
}

impl Accounts {
    /// Reads what the device's hello says. Read anew for each hello, so that it is never older than the socket.
    ///
    /// # Errors
    /// [`AccountError::Unauthenticated`] if the account or device is gone.
    pub async fn hello_facts(&self, identity: &DeviceIdentity) -> Result<HelloFacts, AccountError> {
        let inner = &*self.0;
        let now_ms = inner.clock.now_ms();
        let identity = *identity;
        let (account, stock) = inner
            .db
            .read(move |conn| {
                let account = accounts::by_id(conn, &identity.account_id)?;
                Ok::<_, AccountError>((account, prekeys::stock(conn, identity.device_key, now_ms)?))
            })
            .await?;
        let account = account.ok_or(AccountError::Unauthenticated)?;
        let state = inner.prekey_state(&stock);
        let head = ListHead { account_id: account.account_id, n: account.list_n, hash: account.list_hash };
        Ok(HelloFacts { notices: notices(&state, now_ms), stock: to_wire(&state), list_head: (&head).into() })
    }
}

fn notices(state: &PrekeyState, now_ms: u64) -> Vec<wire::Notice> {
    let notice = |kind: wire::NoticeKind| wire::Notice { kind: kind.into() };
    let low = state.low.then(|| notice(wire::NoticeKind::PrekeysLow));
    let expired = (state.signed_not_after_ms <= now_ms).then(|| notice(wire::NoticeKind::SignedPrekeyExpired));
    low.into_iter().chain(expired).collect()
}

fn to_wire(state: &PrekeyState) -> wire::PrekeyStock {
    wire::PrekeyStock { one_time: state.one_time, low: state.low, signed_not_after_ms: state.signed_not_after_ms }
}
