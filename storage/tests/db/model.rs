//! Sends, acks, expiry and revocation in any order, against a model in memory: every `seq` that was handed out is read exactly once,
//! as its entry or as a gap with the right reason.

use std::{collections::BTreeMap, time::Duration};

use martlet_protocol::id::EntryId;
use martlet_storage::{
    DeviceKey,
    mailbox::{self, Item, RangeQuery},
    sends::{EntryBody, MailboxLimits, SendOutcome},
};
use proptest::prelude::*;

use crate::common::{Account, Conversation, NOW_S, RETENTION_S, Store, query};

const DEVICES: usize = 3;
const LIMITS: MailboxLimits =
    MailboxLimits { max_bytes: 1500, max_entries: 8, answer_retention: Duration::from_secs(1000) };

#[derive(Debug, Clone)]
enum Step {
    /// A batch: per send the shared content's size, an own lifetime in seconds, and who is dormant.
    Send(Vec<(usize, Option<u64>, [bool; DEVICES])>),
    Ack(usize, u64),
    /// Time goes on, and the sweeper may come.
    Wait(u64, Option<u32>),
    /// Revokes a device and links another in its place.
    Replace(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let content = prop_oneof![3 => Just(0_usize), 1 => 1_usize..400];
    let dormant = proptest::array::uniform3(proptest::bool::weighted(0.15));
    let send = (content, proptest::option::of(1_u64..50), dormant);
    prop_oneof![
        6 => proptest::collection::vec(send, 1..5).prop_map(Step::Send),
        3 => (0..DEVICES, 0_u64..40).prop_map(|(device, seq)| Step::Ack(device, seq)),
        2 => (0_u64..30, proptest::option::of(1_u32..10)).prop_map(|(seconds, sweep)| Step::Wait(seconds, sweep)),
        1 => (0..DEVICES).prop_map(Step::Replace),
    ]
}

/// What a `seq` of a mailbox is.
#[derive(Debug, Clone, PartialEq)]
enum Seq {
    Entry { entry_id: EntryId, size_bytes: u64, expires_at_s: u64, swept: bool },
    Quota,
    Dormant,
}

#[derive(Default)]
struct Mailbox {
    seqs: Vec<Seq>,
    acked_seq: u64,
}

impl Mailbox {
    /// What rests: entries neither acked nor swept.
    fn rest(&self) -> (u64, u64) {
        let resting = self.seqs.iter().skip(self.acked_seq as usize).filter_map(|seq| match seq {
            Seq::Entry { size_bytes, swept: false, .. } => Some(*size_bytes),
            _ => None,
        });
        resting.fold((0, 0), |(entries, bytes), size_bytes| (entries + 1, bytes + size_bytes))
    }

    fn text(&self, seq: u64, now_s: u64) -> String {
        match &self.seqs[seq as usize - 1] {
            _ if seq <= self.acked_seq => "Acked".to_owned(),
            Seq::Quota => "Quota".to_owned(),
            Seq::Dormant => "Dormant".to_owned(),
            Seq::Entry { swept: true, .. } => "Expired".to_owned(),
            Seq::Entry { expires_at_s, .. } if *expires_at_s <= now_s => "Expired".to_owned(),
            Seq::Entry { entry_id, .. } => entry_id.to_text(),
        }
    }
}

struct World {
    store: Store,
    account: Account,
    talk: Conversation,
    mailboxes: BTreeMap<DeviceKey, Mailbox>,
    now_s: u64,
}

impl World {
    fn new() -> Self {
        let store = Store::new();
        let account = store.register(DEVICES);
        let talk = store.converse(&[&account]);
        let mailboxes = account.devices.iter().map(|device| (*device, Mailbox::default())).collect();
        Self { store, account, talk, mailboxes, now_s: NOW_S }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Send(sends) => self.send(sends),
            Step::Ack(device, seq) => self.ack(self.account.devices[*device], *seq),
            Step::Wait(seconds, sweep) => self.wait(*seconds, *sweep),
            Step::Replace(device) => {
                let gone = self.account.devices[*device];
                self.store.revoke(&mut self.account, gone);
                self.mailboxes.remove(&gone);
                let new = self.store.link(&mut self.account);
                self.mailboxes.insert(new, Mailbox::default());
            }
        }
    }

