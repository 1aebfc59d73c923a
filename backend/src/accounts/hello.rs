//! What a device's socket starts with: its stock, its account's head, and what it should do about either.

use martlet_protocol::{
    rest::{ListHead, PrekeyState},
    wire,
};
use martlet_storage::{
    accounts,
    mailbox::{self, MailboxState},
    prekeys,
};

use super::{AccountError, Accounts, DeviceIdentity};

/// What a hello frame says that is in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct HelloFacts {
    /// Where the device's mailbox stands.
    pub mailbox: MailboxState,
    /// What is left of the device's prekeys.
    pub stock: wire::PrekeyStock,
    /// The account's newest list.
    pub list_head: wire::ListHead,
    /// What the device should do something about.
    pub notices: Vec<wire::Notice>,
}

impl Accounts {
    /// Reads what the device's hello says, in one read: there are as many of these as sockets that come. Read anew for each hello, so that it is
    /// never older than the socket.
    ///
    /// # Errors
    /// [`AccountError::Unauthenticated`] if the account, the device or its mailbox is gone.
    pub async fn hello_facts(&self, identity: &DeviceIdentity) -> Result<HelloFacts, AccountError> {
        let inner = &*self.0;
        let now_ms = inner.clock.now_ms();
        let identity = *identity;
        let (mailbox, account, stock) = inner
            .db
            .read(move |conn| {
                let mailbox = mailbox::state(conn, identity.device_key)?.ok_or(AccountError::Unauthenticated)?;
                let account = accounts::by_id(conn, &identity.account_id)?.ok_or(AccountError::Unauthenticated)?;
                Ok::<_, AccountError>((mailbox, account, prekeys::stock(conn, identity.device_key, now_ms)?))
            })
            .await?;
        let state = inner.prekey_state(&stock);
        let head = ListHead { account_id: account.account_id, n: account.list_n, hash: account.list_hash };
        let notices = notices(&state, now_ms);
        Ok(HelloFacts { mailbox, notices, stock: to_wire(&state), list_head: (&head).into() })
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
