//! Devices that fall dormant because their signed prekey has expired, and come back.

use std::time::Duration;

use martlet_protocol::{
    problem::Code,
    rest::{Accepted, PrekeyState, PrekeyUpload, SendRequest},
};

use crate::harness::{TestDevice, TestNode, bundle_of, eventually};

const OWN: &str = "/v1/devices/self/prekeys";
/// The life of the harness's signed prekeys.
const LIFE: Duration = Duration::from_secs(60 * 24 * 60 * 60);

/// Names the other's list and has nothing for its device.
fn leaving_out(sender: &TestDevice, other: &TestDevice) -> SendRequest {
    SendRequest { forks: Vec::new(), ..sender.message(1, &[other]) }
}

fn control_head(node: &TestNode) -> i64 {
    node.store().number("SELECT head_seq AS number FROM control_heads")
}

#[tokio::test]
async fn a_device_that_came_back_must_not_be_left_out_any_more() {
    let node = TestNode::start().await;
    let ada = TestDevice::register(&node, "ada").await;
    let mut bob = TestDevice::register(&node, "bob").await;
    let id = ada.create(&node, &ada.direct_with(&node, &bob)).await.conversation_id;
    let path = TestDevice::messages_path(&id);
    node.post(&path, &ada.token, &leaving_out(&ada, &bob)).await.refused(Code::Mismatch);

    node.clock.advance(LIFE);
    let _: Accepted = node.post(&path, &ada.token, &leaving_out(&ada, &bob)).await.ok(200);
    assert_eq!(node.count("mailbox_gaps", "1 = 1"), 1, "it finds out what it missed");

    // One-time prekeys alone don't end it.
    let head = control_head(&node);
    let upload = bob.prekeys(&node, 5);
    let one_time = PrekeyUpload { signed_prekey: None, ..upload.clone() };
    let _: PrekeyState = node.post(OWN, &bob.token, &one_time).await.ok(200);
    assert_eq!(control_head(&node), head);
    let _: Accepted = node.post(&path, &ada.token, &leaving_out(&ada, &bob)).await.ok(200);

    let _: PrekeyState = node.post(OWN, &bob.token, &upload).await.ok(200);
    assert_eq!(control_head(&node), head + 1, "every node is told to read its account anew");
    let message = leaving_out(&ada, &bob);
    eventually("the node no longer remembers it as dormant", || async {
        let client_message_id = ada.message(1, &[]).client_message_id;
        let again = SendRequest { client_message_id, ..message.clone() };
        node.post(&path, &ada.token, &again).await.status.as_u16() == Code::Mismatch.status()
    })
    .await;
    let problem = node.post(&path, &ada.token, &leaving_out(&ada, &bob)).await.refused(Code::Mismatch);
    let mismatch = problem.mismatch.expect("a mismatch");
    assert!(bundle_of(&mismatch.missing, &bob).is_some() && mismatch.stale.is_empty());
    let _: Accepted = node.post(&path, &ada.token, &ada.message(1, &[&bob])).await.ok(200);

    // An ordinary renewal is nobody else's business.
    let renewal = bob.prekeys(&node, 0);
    let _: PrekeyState = node.post(OWN, &bob.token, &renewal).await.ok(200);
    assert_eq!(control_head(&node), head + 1);
    node.stop().await;
}
