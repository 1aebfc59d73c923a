//! What comes back from claiming keys.

use martlet_protocol::{
    id::{AccountId, DeviceId},
    rest::{ClaimAnswer, ClaimRequest, DeviceBundle},
};

use super::Device;
use crate::{event::Event, refused::Refused, store::Table};

impl Device {
    /// Takes the keys that were asked for. Lists come first: a bundle that names a newer list than is known is refused.
    ///
    /// # Errors
    /// [`Refused`] by the first list or key that is not vouched for. All others were taken: what was claimed for the other members is
    /// not asked for again. Nobody is left out then.
    pub fn absorb_claim(&mut self, asked: &ClaimRequest, answer: &ClaimAnswer) -> Result<Vec<Event>, Refused> {
        let mut events = Vec::new();
        let mut refused: Vec<Refused> = Vec::new();
        let mut distrusted: Vec<AccountId> = Vec::new();
        for lists in &answer.lists {
            if !asked.accounts.iter().any(|account| account.account_id == lists.account_id) {
                continue;
            }
            match self.absorb_lists(&lists.account_id, &lists.lists) {
                Ok(change) => events.extend(devices_changed(lists.account_id, change)),
                Err(error) => {
                    refused.push(error);
                    distrusted.push(lists.account_id);
                }
            }
        }
        for bundle in &answer.bundles {
            if distrusted.contains(&bundle.account_id) {
                continue;
            }
            match self.absorb_bundle(bundle) {
                Ok(event) => events.extend(event),
                Err(error) => refused.push(error),
            }
        }
        if let Some(first) = refused.first() {
            return Err(*first);
        }
        let left_out = self.leave_out_unanswered(asked, answer);
        if !left_out.is_empty() {
            events.push(Event::LeftOut { devices: left_out });
        }
        Ok(events)
    }

    /// Takes one device's keys, if its account's list holds it and it vouches for them. A one-time key that was passed over is told.
    pub(super) fn absorb_bundle(&mut self, bundle: &DeviceBundle) -> Result<Option<Event>, Refused> {
        let now_ms = self.now_ms();
        let account = self.trust.account(&bundle.account_id).ok_or(Refused::RecipientNotListed)?;
        let target = self.targets.entry(bundle.device_id).or_default();
        let passed_over = target.take(account.chain(), bundle, now_ms)?;
        self.batch.put(Table::Bundle, bundle.device_id.as_bytes(), target);
        let sender_device = Some(bundle.device_id);
        Ok(passed_over.map(|refused| Event::Refused { refused, seq: 0, sender_device }))
    }

    /// Listed devices that were asked for and got no keys: dormant, or not served. The server can withhold mail anyway; the user is told.
    fn leave_out_unanswered(&mut self, asked: &ClaimRequest, answer: &ClaimAnswer) -> Vec<DeviceId> {
        let now_ms = self.now_ms();
        let mut left_out = Vec::new();
        for device_id in asked.accounts.iter().flat_map(|account| &account.device_ids) {
            if answer.bundles.iter().any(|bundle| bundle.device_id == *device_id) {
                continue;
            }
            let target = self.targets.entry(*device_id).or_default();
            target.leave_out(now_ms);
            self.batch.put(Table::Bundle, device_id.as_bytes(), target);
            left_out.push(*device_id);
        }
        left_out
    }
}

pub(super) fn devices_changed(account_id: AccountId, change: crate::trust::ListChange) -> Option<Event> {
    let changed = !change.added.is_empty() || !change.removed.is_empty();
    changed.then_some(Event::DevicesChanged { account_id, added: change.added, removed: change.removed })
}
