//! A node on a free port, and requests to it.

use martlet::{clock::Clock, config::Config, server::Node, server::RunningNode};
use martlet_protocol::{problem::Code, rest::Problem};
use reqwest::{Method, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::store::{self, Store};

/// Where every test's time begins: 2025-06-15, so that nothing depends on today.
const START_MS: u64 = 1_750_000_000_000;

/// A running node with its own data directory and a clock that stands still.
pub struct TestNode {
    pub clock: Clock,
    running: RunningNode,
    store: Store,
    http: reqwest::Client,
}

impl TestNode {
    /// With cheap password hashes and without rates.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_at(Clock::manual(START_MS), change).await
    }

    /// By another clock: sockets need one that goes.
    pub async fn start_at(clock: Clock, change: impl FnOnce(&mut Config)) -> Self {
        let store = Store::new();
        let mut config = Config::default();
        config.server.listen = ([127, 0, 0, 1], 0).into();
        config.server.internal_listen = ([127, 0, 0, 1], 0).into();
        config.server.workers = 1;
        config.server.drain_window = std::time::Duration::ZERO;
        store.configure(&mut config);
        if matches!(clock, Clock::Manual(_)) {
            // It has a time of its own, and keeps it.
            config.cluster.max_clock_difference = std::time::Duration::MAX;
        }
        config.accounts.argon2_memory_kib = 8;
        config.accounts.argon2_iterations = 1;
        config.limits.sign_ins_per_address_per_minute = 0;
        config.limits.registrations_per_address_per_minute = 0;
        config.limits.claims_per_claimer_per_minute = 0;
        config.limits.claims_per_target_per_minute = 0;
        config.limits.lookups_per_device_per_minute = 0;
        config.limits.sends_per_device_per_second = 0;
        config.limits.sends_per_account_per_second = 0;
        config.limits.frames_per_socket_per_second = 0;
        config.limits.frames_per_account_per_second = 0;
        config.limits.frames_per_address_per_second = 0;
        config.limits.sign_ins_per_account_per_minute = 0;
        config.limits.requests_per_account_per_minute = 0;
        config.limits.requests_per_address_per_second = 0;
        config.limits.connections_per_address_per_second = 0;
        config.limits.connections_per_device_per_minute = 0;
        change(&mut config);
        let running = Node::start(config, clock.clone()).await.expect("the node starts");
        Self { clock, running, store, http: reqwest::Client::new() }
    }

    /// For tests that look inside.
    pub fn running(&self) -> &RunningNode {
        &self.running
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.public)
    }

    /// A request of a device, or of nobody with an empty token.
    pub fn request(&self, method: Method, path: &str, token: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, self.url(path));
        if token.is_empty() { request } else { request.bearer_auth(token) }
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        Answer::of(self.request(Method::GET, path, token)).await
    }

    pub async fn post(&self, path: &str, token: &str, body: &impl Serialize) -> Answer {
        Answer::of(self.request(Method::POST, path, token).json(body)).await
    }

    pub async fn put(&self, path: &str, token: &str, body: &impl Serialize) -> Answer {
        Answer::of(self.request(Method::PUT, path, token).json(body)).await
    }

    pub async fn patch(&self, path: &str, token: &str, body: &impl Serialize) -> Answer {
        Answer::of(self.request(Method::PATCH, path, token).json(body)).await
    }

    pub async fn delete(&self, path: &str, token: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, path, token)).await
    }

    /// Posts what must be refused with this code and change nothing stored.
    pub async fn refuses_post(&self, path: &str, token: &str, body: &impl Serialize, code: Code) -> Problem {
        self.refuses(self.request(Method::POST, path, token).json(body), code).await
    }

    /// Sends what must be refused with this code and change nothing stored.
    pub async fn refuses(&self, request: reqwest::RequestBuilder, code: Code) -> Problem {
        let before = self.store.read();
        let problem = Answer::of(request).await.refused(code);
        store::assert_same(&before, &self.store.read());
        problem
    }

    /// Announces a body of so many bytes, which must be refused as too large before it comes, and change nothing stored. Sending it
    /// would race: a client that still writes when the node closes may see the broken connection instead of the answer.
    pub async fn refuses_announced(&self, method: &Method, path: &str, token: &str, body_bytes: usize) {
        let before = self.store.read();
        let authorization = if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: node\r\n{authorization}content-type: application/json\r\ncontent-length: {body_bytes}\r\n\r\n"
        );
        let mut stream = TcpStream::connect(self.running.public).await.expect("a connection");
        stream.write_all(head.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        while !String::from_utf8_lossy(&answer).contains("\"too_large\"") {
            let read = stream.read_buf(&mut answer).await.expect("an answer");
            assert_ne!(read, 0, "closed after {}", String::from_utf8_lossy(&answer));
        }
        assert!(answer.starts_with(b"HTTP/1.1 413 "), "{}", String::from_utf8_lossy(&answer));
        store::assert_same(&before, &self.store.read());
    }

    /// Rows of a table that satisfy a condition of SQL.
    pub fn count(&self, table: &str, condition: &str) -> i64 {
        self.store.count(table, condition)
    }

    pub fn password_verifications(&self) -> u64 {
        self.running().services().accounts.password_verifications()
    }

    /// With its connections closed first: the node would wait some seconds for requests on them.
    pub async fn stop(self) {
        drop(self.stop_keeping_data().await);
    }

    /// Its store outlives it.
    pub async fn stop_keeping_data(self) -> Store {
        drop(self.http);
        self.running.stop().await;
        self.store
    }
}

/// What came back.
pub struct Answer {
    pub status: StatusCode,
    pub headers: header::HeaderMap,
    pub body: String,
}

impl Answer {
    pub async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        Self { status, headers, body: response.text().await.expect("a body") }
    }

    /// The body of a success with this status.
    pub fn ok<T: DeserializeOwned>(self, status: u16) -> T {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        serde_json::from_str(&self.body).expect("the documented shape")
    }

    /// A success without a body.
    pub fn done(self) {
        assert_eq!((self.status.as_u16(), self.body.as_str()), (204, ""));
    }

    /// A refusal with this code, as problem details whose request id is the header's.
    pub fn refused(self, code: Code) -> Problem {
        assert_eq!(self.status.as_u16(), code.status(), "{} expected, got {}", code.as_str(), self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem: Problem = serde_json::from_str(&self.body).expect("problem details");
        assert_eq!(problem.code, code.as_str(), "{}", self.body);
        assert_eq!(problem.kind, format!("urn:martlet:problem:{}", code.as_str()));
        assert_eq!(problem.status, code.status());
        assert_eq!(problem.request_id, self.header("x-request-id"));
        assert!(!problem.request_id.is_empty());
        problem
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    pub fn header(&self, name: &str) -> String {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    }
}
