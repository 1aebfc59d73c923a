//! Sending what is never stored, over the open socket or not at all; and presence, which is told that way.

use std::time::Duration;

use martlet_protocol::{
    id::ConversationId,
    rest,
    wire::{self, PresenceStatus, content::Body},
};
use tokio::sync::oneshot;

use super::{
    Client, body,
    outbox::{Met, Submission},
};
use crate::{device::PrepareError, error::ClientError, refused::Refused};

/// What one ephemeral message may cause before it goes out, beside what each member may.
const OWN_STEPS: usize = 16;

/// Which conversations this device tells how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceRules {
    /// All members of these get to know it; nobody else does, the server included.
    pub conversations: Vec<ConversationId>,
    /// How often it is told anew, and how seldom a change is told.
    pub interval: Duration,
}

impl PresenceRules {
    /// For these conversations, once a minute.
    #[must_use]
    pub fn new(conversations: Vec<ConversationId>) -> Self {
        Self { conversations, interval: Duration::from_secs(60) }
    }
}

/// What is told, and what was told last (with its time, in Unix milliseconds).
pub(crate) struct Presence {
    rules: Option<PresenceRules>,
    status: PresenceStatus,
    told: Option<(PresenceStatus, u64)>,
}

impl Default for Presence {
    /// Told to nobody.
    fn default() -> Self {
        Self { rules: None, status: PresenceStatus::Online, told: None }
    }
}

impl Presence {
    fn due_at_ms(&self) -> Option<u64> {
        let rules = self.rules.as_ref()?;
        let interval_ms = u64::try_from(rules.interval.as_millis()).unwrap_or(u64::MAX).max(1);
        Some(self.told.map_or(0, |(_, at_ms)| at_ms.saturating_add(interval_ms)))
    }

    /// What to tell now, if it is time; noted as told.
    fn take_due(&mut self, now_ms: u64) -> Option<(PresenceStatus, Vec<ConversationId>)> {
        self.due_at_ms().filter(|due_ms| *due_ms <= now_ms)?;
        self.told = Some((self.status, now_ms));
        Some((self.status, self.rules.as_ref()?.conversations.clone()))
    }

    /// Who has to be told that this device goes; noted as told. A goodbye needs no interval, since it follows something that had one.
    fn take_goodbye(&mut self, now_ms: u64) -> Vec<ConversationId> {
        let was_there = matches!(self.told, Some((status, _)) if status != PresenceStatus::Offline);
        let Some(rules) = self.rules.as_ref().filter(|_| was_there) else { return Vec::new() };
        self.told = Some((PresenceStatus::Offline, now_ms));
        rules.conversations.clone()
    }
}

impl Client {
    /// Sends typing, presence or a call signal to whoever of a conversation is connected now. Nothing is stored, here or there, and
    /// nobody is told who got it. Returns when the node has it.
    ///
    /// # Errors
    /// [`ClientError::NotConnected`]; [`ClientError::NotAllowed`] for other contents; [`ClientError::Refused`]; a problem.
    pub async fn send_ephemeral(
        &self,
        conversation: ConversationId,
        content: &wire::Content,
    ) -> Result<(), ClientError> {
        if let Some(refused) = self.held(conversation) {
            return Err(refused.into());
        }
        let mut steps = 0;
        while steps < self.steps_allowed(conversation, OWN_STEPS) {
            steps += 1;
            let request = match self.device(|device| device.compose_ephemeral(conversation, content)) {
                Ok(request) => request,
                Err(PrepareError::Client(error)) => return Err(error),
                Err(PrepareError::Halt(halt)) => match self.meet(halt).await? {
                    Met::Go => continue,
                    Met::Gone => return Err(ClientError::NoSuchConversation),
                    Met::Refused(refused) => return Err(refused.into()),
                },
            };
            match self.submit_ephemeral(request).await {
                Err(ClientError::Problem(problem)) if problem.mismatch.is_some() => {
                    let mismatch: rest::Mismatch = problem.mismatch.unwrap_or_default();
                    let follow = self.follow(|device| device.on_ephemeral_mismatch(conversation, &mismatch));
                    if let Some(refused) = follow.await? {
                        return Err(refused.into());
                    }
                }
                other => return other,
            }
        }
        Err(Refused::MismatchUnexplained.into())
    }

