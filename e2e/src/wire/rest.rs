//! Requests to a node, and the two ways in which they fail: it refused, or nobody knows.

use std::time::Duration;

use anyhow::Result;
use martlet_protocol::rest::Problem;
use reqwest::{Method, StatusCode};
use serde::{Serialize, de::DeserializeOwned};

/// After this an answer counts as lost. A node under test is killed, not slow.
const ANSWER_DEADLINE: Duration = Duration::from_secs(180);

/// A node as seen through HTTP.
#[derive(Clone)]
pub struct Rest {
    base: String,
    http: reqwest::Client,
}

/// Why there is no answer of the wanted kind.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// The node refused with problem details, so nothing happened.
    #[error("refused: {} {} ({})", .0.status, .0.code, .0.detail)]
    Refused(Box<Problem>),
    /// No answer came: it may have happened or not.
    #[error("the answer was lost: {0}")]
    Lost(String),
    /// An answer that is none of the protocol.
    #[error("status {status} with an unreadable body: {body}")]
    Unreadable {
        /// HTTP status.
        status: StatusCode,
        /// Its beginning.
        body: String,
    },
}

impl RestError {
    /// The stable code, if the node refused.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(problem) => Some(&problem.code),
            _ => None,
        }
    }
}

impl Rest {
    /// A client of the node at this address.
    ///
    /// # Errors
    /// The HTTP client can't be made.
    pub fn new(base: impl Into<String>) -> Result<Self> {
        Self::with_deadline(base, ANSWER_DEADLINE)
    }

    /// A client for which an answer is lost that has not come within this time.
    ///
    /// # Errors
    /// The HTTP client can't be made.
    pub fn with_deadline(base: impl Into<String>, deadline: Duration) -> Result<Self> {
        Ok(Self { base: base.into(), http: reqwest::Client::builder().timeout(deadline).build()? })
    }

    /// A client that asks through an HTTP client of the test's own making.
    #[must_use]
    pub fn over(base: impl Into<String>, http: reqwest::Client) -> Self {
        Self { base: base.into(), http }
    }

    /// A client that comes from an address of its own.
    ///
    /// # Errors
    /// The HTTP client can't be made.
    pub fn from_address(base: impl Into<String>, address: std::net::Ipv4Addr) -> Result<Self> {
        let http = reqwest::Client::builder().timeout(ANSWER_DEADLINE).local_address(std::net::IpAddr::V4(address));
        Ok(Self { base: base.into(), http: http.build()? })
    }

    /// The node's address.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Asks with a body.
    ///
    /// # Errors
    /// [`RestError`].
    pub async fn post<B: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        token: Option<&str>,
        body: &B,
    ) -> Result<A, RestError> {
        self.ask(Method::POST, path, token, Some(body)).await
    }

    /// Asks with a body that replaces something.
    ///
    /// # Errors
    /// [`RestError`].
    pub async fn put<B: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        token: Option<&str>,
        body: &B,
    ) -> Result<A, RestError> {
        self.ask(Method::PUT, path, token, Some(body)).await
    }

    /// Asks.
    ///
    /// # Errors
    /// [`RestError`].
    pub async fn get<A: DeserializeOwned>(&self, path: &str, token: Option<&str>) -> Result<A, RestError> {
        self.ask(Method::GET, path, token, None::<&()>).await
    }

    async fn ask<B: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&B>,
    ) -> Result<A, RestError> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let lost = |error: reqwest::Error| RestError::Lost(error.to_string());
        let answer = request.send().await.map_err(lost)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(lost)?;
        let unreadable =
            || RestError::Unreadable { status, body: String::from_utf8_lossy(&bytes).chars().take(300).collect() };
        if status.is_success() {
            // An answer without a body reads as JSON null.
            let json: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
            serde_json::from_slice(json).map_err(|_| unreadable())
        } else {
            let problem = serde_json::from_slice(&bytes).map_err(|_| unreadable())?;
            Err(RestError::Refused(Box::new(problem)))
        }
    }
}
