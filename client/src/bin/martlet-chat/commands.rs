//! Every command but the demo: open the device, call the SDK, print.

use std::time::Duration;

use anyhow::{Context as _, bail};
use martlet_client::{
    Client, ClientError, Event,
    client::{Confirmation, NewDevice},
    refused::Refused,
};
use martlet_protocol::{
    id::{AccountId, ConversationId, DeviceId},
    problem::Code,
    rest::{DeviceLabel, Role},
    wire::{self, content::Body},
};

use crate::{
    args::{Command, Place},
    home::{confirm, password},
    show,
};

const POLL_INTERVAL: Duration = Duration::from_secs(1);
const LINK_PATIENCE: Duration = Duration::from_secs(60);
/// History that is printed at once.
const PAGE: usize = 500;

/// Runs one command.
pub async fn run(place: Place, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Register { username, name } => register(&place, &username, name).await,
        Command::Link { name } => link(&place, name).await,
        other => {
            let client = place.open()?;
            run_opened(&client, other).await.map_err(explain)
        }
    }
}

async fn run_opened(client: &Client, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Register { .. } | Command::Link { .. } | Command::Demo(_) => {
            bail!("this command makes its own device")
        }
        Command::Accept { code, yes } => accept(client, &code, yes).await,
        Command::SignIn => {
            client.sign_in(&password()?).await?;
            println!("Signed in.");
            Ok(())
        }
        Command::Devices => devices(client).await,
        Command::Rename { device, name } => {
            let device = find_device(client, &device)?;
            client.rename_device(device, &name).await?;
            println!("{} is now {name:?}.", show::short(&device.to_text()));
            Ok(())
        }
        Command::Revoke { devices } => revoke(client, &devices).await,
        Command::Lookup { username } => lookup(client, &username).await,
        Command::SafetyNumber { username } => safety_number(client, &username).await,
        Command::Send { conversation, text, lifetime } => send(client, &conversation, &text.join(" "), lifetime).await,
        Command::Listen { all, once, receipts } => listen(client, all, once, receipts).await,
        conversations => run_conversations(client, conversations).await,
    }
}

async fn run_conversations(client: &Client, command: Command) -> anyhow::Result<()> {
    let id = match command {
        Command::NewDirect { username } => {
            let other = client.look_up(&username).await?;
            client.create_direct(other.account_id).await?
        }
        Command::NewGroup { usernames, title } => {
            let mut members = Vec::new();
            for username in &usernames {
                members.push((client.look_up(username).await?.account_id, Role::Member));
            }
            let id = client.create_group(&members, title.as_deref()).await?;
            client.flush().await?;
            id
        }
        Command::Add { conversation, username, role } => {
            let id = find_conversation(client, &conversation).await?;
            let account = client.look_up(&username).await?.account_id;
            client.add_member(id, account, role.into()).await?;
            client.flush().await?;
            id
        }
        Command::Remove { conversation, username } => {
            let id = find_conversation(client, &conversation).await?;
            client.remove_member(id, account(client, &username).await?).await?;
            id
        }
        Command::Role { conversation, username, role } => {
            let id = find_conversation(client, &conversation).await?;
            client.set_role(id, account(client, &username).await?, role.into()).await?;
            id
        }
        Command::Leave { conversation } => {
            let id = find_conversation(client, &conversation).await?;
            client.leave(id).await?;
            id
        }
        _ => {
            for view in client.sync_conversations().await? {
                println!("{}", show::conversation(&view));
            }
            return Ok(());
        }
    };
    client
        .conversations()
        .iter()
        .filter(|view| view.id == id)
        .for_each(|view| println!("{}", show::conversation(view)));
    Ok(())
}

/// Adds what to do about it to errors that people can do something about.
fn explain(error: anyhow::Error) -> anyhow::Error {
    let Some(client_error) = error.downcast_ref::<ClientError>() else { return error };
    let advice = match client_error {
        ClientError::Unreachable(_) => "Is the server running, and is --server right?",
        ClientError::Refused(Refused::FingerprintChanged | Refused::ListForked) => {
            "Compare safety numbers with the person over another channel before going on"
        }
        other if other.code() == Some(Code::Unauthenticated) => "Sign in again with `martlet-chat sign-in`",
        _ => return error,
    };
    anyhow::anyhow!("{error}\n{advice}")
}