    async fn submit_ephemeral(&self, request: wire::SendRequest) -> Result<(), ClientError> {
        let uplink = self.inner.uplink.read().clone().ok_or(ClientError::NotConnected)?;
        let (answer, answered) = oneshot::channel();
        let gone = |_| ClientError::NotConnected;
        uplink.send(Submission::Ephemeral { request, answer }).await.map_err(|_| ClientError::NotConnected)?;
        answered.await.map_err(gone)?
    }

    /// Tells whoever is there that somebody types here, or has stopped. Say it again every few seconds while it lasts.
    ///
    /// # Errors
    /// As [`Self::send_ephemeral`].
    pub async fn set_typing(&self, conversation: ConversationId, typing: bool) -> Result<(), ClientError> {
        let state = if typing { wire::TypingState::Started } else { wire::TypingState::Stopped };
        self.send_ephemeral(conversation, &body(Body::Typing(wire::Typing { state: state.into() }))).await
    }

    /// Sends a word of one end of a call to the others.
    ///
    /// # Errors
    /// As [`Self::send_ephemeral`].
    pub async fn send_call_signal(
        &self,
        conversation: ConversationId,
        call_id: bytes::Bytes,
        payload: bytes::Bytes,
    ) -> Result<(), ClientError> {
        self.send_ephemeral(conversation, &body(Body::CallSignal(wire::CallSignal { call_id, payload }))).await
    }

    /// Switches presence on or off; it is off unless this was called. While the device is connected it is told at once and then at
    /// every interval; when the device stops in good order, that is told too.
    pub fn set_presence(&self, rules: Option<PresenceRules>) {
        self.inner.presence.lock().rules = rules;
        self.wake();
    }

    /// What presence tells from now on. A change waits for the interval's end.
    pub fn set_presence_status(&self, status: PresenceStatus) {
        self.inner.presence.lock().status = status;
        self.wake();
    }

    /// When presence is to be told next, in Unix milliseconds; none while there is no socket, or if it is switched off.
    pub(crate) fn presence_due_at_ms(&self) -> Option<u64> {
        self.inner.uplink.read().as_ref()?;
        self.inner.presence.lock().due_at_ms()
    }

    pub(crate) async fn tell_presence(&self) {
        if self.inner.uplink.read().is_none() {
            return;
        }
        let now_ms = self.device(|device| device.now_ms());
        let due = self.inner.presence.lock().take_due(now_ms);
        if let Some((status, conversations)) = due {
            self.tell_status(status, &conversations).await;
        }
    }

    pub(crate) async fn say_goodbye(&self) {
        let now_ms = self.device(|device| device.now_ms());
        let conversations = self.inner.presence.lock().take_goodbye(now_ms);
        self.tell_status(PresenceStatus::Offline, &conversations).await;
    }

    async fn tell_status(&self, status: PresenceStatus, conversations: &[ConversationId]) {
        let content = body(Body::Presence(wire::Presence { status: status.into() }));
        for conversation in conversations {
            if let Err(error) = self.send_ephemeral(*conversation, &content).await {
                tracing::debug!(%error, "presence was not told");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presence_is_off_at_first_and_then_told_once_per_interval() {
        let mut presence = Presence::default();
        assert_eq!(presence.take_due(5), None);
        assert_eq!(presence.take_goodbye(5), []);
        let conversations = vec![ConversationId::new([1; 32])];
        presence.rules = Some(PresenceRules::new(conversations.clone()));
        assert_eq!(presence.take_due(5), Some((PresenceStatus::Online, conversations.clone())));
        presence.status = PresenceStatus::Away;
        assert_eq!(presence.take_due(60_004), None, "a change waits");
        assert_eq!(presence.take_due(60_005), Some((PresenceStatus::Away, conversations.clone())));
        assert_eq!(presence.take_goodbye(60_006), conversations);
        assert_eq!(presence.take_goodbye(60_007), [], "one goodbye is enough");
        assert_eq!(presence.take_due(60_008), None, "a device that comes and goes is no louder");
    }
}
