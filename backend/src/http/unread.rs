//! The rest of a body that a refusal left unread.
//!
//! Whoever closes a connection on bytes that it hasn't read resets it, and the reset may overtake the answer: a client sees a broken
//! connection in place of `unauthenticated`, and a proxy takes the node for a failed one, asks the next and soon asks this one no more.
//! So what was sent is read and thrown away before the answer goes, up to a size and a time. (RFC 9112, section 9.6, says why servers
//! close in stages; reading first also keeps the connection.)

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    HttpMessage as _,
    dev::{Payload, ServiceRequest},
    error::PayloadError,
    http::header,
    web::Bytes,
};
use futures_util::{
    Stream, StreamExt as _,
    stream::{Fuse, FusedStream as _},
};
use tokio::time::timeout;

/// How long nothing may come, and how long it may take in all: who has announced a body and doesn't send it gets the answer anyway.
const PATIENCE: Duration = Duration::from_millis(500);
const PATIENCE_IN_ALL: Duration = Duration::from_secs(2);

/// The body of one request, which the handler reads and of which [`Unread::discard`] reads the rest.
pub(super) struct Unread {
    body: Option<Shared>,
    max_bytes: usize,
}

impl Unread {
    /// Puts itself between the request and its body. Of a body that is announced longer than `max_bytes` nothing will be read: its
    /// sender is told and cut off.
    pub(super) fn of(request: &mut ServiceRequest, max_bytes: usize) -> Self {
        let body = match request.take_payload() {
            Payload::None => None,
            payload if announced(request).is_some_and(|length| length > max_bytes) => {
                request.set_payload(payload);
                None
            }
            payload => {
                let shared = Shared(Rc::new(RefCell::new(payload.fuse())));
                request.set_payload(Payload::Stream { payload: Box::pin(shared.clone()) });
                Some(shared)
            }
        };
        Self { body, max_bytes }
    }

    /// Reads what is left and forgets it.
    pub(super) async fn discard(self) {
        let Some(mut body) = self.body else { return };
        if body.is_read() {
            return;
        }
        let rest = async {
            let mut read = 0;
            while let Ok(Some(Ok(bytes))) = timeout(PATIENCE, body.next()).await {
                read += bytes.len();
                if read > self.max_bytes {
                    break;
                }
            }
        };
        // Past that the connection is closed behind the answer, as if this had not been.
        let _ = timeout(PATIENCE_IN_ALL, rest).await;
    }
}

/// What `Content-Length` says.
fn announced(request: &ServiceRequest) -> Option<usize> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// One body, read in two places one after the other. Never borrowed across a wait.
#[derive(Clone)]
struct Shared(Rc<RefCell<Fuse<Payload>>>);

impl Shared {
    fn is_read(&self) -> bool {
        self.0.borrow().is_terminated()
    }
}

impl Stream for Shared {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.borrow_mut().poll_next_unpin(context)
    }
}