fn label(name: String) -> DeviceLabel {
    DeviceLabel { name, platform: std::env::consts::OS.to_owned() }
}

async fn register(place: &Place, username: &str, name: String) -> anyhow::Result<()> {
    let options = place.new_device()?;
    let client = Client::register(options, username, &password()?, label(name)).await.map_err(|e| explain(e.into()))?;
    let own = client.contact(&client.account_id()).context("the account was not stored")?;
    println!("Registered {username:?}. Its fingerprint: {}", show::fingerprint(&own.fingerprint));
    println!("Keys and messages are in {}.", place.folder()?.display());
    Ok(())
}

async fn link(place: &Place, name: String) -> anyhow::Result<()> {
    let options = place.new_device()?;
    let new = NewDevice::offer(options, label(name)).await.map_err(|e| explain(e.into()))?;
    println!("On a device of the account, within ten minutes:\n\n  martlet-chat accept {}\n", new.code());
    println!("Show the code to nobody else: it lets its first reader decide whose device this becomes.");
    let answered = new.wait(POLL_INTERVAL).await?;
    let confirmation = answered.confirmation();
    new.complete(answered).await?;
    println!("\nThis device belongs to {:?} now.", confirmation.username);
    compare(&confirmation);
    Ok(())
}

async fn accept(client: &Client, code: &str, yes: bool) -> anyhow::Result<()> {
    let confirmation = client
        .accept_link(code, |offer| {
            println!("A device that calls itself {:?} ({}) wants to join this account.", offer.name, offer.platform);
            println!("It will read everything that is sent from now on, and may add and remove devices.");
            yes || confirm("Is it yours, and is the code from its own screen?")
        })
        .await?;
    client.wait_for_list(&confirmation, LINK_PATIENCE).await?;
    println!("The device is in.");
    compare(&confirmation);
    Ok(())
}

fn compare(confirmation: &Confirmation) {
    println!("Both screens must show the same:");
    println!("  account  {}", show::fingerprint(&confirmation.fingerprint));
    println!("  list {:<3} {}", confirmation.list_n, show::fingerprint(&confirmation.list_hash));
}

async fn devices(client: &Client) -> anyhow::Result<()> {
    client.refresh_own_list().await?;
    let listed = client.contact(&client.account_id()).context("the account is not stored")?;
    for device in client.devices().await? {
        let mut notes = Vec::new();
        notes.extend(device.is_this.then_some("this one"));
        notes.extend(device.dormant.then_some("dormant: its prekey has expired"));
        notes.extend(device.suspended.then_some("suspended by the operator"));
        notes.extend((!listed.devices.contains(&device.device_id)).then_some("NOT IN THE SIGNED LIST"));
        println!(
            "{}  {} ({})  {}",
            device.device_id.to_text(),
            device.label.name,
            device.label.platform,
            notes.join(", ")
        );
    }
    Ok(())
}

async fn revoke(client: &Client, prefixes: &[String]) -> anyhow::Result<()> {
    client.refresh_own_list().await?;
    let devices: Vec<_> = prefixes.iter().map(|prefix| find_device(client, prefix)).collect::<Result<_, _>>()?;
    client.revoke_devices(&devices).await?;
    println!("{} of the account's devices removed.", devices.len());
    Ok(())
}

async fn lookup(client: &Client, username: &str) -> anyhow::Result<()> {
    let contact = client.look_up(username).await?;
    println!("{username}: account {}", contact.account_id.to_text());
    println!("fingerprint {}", show::fingerprint(&contact.fingerprint));
    println!("device list {} with {} devices", contact.list_n, contact.devices.len());
    Ok(())
}

