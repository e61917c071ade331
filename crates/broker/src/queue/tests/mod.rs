//! The leader's machine by itself, over the projections of one shard: blocks are made, applied and told as a test says.

mod dealing;
mod expiring;
mod rates;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use sabir_base::buf::BufPool;
use sabir_base::outbox::Outbox;
use sabir_base::wake::WakeBatch;
use sabir_delivery::dispatch::{Credit, MemberNo};
use sabir_delivery::subscription::{MessageOwner, SubscriptionNo};
use sabir_journal::{BlockBuilder, SegmentNo};
use sabir_model::{
    Durability, Facts, FrontendNo, PartitionId, QueueConfig, RecordFacts, Sequence, ShardFailure, ShardId,
    Term, TopicConfig, TopicId,
};

use super::gathered::Change;
use super::leader::{Asked, NewMember, QueueLeader, QueuePolicy, QueueRequest};
use super::round::RoundTime;
use super::{GotMessage, QueueError, QueueTarget};
use crate::entry::{
    AppendBody, Body, DeliveryBody, PartitionSettings, PartitionsCreated, PartitionsDeleted, Started, Targets,
};
use crate::group::Reply;
use crate::push::{CancelReason, Push, PushedMessages};
use crate::state::{ShardState, TouchedMessages};

/// A queue's leader and what it works with.
struct Rig {
    state: ShardState,
    leader: QueueLeader,
    builder: BlockBuilder,
    sequence: Sequence,
    term: Term,
    now_ms: i64,
    wakes: WakeBatch,
    demands: u64,
    /// Entries of the block in hand.
    pushed: Vec<u64>,
    /// What was applied and not told.
    untold: VecDeque<(Vec<TouchedMessages>, Vec<u64>)>,
    is_full: bool,
}

fn target(id: u64) -> QueueTarget {
    QueueTarget { shard: ShardId(1), partition: PartitionId(id), subscription: SubscriptionNo(id) }
}

fn session(number: u64) -> MessageOwner {
    MessageOwner::Session(number)
}

/// A consumer's end.
struct Consumer {
    member: MemberNo,
    outbox: Arc<Outbox<Push>>,
}

impl Consumer {
    fn taken(&self) -> Vec<Push> {
        let mut taken = VecDeque::new();
        self.outbox.take(&mut taken);
        taken.into()
    }

    /// What it was sent: the messages, and whether they may have been seen.
    fn sent(&self) -> Vec<(Range<u64>, bool)> {
        let of = |push| match push {
            Push::Deliver(PushedMessages { offsets, redelivered, .. }) => (offsets, redelivered),
            other => panic!("{other:?}"),
        };
        self.taken().into_iter().map(of).collect()
    }

    fn cancelled(&self) -> Vec<(u64, CancelReason)> {
        let of = |push| match push {
            Push::Cancelled { consumer, why } => (consumer, why),
            other => panic!("{other:?}"),
        };
        self.taken().into_iter().map(of).collect()
    }
}

impl Rig {
    fn new(queues: &[u64]) -> Self {
        Self::with(queues, QueueConfig::default())
    }

    fn with(queues: &[u64], config: QueueConfig) -> Self {
        let mut rig = Self {
            state: ShardState::default(),
            leader: QueueLeader::default(),
            builder: BlockBuilder::new(BufPool::new(1 << 20)),
            sequence: Sequence(0),
            term: Term(1),
            now_ms: 1000,
            wakes: WakeBatch::default(),
            demands: 0,
            pushed: Vec::new(),
            untold: VecDeque::new(),
            is_full: false,
        };
        let settings = PartitionSettings::of(&TopicConfig::of_queue(config), 1);
        let partitions = queues.iter().map(|&id| (0, PartitionId(id))).collect();
        rig.push(&PartitionsCreated { topic: TopicId([1; 16]), epoch_base: 0, settings, partitions });
        rig.commit();
        rig
    }

    fn push<B: Body>(&mut self, body: &B) {
        let mut encoded = Vec::new();
        body.encode(&mut encoded);
        self.builder.push(B::KIND, &encoded, None, 0, Durability::Sync);
    }

    /// Puts so many messages in the block in hand.
    fn publish(&mut self, queue: u64, records: u32) {
        self.publish_with(queue, records, None);
    }

    /// The same of messages that expire at these moments.
    fn publish_expiring(&mut self, queue: u64, expiries: &[Option<i64>]) {
        let mut facts = RecordFacts::new();
        let each = expiries.iter().map(|expires_ms| Facts { expires_ms: *expires_ms, ..Facts::default() });
        each.for_each(|one| facts.push(one).unwrap());
        self.publish_with(queue, expiries.len() as u32, Some(Box::new(facts)));
    }