    fn send(&mut self, sends: &[(usize, Option<u64>, [bool; DEVICES])]) {
        let mut batch = Vec::new();
        for (content, lifetime, dormant) in sends {
            let mut send = self.talk.send(&[&self.account]);
            send.content = (*content > 0).then(|| vec![1; *content].into());
            send.own_lifetime = lifetime.is_some();
            send.expires_at_s = self.now_s + lifetime.unwrap_or(RETENTION_S);
            for (entry, dormant) in send.entries.iter_mut().zip(dormant) {
                if *dormant {
                    entry.body = EntryBody::Dormant;
                }
            }
            batch.push(send);
        }
        let outcomes = self.store.commit_within(&batch, &LIMITS);
        for (send, outcome) in batch.iter().zip(outcomes) {
            let SendOutcome::Committed { seqs, partial } = outcome else { panic!("{outcome:?}") };
            let mut expected_partial = Vec::new();
            for (position, (entry, seq)) in send.entries.iter().zip(seqs).enumerate() {
                let mailbox = self.mailboxes.get_mut(&entry.device).expect("a device");
                assert_eq!(seq, mailbox.seqs.len() as u64 + 1, "gapless");
                let (entries, bytes) = mailbox.rest();
                let what = match &entry.body {
                    EntryBody::Dormant => Seq::Dormant,
                    EntryBody::Sealed(sealed) => {
                        let size_bytes =
                            (sealed.len() + send.content.as_ref().map_or(0, |content| content.len())) as u64;
                        if entries + 1 > LIMITS.max_entries || bytes + size_bytes > LIMITS.max_bytes {
                            expected_partial.push(position);
                            Seq::Quota
                        } else {
                            let (entry_id, expires_at_s) = (entry.entry_id, send.expires_at_s);
                            Seq::Entry { entry_id, size_bytes, expires_at_s, swept: false }
                        }
                    }
                };
                mailbox.seqs.push(what);
            }
            assert_eq!(partial, expected_partial);
        }
    }

    fn ack(&mut self, device: DeviceKey, seq: u64) {
        self.store.ack(device, seq);
        let mailbox = self.mailboxes.get_mut(&device).expect("a device");
        mailbox.acked_seq = mailbox.acked_seq.max(seq.min(mailbox.seqs.len() as u64));
    }

    fn wait(&mut self, seconds: u64, sweep: Option<u32>) {
        self.now_s += seconds;
        let Some(limit) = sweep else { return };
        while self.store.run(|c| mailbox::expire(c, self.now_s, limit)) == limit as usize {}
        for mailbox in self.mailboxes.values_mut() {
            for (seq, what) in (1..).zip(&mut mailbox.seqs) {
                if let Seq::Entry { expires_at_s, swept, .. } = what
                    && *expires_at_s <= self.now_s
                    && seq > mailbox.acked_seq
                {
                    *swept = true;
                }
            }
        }
    }

    fn check(&self, max_items: u32, after_seq: u64) {
        let mut resting = 0;
        for (device, mailbox) in &self.mailboxes {
            let head_seq = mailbox.seqs.len() as u64;
            let after_seq = after_seq.min(head_seq);
            let expected: Vec<_> = (after_seq + 1..=head_seq).map(|seq| mailbox.text(seq, self.now_s)).collect();
            assert_eq!(self.read(*device, after_seq, head_seq, max_items), expected);
            resting += mailbox.rest().0;
        }
        let rows = self.store.number("SELECT count(*) FROM mailbox_entries");
        assert_eq!(rows, resting as i64, "no row that nobody will read");
        let wrong = "SELECT count(*) FROM contents c WHERE refs != \
            (SELECT count(*) FROM mailbox_entries e WHERE e.content_key = c.content_key) OR refs = 0";
        assert_eq!(self.store.number(wrong), 0, "contents live as long as their entries");
        let overlapping = "SELECT count(*) FROM mailbox_gaps a, mailbox_gaps b \
            WHERE a.device_key = b.device_key AND a.from_seq < b.from_seq \
            AND (a.to_seq >= b.from_seq OR (a.to_seq + 1 = b.from_seq AND a.reason = b.reason))";
        assert_eq!(self.store.number(overlapping), 0, "markers are apart or merged");
    }

    /// Reads in parts, as one text per `seq`.
    fn read(&self, device: DeviceKey, mut after_seq: u64, head_seq: u64, max_items: u32) -> Vec<String> {
        let mut texts = Vec::new();
        while after_seq < head_seq {
            let query = RangeQuery { max_items, ..query(device, after_seq, self.now_s) };
            let range = self.store.run(|c| mailbox::range(c, &query));
            assert_eq!(range.head_seq, head_seq);
            assert!(!range.items.is_empty(), "reading goes on");
            for item in range.items {
                match item {
                    Item::Entry { seq, entry_id, .. } => {
                        assert_eq!(seq, after_seq + 1);
                        after_seq = seq;
                        texts.push(entry_id.to_text());
                    }
                    Item::Gap(gap) => {
                        assert_eq!(gap.from_seq, after_seq + 1);
                        after_seq = gap.to_seq;
                        texts.extend((gap.from_seq..=gap.to_seq).map(|_| format!("{:?}", gap.reason())));
                    }
                }
            }
        }
        texts
    }
}

/// A case takes PostgreSQL a new database and some hundred round trips, and SQLite a file.
const CASES: u32 = match crate::BACKEND {
    crate::common::Backend::Sqlite => 64,
    crate::common::Backend::Postgres => 12,
};

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_without_a_marker(
        steps in proptest::collection::vec(step(), 1..25),
        max_items in 1_u32..12,
        after_seq in 0_u64..20,
    ) {
        let mut world = World::new();
        for step in &steps {
            world.apply(step);
            world.check(max_items, after_seq);
        }
        world.check(max_items, 0);
    }
}