async fn safety_number(client: &Client, username: &str) -> anyhow::Result<()> {
    let contact = client.look_up(username).await?;
    let digits = client.safety_number(&contact.account_id)?;
    println!("Read these to {username}, or hear them; both of you must see the same:\n");
    let groups = show::grouped(&digits);
    for line in groups.split(' ').collect::<Vec<_>>().chunks(4) {
        println!("  {}", line.join(" "));
    }
    Ok(())
}

async fn send(client: &Client, conversation: &str, text: &str, lifetime: u32) -> anyhow::Result<()> {
    let id = find_conversation(client, conversation).await?;
    let text = Body::Text(wire::Text { text: text.to_owned(), reply_to: None });
    let message = client.send_for(id, &wire::Content { body: Some(text) }, lifetime)?;
    let outcomes = client.flush().await.context("not sent yet; the next `send` or `listen` tries again")?;
    for outcome in &outcomes {
        match outcome {
            Event::SendFailed { client_message_id, why } if *client_message_id == message => bail!("not sent: {why}"),
            Event::SendHeld { client_message_id, refused } if *client_message_id == message => {
                return Err(ClientError::Refused(*refused).into());
            }
            Event::Sent { client_message_id, partial, .. } if *client_message_id == message => {
                println!("Sent.");
                if !partial.is_empty() {
                    println!("{} devices' mailboxes are full; they are told so.", partial.len());
                }
            }
            _ => {}
        }
    }
    Ok(())
}

async fn listen(client: &Client, all: bool, once: bool, receipts: bool) -> anyhow::Result<()> {
    if all {
        client.device(|device| device.set_shown(0))?;
    }
    print_new(client, receipts)?;
    let mut running = client.start();
    loop {
        let event = tokio::select! {
            event = running.next() => event,
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some(event) = event else { break };
        match &event {
            Event::Message(_) | Event::Receipt { .. } => print_new(client, receipts)?,
            Event::CaughtUp if once => break,
            Event::Ended { why } => bail!("{why}"),
            other => {
                if let Some(line) = show::event(client, other) {
                    println!("{line}");
                }
            }
        }
    }
    running.stop().await;
    print_new(client, receipts)?;
    if receipts {
        client.hurry_receipts()?;
        // What does not go out now is kept for the next time.
        drop(client.flush().await);
    }
    Ok(())
}

/// Prints what the history has after what was printed before, so that nothing is missed or shown twice across restarts.
fn print_new(client: &Client, receipts: bool) -> anyhow::Result<()> {
    loop {
        let after = client.device(|device| device.shown())?;
        let messages = client.history(after, PAGE)?;
        let Some(last) = messages.last() else { return Ok(()) };
        for message in &messages {
            println!("{}", show::message(client, message));
        }
        // Before they count as shown: a crash in between shows and tells some of them again, and loses none.
        if receipts {
            client.set_read(&messages)?;
        }
        client.device(|device| device.set_shown(last.number))?;
    }
}

async fn account(client: &Client, username: &str) -> anyhow::Result<AccountId> {
    Ok(client.look_up(username).await?.account_id)
}

fn find_device(client: &Client, prefix: &str) -> anyhow::Result<DeviceId> {
    let own = client.contact(&client.account_id()).context("the account is not stored")?;
    one(own.devices.into_iter().filter(|id| id.to_text().starts_with(prefix)), "device", prefix)
}

async fn find_conversation(client: &Client, prefix: &str) -> anyhow::Result<ConversationId> {
    let matching = |client: &Client| -> Vec<ConversationId> {
        let views = client.conversations().into_iter();
        views.map(|view| view.id).filter(|id| id.to_text().starts_with(prefix)).collect()
    };
    if matching(client).is_empty() {
        client.sync_conversations().await?;
    }
    one(matching(client), "conversation", prefix)
}

fn one<T>(found: impl IntoIterator<Item = T>, what: &str, prefix: &str) -> anyhow::Result<T> {
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => bail!("no {what} begins with {prefix:?}"),
        (Some(_), Some(_)) => bail!("more than one {what} begins with {prefix:?}; give more letters"),
    }
}
