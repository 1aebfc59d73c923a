//! Who takes part: accounts two by two in direct conversations, all of them in large groups too, and what they are to send.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use bytes::Bytes;
use martlet_client::api::Api;
use martlet_protocol::{
    chain::members::Member,
    id::{ClientMessageId, ConversationId},
    rest,
};
use rand::Rng as _;

use super::presence;
use crate::{
    ambient,
    cli::MixedArgs,
    group::writer::Schedule,
    people::{self, Bare, Person},
    progress::say,
    send::{
        crowd::{self, Circle},
        write::{self, Writer},
    },
};

/// Where a device stands.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its direct conversation.
    pub circle: usize,
    /// Among the devices of that; 0 is the one that sends.
    pub place: usize,
    /// The group whose log it follows.
    pub group: usize,
}

/// A large conversation.
pub struct Group {
    pub conversation: ConversationId,
    /// The socket of the device that writes to it.
    pub writer: usize,
    /// Devices that follow its log, the writer among them.
    pub readers: u64,
}

/// See the module.
pub struct Scene {
    pub circles: Vec<Circle>,
    /// By their sockets, circle by circle, the sending device first.
    pub devices: Vec<Place>,
    /// The socket of each circle's sending device.
    pub senders: Vec<usize>,
    pub groups: Vec<Group>,
}

/// What is to be sent, written before the clock starts.
pub struct Prepared {
    /// By circle, in order.
    pub direct: Vec<Vec<Bytes>>,
    /// By circle, in order.
    pub direct_ids: Vec<Vec<ClientMessageId>>,
    /// By group, in order.
    pub contents: Vec<Arc<[Bytes]>>,
    /// All of them, in the order in which they are due; circles take turns.
    pub presence: Vec<Bytes>,
    /// By circle, in order.
    pub presence_ids: Vec<Vec<ClientMessageId>>,
}

impl Scene {
    /// Registers accounts and devices, and makes the groups.
    ///
    /// # Errors
    /// When the node refuses.
    pub fn make(args: &MixedArgs, url: &str) -> Result<Self> {
        let devices = |account: u32| 1 + usize::from(has_second(account, args.second_devices));
        let sizes: Vec<(usize, usize)> =
            (0..args.accounts / 2).map(|pair| (devices(2 * pair), devices(2 * pair + 1))).collect();
        let circles = crowd::make_all(url, &sizes)?;
        let count = usize::try_from(args.groups)?;
        let (mut places, mut senders) = (Vec::new(), Vec::new());
        // Of each account's first device.
        let mut firsts = Vec::new();
        for (circle, (own, peer)) in sizes.iter().enumerate() {
            senders.push(places.len());
            firsts.extend([places.len(), places.len() + own]);
            for place in 0..own + peer {
                let account = 2 * circle + usize::from(place >= *own);
                places.push(Place { circle, place, group: account % count });
            }
        }
        let groups = make_groups(url, &circles, count, |group, conversation| Group {
            conversation,
            writer: firsts[group],
            readers: places.iter().filter(|place| place.group == group).count() as u64,
        })?;
        Ok(Self { circles, devices: places, senders, groups })
    }

    /// The devices' tokens, by their sockets.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.circles.iter().flat_map(Circle::devices).map(|device| device.token.as_str())
    }

    /// Writes everything that is to be sent; `meanwhile` serves the sockets.
    ///
    /// # Errors
    /// When a prekey is weak, and what `meanwhile` fails with.
    pub fn prepare(&self, args: &MixedArgs, meanwhile: impl FnMut() -> Result<()>) -> Result<Prepared> {
        let direct = schedule(args, args.direct_rate).map_or(0, Schedule::count);
        let mut writers: Vec<Writer> = self.circles.iter().map(|_| Writer::new()).collect();
        let each = direct.div_ceil(self.circles.len());
        let text_bytes = usize::try_from(args.text_bytes)?;
        let frames = write::write_all(&mut writers, &self.circles, each, text_bytes, meanwhile)?;
        let in_groups = schedule(args, args.group_rate).map_or(0, Schedule::count);
        let mut rng = ambient::system_rng();
        let mut content = |_| {
            let mut content = vec![0; args.content_bytes as usize];
            rng.fill_bytes(&mut content);
            Bytes::from(content)
        };
        let of_group = |group| share(in_groups, self.groups.len(), group);
        let contents = (0..self.groups.len()).map(|group| (0..of_group(group)).map(&mut content).collect()).collect();
        let count = schedule(args, args.presence_rate).map_or(0, Schedule::count);
        let (presence, presence_ids) = presence::write_all(&self.circles, count)?;
        let direct_ids = writers.into_iter().map(|writer| writer.ids).collect();
        Ok(Prepared { direct: frames, direct_ids, contents, presence, presence_ids })
    }
}

/// When messages of a rate are due; nothing if there are none.
pub fn schedule(args: &MixedArgs, rate: u32) -> Option<Schedule> {
    (rate > 0).then(|| Schedule::new(rate, args.warm_up, Duration::from_secs(args.seconds.into())))
}

/// How many of so many messages fall to one of those who take turns.
pub fn share(count: usize, senders: usize, sender: usize) -> usize {
    count / senders + usize::from(sender < count % senders)
}

/// Spreads second devices evenly over the accounts.
fn has_second(account: u32, percent: u32) -> bool {
    let before = |account: u32| u64::from(account) * u64::from(percent) / 100;
    before(account + 1) > before(account)
}

fn make_groups(
    url: &str,
    circles: &[Circle],
    count: usize,
    group: impl Fn(usize, ConversationId) -> Group,
) -> Result<Vec<Group>> {
    let people: Vec<&Person> = circles.iter().flat_map(|circle| [&circle.person, &circle.peer]).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let api = Api::new(url)?;
    let mut rng = ambient::system_rng();
    say(&format!("making {count} groups of {} accounts", people.len()));
    let mut make = |place: usize| {
        let mut members = people.iter().skip(place).step_by(count);
        let Some(owner) = members.next() else { anyhow::bail!("a group without members") };
        let others: Vec<Bare> = members.map(|person| bare(person)).collect();
        let conversation = runtime.block_on(people::large_conversation(&api, owner, &others, &mut rng))?;
        Ok(group(place, conversation))
    };
    (0..count).map(&mut make).collect()
}

/// As membership links name it.
fn bare(person: &Person) -> Bare {
    let member =
        Member { account_id: person.account_id(), fingerprint: person.chain.fingerprint(), role: rest::Role::Member };
    Bare { member, token: person.devices[0].token.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_devices_are_spread_evenly() {
        let with = |percent| (0..1000).filter(|account| has_second(*account, percent)).count();
        assert_eq!([0, 1, 25, 50, 100].map(with), [0, 10, 250, 500, 1000]);
        assert_eq!((0..4).filter(|account| has_second(*account, 25)).count(), 1);
    }

    #[test]
    fn shares_add_up() {
        for (count, senders) in [(0, 3), (2, 3), (10, 3), (9, 3)] {
            let shares: Vec<usize> = (0..senders).map(|sender| share(count, senders, sender)).collect();
            assert_eq!(shares.iter().sum::<usize>(), count);
            assert!(shares.is_sorted_by(|a, b| a >= b && a - b <= 1), "{shares:?}");
        }
    }
}
