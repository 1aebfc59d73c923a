//! Who takes part: accounts that write all the time, pairs that are silent but for one message at the worst moment, and newcomers
//! whose devices are revoked.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use martlet_protocol::id::DeviceId;
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    history::Revocation,
    life::{Life, Manner},
    world::{Phase, World},
};
use crate::wire::{Account, Circle, Rest, RestError, username};

/// Devices of each account that writes all the time.
const BUSY: [usize; 5] = [3, 2, 2, 2, 3];
/// How often a device writes to a direct conversation, and how often to a group.
const WEIGHTS: (u32, u32) = (8, 1);
/// Pairs of a caller and an answerer.
const QUIET_PAIRS: usize = 10;
/// Between one newcomer account and the next.
const NEWCOMER_EVERY_MS: std::ops::Range<u64> = 6_000..16_000;
/// Time until the next of its devices is revoked.
const REVOKE_AFTER_MS: std::ops::Range<u64> = 2_500..8_000;
/// A newcomer's devices write once in so many milliseconds.
const NEWCOMER_PAUSE_MS: u64 = 250;
/// A newcomer is given up if it can't be made within this.
const NEWCOMER_PATIENCE: Duration = Duration::from_secs(20);
/// A revocation that nobody answers is given up after this, and its device is owed nothing.
const REVOKE_PATIENCE: Duration = Duration::from_secs(60);

/// Everybody's lives, for who waits for their end.
pub type Lives = Arc<Mutex<JoinSet<Life>>>;

/// Makes the accounts and conversations, and sets their devices going. Busy devices write about once in `pause_ms`.
///
/// # Errors
/// A node refused.
pub async fn set_going(
    world: &Arc<World>,
    lives: &Lives,
    rest: &Rest,
    rng: &mut StdRng,
    pause_ms: u64,
) -> Result<Vec<Account>> {
    let mut busy = Vec::new();
    for devices in BUSY {
        let name = username("busy", rng);
        let account = Account::register(rest, rng, &name, devices).await?;
        world.know(&account);
        busy.push(account);
    }
    for (at, one) in busy.iter().enumerate() {
        let other = &busy[(at + 1) % busy.len()];
        world.add_circle(Circle::direct(rest, rng, one, other).await?, WEIGHTS.0);
    }
    for group in [[0, 1, 2], [2, 3, 4]] {
        let members = group.map(|at| &busy[at]);
        world.add_circle(Circle::group(rest, rng, &members).await?, WEIGHTS.1);
    }
    let mut quiet = Vec::new();
    for _ in 0..QUIET_PAIRS {
        let names = [username("answerer", rng), username("caller", rng)];
        let answerer = Account::register(rest, rng, &names[0], 1).await?;
        let caller = Account::register(rest, rng, &names[1], 1).await?;
        world.know(&answerer);
        world.know(&caller);
        world.add_circle(Circle::direct(rest, rng, &answerer, &caller).await?, 1);
        quiet.push((answerer, caller));
    }
    // Only now, so that all of this is made in peace.
    for account in &busy {
        for device in &account.devices {
            begin(world, lives, device, Manner::Busy { pause_ms }, rng);
        }
    }
    for (answerer, caller) in &quiet {
        let bell = Arc::new(Notify::new());
        begin(world, lives, &answerer.devices[0], Manner::Answerer(bell.clone()), rng);
        begin(world, lives, &caller.devices[0], Manner::Caller(bell), rng);
    }
    Ok(busy)
}

fn begin(world: &Arc<World>, lives: &Lives, device: &Arc<crate::wire::Device>, manner: Manner, rng: &mut StdRng) {
    let own = StdRng::from_rng(rng);
    let life = Life::new(device.clone(), manner, world.clone(), own);
    lives.lock().spawn(life.settle());
}

/// Again and again a new account whose devices are revoked one after the other, until the faults are over.
///
/// # Errors
/// A revocation was refused for good.
pub async fn newcomers(world: Arc<World>, lives: Lives, busy: Vec<Account>, mut rng: StdRng) -> Result<()> {
    let mut phase = world.phase.subscribe();
    while *phase.borrow() == Phase::Busy {
        let friend = &busy[rng.random_range(0..busy.len())];
        let node = world.nodes[world.any_node(&mut rng)].clone();
        // In the midst of faults this fails often; an account that was half made is in nobody's way.
        if let Ok(Ok((mut account, circle))) = timeout(NEWCOMER_PATIENCE, newcomer(&node, friend, &mut rng)).await {
            world.know(&account);
            world.add_circle(circle.clone(), WEIGHTS.0);
            for device in &account.devices {
                begin(&world, &lives, device, Manner::Busy { pause_ms: NEWCOMER_PAUSE_MS }, &mut rng);
            }
            while account.devices.len() > 1 && *phase.borrow() == Phase::Busy {
                sleep(Duration::from_millis(rng.random_range(REVOKE_AFTER_MS))).await;
                let last = account.devices[account.devices.len() - 1].device_id;
                if timeout(REVOKE_PATIENCE, revoke(&world, &mut account, last, &mut rng)).await.is_err() {
                    break;
                }
            }
            world.retire(&circle);
        }
        let time = Duration::from_millis(rng.random_range(NEWCOMER_EVERY_MS));
        tokio::select! {
            () = sleep(time) => {}
            _ = phase.wait_for(|phase| *phase > Phase::Busy) => {}
        }
    }
    Ok(())
}

async fn newcomer(rest: &Rest, friend: &Account, rng: &mut StdRng) -> Result<(Account, Circle)> {
    let name = username("newcomer", rng);
    let account = Account::register(rest, rng, &name, 3).await?;
    let circle = Circle::direct(rest, rng, &account, friend).await.context("a newcomer's conversation")?;
    Ok((account, circle))
}

/// Revokes a device: the same signed list again and again, at any node, until one answers.
async fn revoke(world: &World, account: &mut Account, device_id: DeviceId, rng: &mut StdRng) -> Result<()> {
    let revocation = account.revocation(device_id)?;
    world.history.lock().device(device_id).revoked = Some(Revocation { asked_ms: world.now_ms(), answered_ms: None });
    loop {
        let node = world.nodes[world.any_node(rng)].clone();
        match account.revoke_by(&node, &revocation).await {
            Ok(()) => break,
            Err(RestError::Refused(problem)) if problem.status < 500 => {
                let what = format!("its revocation was refused: {} ({})", problem.code, problem.detail);
                world.history.lock().device(account.devices[0].device_id).oddities.push(what);
                anyhow::bail!("a revocation was refused");
            }
            Err(_) => sleep(Duration::from_millis(rng.random_range(50..300))).await,
        }
    }
    let answered_ms = Some(world.now_ms());
    world.know(account);
    let mut history = world.history.lock();
    if let Some(revoked) = &mut history.device(device_id).revoked {
        revoked.answered_ms = answered_ms;
    }
    drop(history);
    world.client_faults.lock().revoked += 1;
    Ok(())
}
