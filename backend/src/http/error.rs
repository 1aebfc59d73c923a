//! The one error of HTTP: a stable code as RFC 9457 problem details.
//!
//! Domain errors become it here and nowhere else. What went wrong inside the node is kept for the log and never shown.

use std::fmt;

use actix_web::{
    HttpResponse, HttpResponseBuilder, ResponseError,
    error::{JsonPayloadError, PathError, QueryPayloadError},
    http::{StatusCode, header},
};
use martlet_protocol::{
    id::ConversationId,
    problem::Code,
    rest::{Mismatch, Problem, SignedDeviceList, SignedMembershipLink},
};

use crate::{accounts::AccountError, conversations::ConversationError, limits::RetryAfterMs, messages::SendError};

/// How long a client is asked to stay away when the node has too much to do, in milliseconds.
const BUSY_RETRY_MS: u32 = 500;

/// A refused request.
#[derive(Debug)]
pub struct ApiError {
    code: Code,
    detail: String,
    retry_after_ms: Option<u32>,
    extra: Option<Box<Extra>>,
    cause: Option<String>,
}

/// What some codes carry.
#[derive(Debug, Default)]
struct Extra {
    mismatch: Option<Mismatch>,
    lists: Vec<SignedDeviceList>,
    membership: Vec<SignedMembershipLink>,
    conversation_id: Option<ConversationId>,
    group_epoch: Option<u64>,
}

impl ApiError {
    /// A code with a detail about this occurrence. The detail holds no user data but what the asker sent.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let retry_after_ms = matches!(code, Code::Busy | Code::Unavailable).then_some(BUSY_RETRY_MS);
        Self { code, detail: detail.into(), retry_after_ms, extra: None, cause: None }
    }

    /// Over a rate.
    #[must_use]
    pub fn rate_limited(retry_after_ms: RetryAfterMs) -> Self {
        Self { retry_after_ms: Some(retry_after_ms), ..Self::new(Code::RateLimited, "") }
    }

    /// A bug or a broken store: the cause goes to the log, the asker gets the code alone.
    #[must_use]
    pub fn internal(cause: impl fmt::Display) -> Self {
        Self { cause: Some(cause.to_string()), ..Self::new(Code::Internal, "") }
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// For the log, if something inside the node went wrong. Holds no user data.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The answer. The request id is known to the edge only, which calls this again with it.
    #[must_use]
    pub fn response(&self, request_id: &str) -> HttpResponse {
        let mut response = HttpResponseBuilder::new(self.status_code());
        response.insert_header((header::CONTENT_TYPE, "application/problem+json"));
        if let Some(retry_after_ms) = self.retry_after_ms {
            response.insert_header((header::RETRY_AFTER, retry_after_ms.div_ceil(1000).to_string()));
        }
        if self.code.status() == 401 {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        response.json(self.problem(request_id))
    }

    fn problem(&self, request_id: &str) -> Problem {
        let extra = self.extra.as_deref();
        Problem {
            kind: format!("urn:martlet:problem:{}", self.code.as_str()),
            code: self.code.as_str().to_owned(),
            title: self.code.title().to_owned(),
            status: self.code.status(),
            detail: self.detail.clone(),
            request_id: request_id.to_owned(),
            retry_after_ms: self.retry_after_ms,
            mismatch: extra.and_then(|extra| extra.mismatch.clone()),
            lists: extra.map(|extra| extra.lists.clone()).unwrap_or_default(),
            membership: extra.map(|extra| extra.membership.clone()).unwrap_or_default(),
            conversation_id: extra.and_then(|extra| extra.conversation_id),
            group_epoch: extra.and_then(|extra| extra.group_epoch),
        }
    }

    fn with(mut self, extra: Extra) -> Self {
        self.extra = Some(Box::new(extra));
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code.as_str())
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        self.response("")
    }
}

/// What every domain error becomes: its code and words, or for inner causes the code alone.
fn from_domain(code: Code, error: &dyn fmt::Display) -> ApiError {
    if code == Code::Internal { ApiError::internal(error) } else { ApiError::new(code, error.to_string()) }
}

impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        let api = from_domain(error.code(), &error);
        match error {
            AccountError::RateLimited(retry_after_ms) => Self::rate_limited(retry_after_ms),
            AccountError::ListConflict(lists) => api.with(Extra { lists, ..Extra::default() }),
            _ => api,
        }
    }
}

impl From<ConversationError> for ApiError {
    fn from(error: ConversationError) -> Self {
        let api = from_domain(error.code(), &error);
        match error {
            ConversationError::ListConflict(lists) => api.with(Extra { lists, ..Extra::default() }),
            ConversationError::LinkConflict(membership) => api.with(Extra { membership, ..Extra::default() }),
            ConversationError::Exists(id) => api.with(Extra { conversation_id: Some(id), ..Extra::default() }),
            _ => api,
        }
    }
}

impl From<SendError> for ApiError {
    fn from(error: SendError) -> Self {
        let code = error.code();
        let mut api = from_domain(code, &error);
        let problem = error.into_problem();
        if problem.retry_after_ms > 0 {
            api.retry_after_ms = Some(problem.retry_after_ms);
        }
        if code == Code::EpochConflict {
            return api.with(Extra { group_epoch: Some(problem.group_epoch), ..Extra::default() });
        }
        match problem.mismatch.as_ref().map(Mismatch::try_from).transpose() {
            Ok(None) => api,
            Ok(mismatch) => api.with(Extra { mismatch, ..Extra::default() }),
            Err(error) => Self::internal(error),
        }
    }
}

impl From<JsonPayloadError> for ApiError {
    fn from(error: JsonPayloadError) -> Self {
        match error {
            JsonPayloadError::OverflowKnownLength { limit, .. } | JsonPayloadError::Overflow { limit } => {
                Self::new(Code::TooLarge, format!("the body is over {limit} bytes"))
            }
            JsonPayloadError::ContentType => Self::new(Code::Malformed, "the content type must be application/json"),
            JsonPayloadError::Deserialize(error) => Self::new(Code::Malformed, format!("body: {error}")),
            _ => Self::new(Code::Malformed, "the body could not be read"),
        }
    }
}

impl From<PathError> for ApiError {
    fn from(error: PathError) -> Self {
        Self::new(Code::Malformed, format!("path: {error}"))
    }
}

impl From<QueryPayloadError> for ApiError {
    fn from(error: QueryPayloadError) -> Self {
        Self::new(Code::Malformed, format!("query: {error}"))
    }
}
