//! The REST calls of a device, one function per route. It checks no signature and keeps no state but the address and the token.

use std::{sync::Arc, time::Duration};

use martlet_protocol::{
    id::{AccountId, ConversationId, DeviceId, LinkId},
    rest,
};
use parking_lot::RwLock;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::{Serialize, de::DeserializeOwned};

use crate::error::ClientError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Password hashing may wait its turn on a busy node; everything else is quicker.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);
/// An answer is read into memory; this is far above the largest page.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// A server as one device sees it.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    base: String,
    token: Arc<RwLock<String>>,
}

impl Api {
    /// For the server at `base`, such as `https://chat.example.org`.
    ///
    /// # Errors
    /// [`ClientError::BadAddress`].
    pub fn new(base: &str) -> Result<Self, ClientError> {
        let bad = || ClientError::BadAddress(base.to_owned());
        let url = reqwest::Url::parse(base).map_err(|_| bad())?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(bad());
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| ClientError::Unreachable(e.to_string()))?;
        Ok(Self { http, base: base.trim_end_matches('/').to_owned(), token: Arc::default() })
    }

    /// The same server as another device sees it, over the same connections.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Arc::new(RwLock::new(token.to_owned())), ..self.clone() }
    }

    /// The address as it was given, without a slash at its end.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The token that requests carry from now on.
    pub fn set_token(&self, token: &str) {
        token.clone_into(&mut self.token.write());
    }

    /// The token that requests carry now.
    #[must_use]
    pub fn token(&self) -> String {
        self.token.read().clone()
    }

    /// `POST /v1/accounts`.
    ///
    /// # Errors
    /// As every call here: [`ClientError::Problem`] with the server's code, `Unreachable`, or `BadAnswer`.
    pub async fn register(&self, request: &rest::RegisterRequest) -> Result<rest::DeviceSession, ClientError> {
        self.post("/v1/accounts", request).await
    }

    /// `POST /v1/sessions`.
    ///
    /// # Errors
    /// As every call here.
    pub async fn sign_in(&self, request: &rest::SignInRequest) -> Result<rest::DeviceSession, ClientError> {
        self.post("/v1/sessions", request).await
    }

    /// `DELETE /v1/sessions/current`.
    ///
    /// # Errors
    /// As every call here.
    pub async fn sign_out(&self) -> Result<(), ClientError> {
        self.nothing(self.request(Method::DELETE, "/v1/sessions/current")).await
    }

    /// `POST /v1/tokens/rotate`.
    ///
    /// # Errors
    /// As every call here.
    pub async fn rotate_token(&self) -> Result<rest::DeviceSession, ClientError> {
        self.answer(self.request(Method::POST, "/v1/tokens/rotate")).await
    }

    /// `GET /v1/accounts/by-name/{username}`.
    ///
    /// # Errors
    /// As every call here.
    pub async fn account_by_name(&self, username: &str) -> Result<rest::AccountRef, ClientError> {
        // The only path part that people type; the rest are base64url.
        let Some(name) = path_part(username) else { return Err(ClientError::NoSuchAccount) };
        self.get(&format!("/v1/accounts/by-name/{name}")).await
    }

    /// `GET /v1/accounts/{account_id}/lists?after=`.
    ///
    /// # Errors
    /// As every call here.
    pub async fn lists(&self, account: AccountId, after: u64) -> Result<rest::AccountLists, ClientError> {
        self.get(&format!("/v1/accounts/{}/lists?after={after}", account.to_text())).await
    }

    /// `GET /v1/devices`.
    ///
    /// # Errors
    /// As every call here.
    pub async fn devices(&self) -> Result<rest::OwnDevices, ClientError> {
        self.get("/v1/devices").await
    }

    /// `PATCH /v1/devices/{device_id}`.
    ///
    /// # Errors
    /// As every call here.
    pub async fn rename(&self, device: DeviceId, name: &str) -> Result<(), ClientError> {
        let body = rest::RenameRequest { name: name.to_owned() };
        self.nothing(self.request(Method::PATCH, &format!("/v1/devices/{}", device.to_text())).json(&body)).await
    }

    /// `POST /v1/devices/revoke`.
    ///
    /// # Errors
    /// As every call here; `device_list_conflict` carries the lists after the one named.
    pub async fn revoke(&self, device_list: rest::SignedDeviceList) -> Result<(), ClientError> {
        let body = rest::RevokeRequest { device_list };
        self.nothing(self.request(Method::POST, "/v1/devices/revoke").json(&body)).await
    }

    /// `POST /v1/devices/self/prekeys`.
    ///
    /// # Errors
    /// As every call here.
    pub async fn upload_prekeys(&self, upload: &rest::PrekeyUpload) -> Result<rest::PrekeyState, ClientError> {
        self.post("/v1/devices/self/prekeys", upload).await
    }

    /// `POST /v1/bundles`.
    ///
    /// # Errors
    /// As every call here.
    pub async fn claim(&self, request: &rest::ClaimRequest) -> Result<rest::ClaimAnswer, ClientError> {
        self.post("/v1/bundles", request).await
    }

    /// `POST /v1/links`.
    ///
    /// # Errors
    /// As every call here.
    pub async fn start_link(&self, start: &rest::LinkStart) -> Result<rest::LinkStarted, ClientError> {
        self.post("/v1/links", start).await
    }

    /// `GET /v1/links/{link_id}`.
    ///
    /// # Errors
    /// As every call here.
    pub async fn link(&self, link: LinkId) -> Result<rest::LinkOffered, ClientError> {
        self.get(&format!("/v1/links/{}", link.to_text())).await
    }

    /// `PUT /v1/links/{link_id}/answer`.
    ///
    /// # Errors
    /// As every call here.
    pub async fn answer_link(&self, link: LinkId, answer: &rest::LinkAnswered) -> Result<(), ClientError> {
        self.nothing(self.request(Method::PUT, &format!("/v1/links/{}/answer", link.to_text())).json(answer)).await
    }

    /// `POST /v1/links/{link_id}/poll`.
    ///
    /// # Errors
    /// As every call here.
    pub async fn poll_link(&self, link: LinkId, poll: &rest::LinkPoll) -> Result<rest::LinkPolled, ClientError> {
        self.post(&format!("/v1/links/{}/poll", link.to_text()), poll).await
    }

    /// `POST /v1/links/{link_id}/complete`.
    ///
    /// # Errors
    /// As every call here.
    pub async fn complete_link(
        &self,
        link: LinkId,
        complete: &rest::LinkComplete,
    ) -> Result<rest::DeviceSession, ClientError> {
        self.post(&format!("/v1/links/{}/complete", link.to_text()), complete).await
    }

    /// `POST /v1/conversations`.
    ///
    /// # Errors
    /// As every call here; `conversation_exists` names the one that exists.
    pub async fn create_conversation(
        &self,
        create: &rest::CreateConversation,
    ) -> Result<rest::Conversation, ClientError> {
        self.post("/v1/conversations", create).await
    }

    /// One page of `GET /v1/conversations`.
    ///
    /// # Errors
    /// As every call here.
    pub async fn conversations(&self, cursor: Option<&str>) -> Result<rest::Page<rest::Conversation>, ClientError> {
        match cursor {
            Some(cursor) => self.get(&format!("/v1/conversations?cursor={cursor}")).await,
            None => self.get("/v1/conversations").await,
        }
    }

    /// `GET /v1/conversations/{conversation_id}/membership?after=`.
    ///
    /// # Errors
    /// As every call here.
    pub async fn membership(
        &self,
        conversation: ConversationId,
        after: u64,
    ) -> Result<rest::MembershipLinks, ClientError> {
        self.get(&format!("/v1/conversations/{}/membership?after={after}", conversation.to_text())).await
    }

    /// `POST /v1/conversations/{conversation_id}/membership`.
    ///
    /// # Errors
    /// As every call here; `membership_conflict` carries the links after the one named.
    pub async fn change_membership(
        &self,
        conversation: ConversationId,
        change: &rest::ChangeMembership,
    ) -> Result<(), ClientError> {
        let path = format!("/v1/conversations/{}/membership", conversation.to_text());
        self.nothing(self.request(Method::POST, &path).json(change)).await
    }

    /// `POST /v1/conversations/{conversation_id}/messages`.
    ///
    /// # Errors
    /// As every call here; `mismatch` carries what to encrypt for.
    pub async fn send(
        &self,
        conversation: ConversationId,
        request: &rest::SendRequest,
    ) -> Result<rest::Accepted, ClientError> {
        self.post(&format!("/v1/conversations/{}/messages", conversation.to_text()), request).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        let token = self.token.read();
        if token.is_empty() { request } else { request.bearer_auth(token.as_str()) }
    }

    async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, ClientError> {
        self.answer(self.request(Method::GET, path)).await
    }

    async fn post<A: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<A, ClientError> {
        self.answer(self.request(Method::POST, path).json(body)).await
    }

    async fn answer<A: DeserializeOwned>(&self, request: RequestBuilder) -> Result<A, ClientError> {
        let body = self.exchange(request).await?;
        serde_json::from_slice(&body).map_err(|e| ClientError::BadAnswer(e.to_string()))
    }

    /// For routes whose answer has nothing that a device needs.
    async fn nothing(&self, request: RequestBuilder) -> Result<(), ClientError> {
        self.exchange(request).await.map(drop)
    }

    async fn exchange(&self, request: RequestBuilder) -> Result<Vec<u8>, ClientError> {
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let body = read_bounded(response).await?;
        if status.is_success() {
            return Ok(body);
        }
        Err(problem(status, &body))
    }
}

async fn read_bounded(mut response: Response) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(ClientError::BadAnswer("it is too long".into()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A body that is no problem document comes from a proxy; its status is all there is to tell.
fn problem(status: StatusCode, body: &[u8]) -> ClientError {
    let problem = serde_json::from_slice(body).unwrap_or_else(|_| rest::Problem {
        kind: "about:blank".into(),
        code: String::new(),
        title: format!("HTTP {status}"),
        status: status.as_u16(),
        detail: String::new(),
        request_id: String::new(),
        retry_after_ms: None,
        mismatch: None,
        lists: Vec::new(),
        membership: Vec::new(),
        conversation_id: None,
        group_epoch: None,
    });
    ClientError::Problem(Box::new(problem))
}

/// Without the address, which may name a person, but with the innermost cause, which names the fix.
fn unreachable(error: reqwest::Error) -> ClientError {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    ClientError::Unreachable(cause.to_string())
}

fn path_part(text: &str) -> Option<&str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (!text.is_empty() && text.chars().all(allowed)).then_some(text)
}
