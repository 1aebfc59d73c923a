//! The planted bugs of this module (see [`crate::planted`]). In any build but the test-only one none of this does anything.

#[cfg(feature = "planted")]
use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
};

use super::PreparedSend;
use crate::db::{Db, DeviceKey, StorageError};

#[cfg(feature = "planted")]
thread_local! {
    /// Numbers handed out to this commit thread, by device.
    static SERIALS: RefCell<BTreeMap<DeviceKey, VecDeque<i64>>> = const { RefCell::new(BTreeMap::new()) };
}

/// What a planted bug does before the transaction that commits these sends.
///
/// # Errors
/// [`StorageError`] if the store does not answer.
#[cfg(not(feature = "planted"))]
pub fn before_commit(_db: &Db, _sends: &[PreparedSend]) -> Result<(), StorageError> {
    Ok(())
}

/// What a planted bug does when a node starts.
///
/// # Errors
/// [`StorageError`] if the store does not answer.
#[cfg(not(feature = "planted"))]
pub async fn at_start(_db: &Db) -> Result<(), StorageError> {
    Ok(())
}

/// A number that was handed out outside of the transaction.
#[cfg(not(feature = "planted"))]
pub(super) const fn serial(_device: DeviceKey) -> Option<i64> {
    None
}

/// Hands out numbers in a transaction of its own, as a `bigserial` column does.
///
/// # Errors
/// [`StorageError`] if the store does not answer.
#[cfg(feature = "planted")]
pub fn before_commit(db: &Db, sends: &[PreparedSend]) -> Result<(), StorageError> {
    if !crate::planted::is(crate::planted::Bug::SerialCursor) {
        return Ok(());
    }
    let mut counts: BTreeMap<DeviceKey, i64> = BTreeMap::new();
    for entry in sends.iter().flat_map(|send| &send.entries) {
        *counts.entry(entry.device).or_default() += 1;
    }
    let serials = db.write_blocking(|conn| -> Result<BTreeMap<DeviceKey, VecDeque<i64>>, StorageError> {
        use crate::db::{conn::on, schema::mailbox_heads};
        use diesel::{ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, RunQueryDsl as _};

        let mut serials = BTreeMap::new();
        for (device, count) in counts {
            let head: Option<i64> = on!(conn, c => diesel::update(mailbox_heads::table.find(device))
                .set(mailbox_heads::head_seq.eq(mailbox_heads::head_seq + count))
                .returning(mailbox_heads::head_seq)
                .get_result(c)
                .optional())?;
            serials.extend(head.map(|head| (device, (head - count + 1..=head).collect())));
        }
        Ok(serials)
    })?;
    SERIALS.set(serials);
    Ok(())
}

/// Forgets what was answered.
///
/// # Errors
/// [`StorageError`] if the store does not answer.
#[cfg(feature = "planted")]
pub async fn at_start(db: &Db) -> Result<(), StorageError> {
    use crate::db::{conn::on, schema::send_answers};
    use diesel::RunQueryDsl as _;

    if !crate::planted::is(crate::planted::Bug::ForgottenAnswers) {
        return Ok(());
    }
    db.write(|conn| Ok::<_, StorageError>(on!(conn, c => diesel::delete(send_answers::table).execute(c))?)).await?;
    Ok(())
}

/// A number that was handed out outside of the transaction.
#[cfg(feature = "planted")]
pub(super) fn serial(device: DeviceKey) -> Option<i64> {
    SERIALS.with_borrow_mut(|serials| serials.get_mut(&device).and_then(VecDeque::pop_front))
}