    fn publish_with(&mut self, queue: u64, records: u32, facts: Option<Box<RecordFacts>>) {
        let body = AppendBody {
            targets: Targets::One(PartitionId(queue)),
            records,
            max_ts: self.now_ms,
            stamped: false,
            origin: FrontendNo(1),
            producer: None,
            facts,
            partial: false,
        };
        let mut encoded = Vec::new();
        body.encode(&mut encoded);
        let payload = vec![0; 100 * records as usize];
        self.builder.push(AppendBody::KIND, &encoded, Some(&payload), 0, Durability::Sync);
    }

    /// Applies the block in hand, and tells the leader nothing yet.
    fn apply(&mut self) {
        if self.builder.is_empty() {
            return;
        }
        self.sequence = self.sequence.next();
        self.now_ms += 1;
        let content = self.builder.take(self.now_ms).content().to_vec();
        let locate = |block: Sequence| Some(SegmentNo(block.0));
        self.state.apply_block(self.sequence, self.term, &content, &locate, &mut |_, _, _| {}).unwrap();
        let events = std::mem::take(&mut self.state.subscriptions.touched);
        self.untold.push_back((events, std::mem::take(&mut self.pushed)));
    }

    /// Tells what was applied.
    fn tell(&mut self) {
        for (events, entries) in self.untold.drain(..) {
            self.leader.tell(&events, &mut self.wakes);
            entries.into_iter().for_each(|number| self.leader.applied(number, &mut self.wakes));
        }
    }

    /// Has the leader make entries, as far as it goes.
    fn propose(&mut self) {
        while self.leader.has_work() {
            let is_idle = self.builder.is_empty() && self.untold.is_empty();
            let moment = RoundTime { now_ms: self.now_ms, is_idle, is_full: self.is_full };
            let proposed = self.leader.propose(&self.state, &moment, &mut self.wakes);
            if !proposed.entry {
                return;
            }
            let (number, body) = self.leader.entry();
            self.builder.push(DeliveryBody::KIND, body, None, 0, Durability::Sync);
            self.pushed.push(number);
            self.leader.pushed(&mut self.wakes);
        }
    }

    /// Applies, tells and proposes until nothing is left.
    fn commit(&mut self) {
        self.propose();
        while !self.builder.is_empty() || !self.untold.is_empty() {
            self.apply();
            self.tell();
            self.propose();
        }
    }

    /// Time passes, and what is due is seen to.
    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        self.leader.due(self.now_ms);
        self.commit();
    }

    fn demand(&mut self, credit: Credit) -> u64 {
        self.demands += 1;
        self.leader.add_demand(self.demands, credit);
        self.demands
    }

    fn try_attach(
        &mut self,
        queue: u64,
        owner: u64,
        change: impl FnOnce(&mut NewMember),
    ) -> Result<Consumer, QueueError> {
        let outbox = Outbox::new();
        let mut new = NewMember {
            target: target(queue),
            policy: QueuePolicy::default(),
            owner: session(owner),
            demand: 0,
            priority: 0,
            exclusive: false,
            settles: false,
            number: owner,
            seat: outbox.seat(),
        };
        change(&mut new);
        if new.demand == 0 {
            new.demand = self.demand(Credit::messages(100));
        }
        let member = self.leader.attach(new)?;
        Ok(Consumer { member, outbox })
    }

    fn attach(&mut self, queue: u64, owner: u64) -> Consumer {
        self.try_attach(queue, owner, |_| {}).unwrap()
    }

    fn change(&mut self, queue: u64, change: Change, offsets: impl IntoIterator<Item = Range<u64>>) {
        self.leader.gathered.add(target(queue).subscription(), change, offsets);
    }

    fn get(
        &mut self,
        queue: u64,
        owner: u64,
        settles: bool,
    ) -> Reply<Result<Option<GotMessage>, QueueError>> {
        let (replier, reply) = Reply::pair();
        let (target, policy, owner) = (target(queue), QueuePolicy::default(), session(owner));
        let ask = QueueRequest::Get { target, policy, owner, settles, replier };
        self.leader.asked.push_back(Asked { ask, is_behind: false });
        reply
    }

    fn purge(&mut self, queue: u64) -> Reply<Result<u64, QueueError>> {
        let (replier, reply) = Reply::pair();
        let (target, policy) = (target(queue), QueuePolicy::default());
        let ask = QueueRequest::Purge { target, policy, dropped: 0, replier };
        self.leader.asked.push_back(Asked { ask, is_behind: false });
        reply
    }

    fn unsettled(&self, queue: u64) -> u64 {
        let subscription = self.state.subscriptions.get(target(queue).subscription()).unwrap();
        subscription.end() - subscription.floor()
    }
}

/// An answer that is there.
fn answer<T>(reply: &mut Reply<T>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(reply).poll(&mut context) {
        std::task::Poll::Ready(answer) => Some(answer),
        std::task::Poll::Pending => None,
    }
}
