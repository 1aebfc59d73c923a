//! Saying no to an upgrade, by hand: a whole HTTP/1.1 response with the same problem details that REST gives.

use martlet_protocol::{id::to_base64, problem::Code, rest::Problem};

/// A header line: this address takes GET only.
pub(super) const ALLOW_GET: &str = "allow: GET\r\n";
/// A header line: the only version that there is (RFC 6455, section 4.4).
pub(super) const VERSION_13: &str = "sec-websocket-version: 13\r\n";
const WWW_AUTHENTICATE: &str = "www-authenticate: Bearer\r\n";
const REQUEST_ID_BYTES: usize = 9;

/// Why there is no socket.
#[derive(Debug)]
pub(super) struct Refusal {
    code: Code,
    detail: String,
    retry_after_ms: Option<u32>,
    headers: &'static str,
}

impl Refusal {
    pub(super) fn new(code: Code, detail: &str) -> Self {
        let headers = if code.status() == 401 { WWW_AUTHENTICATE } else { "" };
        Self { code, detail: detail.to_owned(), retry_after_ms: None, headers }
    }

    /// One that need not be the last word.
    pub(super) fn later(code: Code, detail: &str, retry_after_ms: u32) -> Self {
        Self { retry_after_ms: Some(retry_after_ms), ..Self::new(code, detail) }
    }

    /// With a header line of its own.
    pub(super) fn with(self, headers: &'static str) -> Self {
        Self { headers, ..self }
    }

    #[cfg(test)]
    pub(super) fn code(&self) -> Code {
        self.code
    }

    /// The response, after which the connection ends. The request's id is drawn here and goes to the log.
    pub(super) fn response(&self, rng: &mut impl rand::Rng) -> Vec<u8> {
        let mut id = [0; REQUEST_ID_BYTES];
        rng.fill_bytes(&mut id);
        let request_id = to_base64(&id);
        tracing::debug!(request_id, code = self.code.as_str(), "an upgrade was refused");
        let problem = Problem {
            kind: format!("urn:martlet:problem:{}", self.code.as_str()),
            code: self.code.as_str().to_owned(),
            title: self.code.title().to_owned(),
            status: self.code.status(),
            detail: self.detail.clone(),
            request_id: request_id.clone(),
            retry_after_ms: self.retry_after_ms,
            mismatch: None,
            lists: Vec::new(),
            membership: Vec::new(),
            conversation_id: None,
            group_epoch: None,
        };
        // Strings and numbers: nothing that JSON can't say.
        let body = serde_json::to_string(&problem).unwrap_or_default();
        let status = self.code.status();
        let reason = actix_http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let retry_after =
            self.retry_after_ms.map_or_else(String::new, |wait| format!("retry-after: {}\r\n", wait.div_ceil(1000)));
        format!(
            "HTTP/1.1 {status} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
             cache-control: no-store\r\nx-request-id: {request_id}\r\n{retry_after}{}connection: close\r\n\r\n{body}",
            reason.unwrap_or("Error"),
            body.len(),
            self.headers,
        )
        .into_bytes()
    }
}
