//! Every route has its rates: all are asked for by turns, from the description, so that a new one can't be forgotten.

use martlet::{clock::Clock, config::Config};
use martlet_protocol::id::{AccountId, ConversationId};

use crate::harness::{Answer, TestDevice, TestNode};

/// Every described route of the node, asked for with this token and, where a body belongs, one that is no good.
async fn ask_all(node: &TestNode, token: &str) -> Vec<(String, Answer)> {
    let description = martlet::http::openapi();
    let description = serde_json::to_value(&description).expect("JSON");
    let mut answers = Vec::new();
    for (path, methods) in description["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            let id = ConversationId::new([7; 32]).to_text();
            let parts = path.split('/').map(|part| match part {
                "{username}" => "nobody".to_owned(),
                "{account_id}" | "{device_id}" | "{link_id}" => AccountId::new([7; 16]).to_text(),
                part if part.starts_with('{') => id.clone(),
                part => part.to_owned(),
            });
            let asked = parts.collect::<Vec<_>>().join("/");
            let request = node.request(method.to_uppercase().parse().expect("a method"), &asked, token).body("{");
            answers.push((format!("{method} {path}"), Answer::of(request).await));
        }
    }
    answers
}

/// The routes whose answer is not that too much was asked.
fn uncounted(answers: &[(String, Answer)]) -> Vec<&str> {
    let is_counted = |answer: &Answer| answer.status == 429 && answer.body.contains("\"rate_limited\"");
    answers.iter().filter(|(_, answer)| !is_counted(answer)).map(|(route, _)| &route[..]).collect()
}

#[tokio::test]
async fn every_route_is_counted_by_its_address() {
    let node = TestNode::start_at(Clock::manual(1_700_000_000_000), |config| {
        config.limits.requests_per_address_per_second = 1;
        config.limits.requests_per_address_burst = 1;
    })
    .await;
    node.get("/v1/nowhere", "").await;
    assert_eq!(uncounted(&ask_all(&node, "").await), ["get /health", "get /ready"]);
    node.stop().await;
}

#[tokio::test]
async fn every_route_of_a_device_is_counted_by_it_and_by_its_account_before_its_body_is_looked_at() {
    const NOBODYS: [&str; 8] = [
        "get /health",
        "get /ready",
        "post /v1/accounts",
        "post /v1/links",
        "post /v1/links/{link_id}/complete",
        "post /v1/links/{link_id}/poll",
        "post /v1/sessions",
        "get /v1/socket",
    ];
    // Counted with the message: `an_account_can_not_send_more_by_its_rate_and_is_told_when_it_may`.
    const MESSAGE: &str = "post /v1/conversations/{conversation_id}/messages";
    let spent = async |change: fn(&mut Config)| {
        let node = TestNode::start_at(Clock::manual(1_700_000_000_000), |config| {
            config.limits.requests_per_device_per_minute = 0;
            change(config);
        })
        .await;
        let ada = TestDevice::register(&node, "ada").await;
        assert!(node.get("/v1/devices", &ada.token).await.status.is_success());
        assert!(node.get("/v1/accounts/by-name/ada", &ada.token).await.status.is_success());
        let answers = ask_all(&node, &ada.token).await;
        let mut rest: Vec<String> = uncounted(&answers).iter().map(|route| (*route).to_owned()).collect();
        rest.retain(|route| !NOBODYS.contains(&&route[..]) && route != MESSAGE);
        node.stop().await;
        rest
    };
    assert_eq!(spent(|config| config.limits.requests_per_account_per_minute = 2).await, [""; 0]);
    let by_device = spent(|config| {
        config.limits.requests_per_device_per_minute = 1;
        config.limits.lookups_per_device_per_minute = 1;
    });
    assert_eq!(by_device.await, ["post /v1/bundles"], "claims are counted by what they name");
}
