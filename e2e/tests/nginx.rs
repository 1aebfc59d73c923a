//! The files of `nginx/` with a real nginx and real nodes behind it.
//!
//! The nodes here are embedded ones, each with a store of its own. Nobody runs them so, but it tells which node answered: a token is
//! good at one of them only. What a cluster does behind nginx is tested elsewhere.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Result, bail, ensure};
use martlet_e2e::{
    front::{Front, NameServer, Nodes, Opened, open},
    node::{Node, NodeOptions, Ports},
    scene::{self, Scene, until},
    wire::{Account, Rest, RestError, username},
};
use martlet_protocol::id::to_base64;
use martlet_servers::free_port;
use rand::rngs::StdRng;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, net::TcpListener};

/// Where a load balancer in front of nginx would be.
const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// A node, and a token that is good there and nowhere else.
struct Place {
    node: Node,
    token: String,
}

impl Place {
    async fn set(mut node: Node, rng: &mut StdRng) -> Result<Self> {
        node.restart().await?;
        let rest = Rest::new(node.url())?;
        let name = username("one", rng);
        let account = Account::register(&rest, rng, &name, 1).await?;
        Ok(Self { token: account.devices[0].token.clone(), node })
    }

    /// Whether a request by way of `rest` comes to this node.
    async fn answers(&self, rest: &Rest) -> Result<bool> {
        match rest.get::<Value>("/v1/devices", Some(&self.token)).await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some("unauthenticated") => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

async fn places(scene: &Scene, count: usize, options: &NodeOptions) -> Result<Vec<Place>> {
    let mut rng = scene.rng(0);
    let mut places = Vec::new();
    for _ in 0..count {
        places.push(Place::set(Node::prepare(scene, options.clone())?, &mut rng).await?);
    }
    Ok(places)
}

fn fixed(places: &[Place]) -> Nodes {
    Nodes::Fixed(places.iter().map(|place| place.node.address()).collect())
}

/// Which node a socket with this `?device=` comes to; none if it is not one of these.
async fn place_of(front: &Front, places: &[Place], device: &str) -> Result<Option<usize>> {
    let http = front.http(Ipv4Addr::LOCALHOST)?;
    for (number, place) in places.iter().enumerate() {
        match open(&http, &front.url(), &place.token, device).await? {
            Opened::Open(_) => return Ok(Some(number)),
            Opened::Refused(StatusCode::UNAUTHORIZED) => {}
            Opened::Refused(status) => bail!("a socket was refused with {status}"),
        }
    }
    Ok(None)
}

#[test]
fn sockets_stay_with_their_node_and_requests_are_spread() {
    scene::run("nginx-sticky", |scene| async move {
        let places = places(&scene, 3, &NodeOptions::default()).await?;
        let front = Front::start(&scene, &fixed(&places), BALANCER)?;
        let mut found = Vec::new();
        for device in 0..24 {
            let device = format!("device-{device}");
            let place = place_of(&front, &places, &device).await?;
            ensure!(place.is_some(), "each device has a node");
            // Had it come by chance, the second time would find another one in two of three cases.
            ensure!(place_of(&front, &places, &device).await? == place, "and keeps it");
            found.push(place);
        }
        ensure!((0..3).all(|place| found.contains(&Some(place))), "every node has devices: {found:?}");

        let rest = front.rest()?;
        for place in &places {
            let mut answers = Vec::new();
            for _ in 0..9 {
                answers.push(place.answers(&rest).await?);
            }
            ensure!(answers.contains(&true) && answers.contains(&false), "requests are spread: {answers:?}");
        }
        let logs = front.logs()?;
        ensure!(
            logs.lines().count() > 100 && !logs.contains("device") && !logs.contains("/v1/"),
            "nobody's ids: {logs}"
        );
        Ok(())
    });
}

#[test]
fn a_node_that_is_killed_is_taken_out_and_comes_back() {
    scene::run("nginx-killed", |scene| async move {
        let mut places = places(&scene, 3, &NodeOptions::default()).await?;
        let front = Front::start(&scene, &fixed(&places), BALANCER)?;
        let mut device = String::new();
        for number in 0..100 {
            device = format!("device-{number}");
            if place_of(&front, &places, &device).await? == Some(0) {
                break;
            }
        }
        places[0].node.kill().await?;
        let rest = front.rest()?;
        for _ in 0..12 {
            ensure!(!places[0].answers(&rest).await?, "no request fails, and none comes to the dead node");
            // Sent to nobody yet, so it may go elsewhere although it is a POST.
            let claim: Result<Value, _> = rest.post("/v1/bundles", None, &json!({"accounts": []})).await;
            ensure!(claim.as_ref().err().and_then(RestError::code) == Some("unauthenticated"), "{claim:?}");
            let place = place_of(&front, &places, &device).await?;
            ensure!(place == Some(1) || place == Some(2), "its devices go to the others: {place:?}");
        }
        places[0].node.restart().await?;
        until("its devices come back", || async { Ok(place_of(&front, &places, &device).await? == Some(0)) }).await?;
        until("requests come back", || places[0].answers(&rest)).await?;

        for place in &mut places {
            place.node.kill().await?;
        }
        let problem = match rest.get::<Value>("/v1/devices", None).await {
            Err(RestError::Refused(problem)) => problem,
            other => bail!("nobody is there, and the answer is {other:?}"),
        };
        ensure!(problem.code == "unavailable" && problem.retry_after_ms.is_some(), "{problem:?}");
        Ok(())
    });
}

/// What takes a request, counts it, and breaks off without an answer, like a node that dies just then.
async fn breaker() -> Result<(SocketAddr, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let (address, count) = (listener.local_addr()?, Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    Ok((address, count))
}

#[test]
fn what_broke_off_is_asked_again_only_if_it_may_come_twice() {
    scene::run("nginx-repeat", |scene| async move {
        let places = places(&scene, 1, &NodeOptions::default()).await?;
        let (broken, count) = breaker().await?;
        let front = Front::start(&scene, &Nodes::Fixed(vec![broken, places[0].node.address()]), BALANCER)?;
        let rest = front.rest()?;
        let message = format!("/v1/conversations/{}/messages", to_base64(&[7; 32]));
        for (method, path, code) in [
            (Method::GET, "/v1/devices", "unauthenticated"),
            (Method::POST, message.as_str(), "unauthenticated"),
            (Method::POST, "/v1/bundles", "unavailable"),
            (Method::POST, "/v1/accounts", "unavailable"),
        ] {
            // Whoever broke off twice is not asked for a while, so it takes more than one try to meet it.
            until("the request meets the broken node", || async {
                let before = count.load(Ordering::SeqCst);
                let answer: Result<Value, _> = match method {
                    Method::GET => rest.get(path, None).await,
                    _ => rest.post(path, None, &json!({})).await,
                };
                let met = count.load(Ordering::SeqCst) - before;
                ensure!(met <= 1, "one node is asked once");
                let answered = answer.as_ref().err().and_then(RestError::code);
                ensure!(met == 0 || answered == Some(code), "{method} {path}: {answer:?}");
                Ok(met == 1)
            })
            .await?;
        }
        Ok(())
    });
}

#[test]
fn what_is_too_large_or_not_for_clients_goes_no_further() {
    scene::run("nginx-limits", |scene| async move {
        let places = places(&scene, 1, &NodeOptions::default()).await?;
        let front = Front::start(&scene, &fixed(&places), BALANCER)?;
        let rest = front.rest()?;
        let message = format!("/v1/conversations/{}/messages", to_base64(&[7; 32]));
        let megabytes = |count: usize| json!({ "text": "x".repeat(count << 20) });
        for (path, body, code) in [
            ("/v1/accounts", megabytes(2), "too_large"),
            (message.as_str(), megabytes(6), "too_large"),
            // Past nginx; the node asks first who it is from.
            (message.as_str(), megabytes(3), "unauthenticated"),
        ] {
            let answer: Result<Value, _> = rest.post(path, None, &body).await;
            ensure!(answer.as_ref().err().and_then(RestError::code) == Some(code), "{path}: {answer:?}");
        }

        for path in ["/", "/metrics", "/admin", "/v2/devices", "/v1"] {
            let answer: Result<Value, _> = rest.get(path, None).await;
            ensure!(answer.as_ref().err().and_then(RestError::code) == Some("not_found"), "{path}: {answer:?}");
        }
        let inside: Value = Rest::new(places[0].node.internal_url())?.get("/health", None).await?;
        ensure!(inside.get("reasons").is_some(), "the internal listener gives reasons");
        let http = front.http(Ipv4Addr::LOCALHOST)?;
        let internal = places[0].node.internal_url().replace("http://", "");
        // Nor by naming it as the host that is wanted.
        for host in [None, Some(internal)] {
            let mut request = http.get(format!("{}/health", front.url()));
            if let Some(host) = host {
                request = request.header("host", host);
            }
            let health: Value = serde_json::from_slice(&request.send().await?.bytes().await?)?;
            ensure!(health["status"] == "ok" && health.get("reasons").is_none(), "{health}");
        }
        let plain = reqwest::get(front.url().replace("https", "http")).await?;
        ensure!(plain.status() == StatusCode::BAD_REQUEST, "no answer without TLS but that: {}", plain.status());
        Ok(())
    });
}

#[test]
fn rates_count_the_clients_own_address() {
    scene::run("nginx-addresses", |scene| async move {
        let options = NodeOptions::default()
            .set("limits.trust_forwarded_for=true")
            .set("limits.sign_ins_per_address_per_minute=3");
        let places = places(&scene, 1, &options).await?;
        let front = Front::start(&scene, &fixed(&places), BALANCER)?;
        let body = json!({
            "username": "nobody", "password": "nothing at all", "device_id": to_base64(&[1; 16]),
            "signed_at_ms": 0, "proof": to_base64(&[0; 64]),
        });
        // Four times: the statuses.
        let four = async |from: Ipv4Addr, claimed: &[&str]| -> Result<Vec<u16>> {
            let http = front.http(from)?;
            let mut statuses = Vec::new();
            for number in 0..4 {
                let mut request = http.post(format!("{}/v1/sessions", front.url())).json(&body);
                if let Some(claim) = claimed.get(number % claimed.len().max(1)) {
                    request = request.header("x-forwarded-for", *claim);
                }
                statuses.push(request.send().await?.status().as_u16());
            }
            Ok(statuses)
        };
        let limited = [401, 401, 401, 429];
        ensure!(four(Ipv4Addr::new(127, 0, 0, 2), &[]).await? == limited, "by its address");
        let claims = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"];
        let liar = four(Ipv4Addr::new(127, 0, 0, 3), &claims).await?;
        ensure!(liar == limited, "what a client claims counts for nothing: {liar:?}");
        // But what the load balancer says does, and of that the last entry, which is its own.
        ensure!(four(BALANCER, &["198.51.100.1"]).await? == limited);
        ensure!(four(BALANCER, &["192.0.2.5, 198.51.100.2", "192.0.2.6, 198.51.100.2"]).await? == limited);
        ensure!(four(BALANCER, &["198.51.100.3", "198.51.100.4"]).await? == [401; 4]);
        Ok(())
    });
}

#[test]
fn nodes_come_and_go_with_their_name() {
    scene::run("nginx-dns", |scene| async move {
        let (port, internal) = (free_port(), free_port());
        let addresses: Vec<_> = (1..=3).map(|last| Ipv4Addr::new(127, 0, 1, last)).collect();
        let mut rng = scene.rng(0);
        let mut places = Vec::new();
        for address in &addresses {
            let on = |port| SocketAddr::new(IpAddr::V4(*address), port);
            let ports = Ports { public: on(port), internal: on(internal) };
            places.push(Place::set(Node::prepare_on(&scene, NodeOptions::default(), ports), &mut rng).await?);
        }
        let names = NameServer::start(addresses[..2].to_vec()).await?;
        let front = Front::start(&scene, &Nodes::Dns(names.address(), port), BALANCER)?;
        let rest = front.rest()?;
        for place in &places[..2] {
            until("each node of the name is asked", || place.answers(&rest)).await?;
        }
        for _ in 0..8 {
            ensure!(!places[2].answers(&rest).await?, "the third has no part in it yet");
        }
        // Still in the answer, but gone: costs a try and no more.
        places[0].node.kill().await?;
        for _ in 0..8 {
            ensure!(!places[0].answers(&rest).await?);
        }
        names.say(addresses[2..].to_vec());
        until("the new node has it all, without a reload", || async {
            for _ in 0..8 {
                if !places[2].answers(&rest).await? {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await?;
        let http = front.http(Ipv4Addr::LOCALHOST)?;
        ensure!(open(&http, &front.url(), &places[2].token, "device").await?.is_open(), "and sockets");
        Ok(())
    });
}
