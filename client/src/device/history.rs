//! What a device has read and said, in the order in which it did: the application's own cursor runs over these numbers.

use martlet_protocol::wire::content::Body;

use super::{Device, contents::read_ref, records};
use crate::{
    event::{Event, StoredMessage},
    store::{StoreError, Table},
};

impl Device {
    /// Messages of the history after a number, at most `limit`. Receipts are among them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn history(&self, after: u64, limit: usize) -> Result<Vec<StoredMessage>, StoreError> {
        let records = self.store.after(Table::Message, after, limit)?;
        Ok(records.into_iter().map(|(_, message)| message).collect())
    }

    /// The number up to which the application has shown the history, as [`Self::set_shown`] left it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn shown(&self) -> Result<u64, StoreError> {
        Ok(self.store.get(Table::Device, records::SHOWN)?.unwrap_or(0))
    }

    /// Remembers, durably, how far the application has shown the history.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_shown(&mut self, number: u64) -> Result<(), StoreError> {
        self.batch.put(Table::Device, records::SHOWN, &number);
        self.commit()
    }

    /// Adds a message to the history; what is told of it depends on what it is.
    pub(super) fn remember(&mut self, mut message: StoredMessage) -> Event {
        self.places.message += 1;
        message.number = self.places.message;
        self.batch.put(Table::Message, &message.number.to_be_bytes(), &message);
        self.put_places();
        match message.content().body {
            Some(Body::Receipt(receipt)) => Event::Receipt {
                number: message.number,
                conversation_id: message.conversation_id,
                account_id: message.sender_account,
                device_id: message.sender_device,
                kind: receipt.kind(),
                messages: receipt.messages.iter().filter_map(read_ref).collect(),
            },
            _ => Event::Message(Box::new(message)),
        }
    }
}
