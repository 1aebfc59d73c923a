//! A store that is away for a moment, under sends that stand in a row.

use std::{net::SocketAddr, time::Duration};

use martlet_protocol::wire::{client_frame, node_frame::Frame};
use martlet_servers::Proxy;
use martlet_storage::DatabaseUrl;
use tokio::time;

use crate::{
    client::{Client, PROTO},
    world::World,
};

/// The same database over a line that can be cut.
fn over(proxy: &mut Option<Proxy>, url: &DatabaseUrl) -> DatabaseUrl {
    let (before, rest) = url.reveal().split_once("127.0.0.1:").expect("a server on this machine");
    let (port, after) = rest.split_once('/').expect("a database's name");
    let server = SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port")));
    let proxy = proxy.insert(Proxy::start(server).expect("a proxy"));
    DatabaseUrl::new(&format!("{before}127.0.0.1:{}/{after}", proxy.port())).expect("still a database's address")
}

/// None of them is refused: a sender whose socket is gone would not hear it, send that one again, and it would stand behind the others.
#[tokio::test]
async fn sends_that_find_the_store_away_wait_for_it_in_their_order() {
    let mut proxy = None;
    let world = World::with(|config| {
        let url = config.storage.database_url.as_ref().expect("a cluster's");
        config.storage.database_url = Some(over(&mut proxy, url));
    })
    .await;
    let proxy = proxy.expect("it was started");
    let (mut alice, _) = Client::connect(&world.node, &world.alice, PROTO).await;
    // Nobody has sent in this conversation, so the node must read who is in it.
    proxy.cut();
    let mut references = Vec::new();
    for _ in 0..3 {
        references.push(alice.send(client_frame::Frame::Send(world.message(300))).await);
    }
    time::sleep(Duration::from_millis(500)).await;
    proxy.heal().expect("the line is whole again");
    for reference in references {
        let (answered, frame) = alice.next().await;
        assert!(matches!(frame, Frame::Accepted(_)), "{frame:?}");
        assert_eq!(answered, reference, "in order");
    }
}
