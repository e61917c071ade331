//! The leader of a shard's queues: a machine that is told what sessions want and what `apply` did, and says what is to be proposed and sent.
//!
//! ```text
//!   attach, refill, …    ─► due ─► propose ─► an entry's body ─► pushed ─► what may be sent is sent
//!   get, purge           ─► asked ──┘              │             refused ─► withdrawn
//!   settle, give back, … ─► gathered ─┘            │
//!   told: Acquired, Settled, Named ◄─── applied ◄──┘             what waited for it is sent
//! ```
//!
//! It reads no clock and holds no lock. A message is dealt to one member at a time: from its dealing until the entry that proposes it is decided, which is
//! told by [`TouchedMessages::Named`], it is offered to no member.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use sabir_base::wake::WakeBatch;
use sabir_delivery::dispatch::{
    Access, Credit, DemandMember, DemandNo, Demands, Dispatcher, GroupOrder, MemberNo,
};
use sabir_delivery::subscription::{MessageOwner, SubscriptionNo};
use sabir_model::{PartitionId, QueueConfig, ShardFailure};

use super::expiring::ExpiringQueues;
use super::gathered::{Change, Gathered};
use super::member::{Dealt, GetReplier, Member, Recipient};
use super::rates::QueueRates;
use super::returning::Returning;
use super::round::{OnceApplied, Round};
use super::{QueueError, QueueTarget};
use crate::dead_letter::RedriveTally;
use crate::group::Replier;
use crate::push::{CancelReason, PushSeat};

/// What a queue's configuration says about dealing its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct QueuePolicy {
    access: Access,
    order: GroupOrder,
    /// Whether messages of a higher priority go first.
    by_level: bool,
    /// Whether the queue goes with its last consumer.
    auto_delete: bool,
    /// Whether it goes if no client uses it for some time.
    expires: bool,
}

impl QueuePolicy {
    pub(super) fn of(config: &QueueConfig) -> Self {
        Self {
            access: if config.single_active { Access::SingleActive } else { Access::Shared },
            order: config.order,
            by_level: config.max_priority.is_some(),
            auto_delete: config.auto_delete,
            expires: config.expires_ms.is_some(),
        }
    }
}

/// A queue with members, or with something undecided that was dealt.
#[derive(Debug)]
pub(super) struct LedQueue {
    pub(super) target: QueueTarget,
    pub(super) policy: QueuePolicy,
    pub(super) dispatcher: Dispatcher,
    /// What is sent once it is acquired, by its first offset.
    pub(super) waiting: BTreeMap<u64, Dealt>,
    /// Whether it is listed among those to be looked at.
    pub(super) is_due: bool,
    /// From which message on no member could be dealt any yet: these have not expired, whatever their time is. Once it was looked at.
    pub(super) fresh_from: Option<u64>,
}

#[derive(Debug)]
pub(super) struct DemandRow {
    pub(super) credit: DemandNo,
    /// The queues of its members, one for each.
    queues: Vec<SubscriptionNo>,
    has_ended: bool,
}

/// What is asked of one queue, to be done in its turn.
#[derive(Debug)]
pub(super) enum QueueRequest {
    /// To get a message.
    Get { target: QueueTarget, policy: QueuePolicy, owner: MessageOwner, settles: bool, replier: GetReplier },
    /// To drop what is ready; with how many were dropped so far.
    Purge { target: QueueTarget, policy: QueuePolicy, dropped: u64, replier: PurgeReplier },
    /// To say when all that is on its way back is there.
    Back { target: QueueTarget, replier: BackReplier },
    /// To have messages wait that go back where they come from.
    Redrive { target: QueueTarget, policy: QueuePolicy, messages: Vec<Range<u64>>, tally: Arc<RedriveTally> },
}

pub(super) type BackReplier = Replier<Result<(), QueueError>>;

pub(super) type PurgeReplier = Replier<Result<u64, QueueError>>;

/// What is asked, and whether all that was pushed before it is applied.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) ask: QueueRequest,
    pub(super) is_behind: bool,
}

/// What is wanted of a member.
pub(super) struct NewMember {
    pub(super) target: QueueTarget,
    pub(super) policy: QueuePolicy,
    pub(super) owner: MessageOwner,
    pub(super) demand: u64,
    pub(super) priority: i32,
    pub(super) exclusive: bool,
    pub(super) settles: bool,
    pub(super) number: u64,
    pub(super) seat: PushSeat,
}

/// The leader's memory.
#[derive(Debug, Default)]
pub(super) struct QueueLeader {
    pub(super) demands: Demands,
    pub(super) rows: FxHashMap<u64, DemandRow>,
    pub(super) members: FxHashMap<MemberNo, Member>,
    pub(super) queues: FxHashMap<SubscriptionNo, LedQueue>,
    /// Queues to be looked at.
    pub(super) due: VecDeque<SubscriptionNo>,
    pub(super) asked: VecDeque<Asked>,
    pub(super) gathered: Gathered,
    pub(super) expiring: ExpiringQueues,
    pub(super) rates: QueueRates,
    /// Whether it is not known yet which queues have messages that expire.
    pub(super) is_new: bool,
    /// Queues that are to go, since their last consumers did.
    pub(super) deserted: Vec<PartitionId>,
    /// Queues that take no consumers any more, since they are to be deleted, and for how many deletions.
    closing: FxHashMap<SubscriptionNo, u32>,
    /// Queues that go if no client uses them for some time, and whose last consumers have just gone.
    pub(super) left: Vec<PartitionId>,
    pub(super) round: Round,
    /// Those that were pushed and are not decided, by number.
    pub(super) entries: FxHashMap<u64, PushedEntry>,
    /// What these give back.
    pub(super) returning: Returning,
    next_member: u64,
    pub(super) next_entry: u64,
}

/// An entry that is pushed.
#[derive(Debug)]
pub(super) struct PushedEntry {
    pub(super) body: Vec<u8>,
    /// What waits for it to be applied.
    pub(super) next: Vec<OnceApplied>,
    /// The queues whose messages are given back by it.
    pub(super) gives_back: Vec<SubscriptionNo>,
    /// The queues of which it says what expired.
    pub(super) expires: Vec<SubscriptionNo>,
}

impl QueueLeader {
    /// Makes a demand of that number.
    pub(super) fn add_demand(&mut self, number: u64, credit: Credit) {
        let credit = self.demands.add(credit);
        self.rows.insert(number, DemandRow { credit, queues: Vec::new(), has_ended: false });
    }

    /// Adds to a demand.
    pub(super) fn refill(&mut self, number: u64, messages: u32, bytes: u64) {
        if let Some(row) = self.rows.get(&number).filter(|row| !row.has_ended) {
            self.demands.refill(row.credit, messages, bytes);
            self.demand_changed(number);
        }
    }

    /// Puts a demand's credit anew.
    pub(super) fn set_credit(&mut self, number: u64, credit: Credit) {
        if let Some(row) = self.rows.get(&number).filter(|row| !row.has_ended) {
            self.demands.set(row.credit, credit);
            self.demand_changed(number);
        }
    }

    fn demand_changed(&mut self, number: u64) {
        let Self { rows, queues, due, .. } = self;
        let Some(row) = rows.get(&number) else { return };
        for queue in &row.queues {
            queues.get_mut(queue).into_iter().for_each(|led| led.list(*queue, due));
        }
    }

    /// A queue is to be looked at, if it is led.
    pub(super) fn look_at(&mut self, queue: SubscriptionNo) {
        let led = self.queues.get_mut(&queue);
        led.into_iter().for_each(|led| led.list(queue, &mut self.due));
    }

    /// Sees to what is due: what has expired, what may be dealt again, and where the rate is another one.
    pub(super) fn due(&mut self, now_ms: i64) {
        self.expiring.due(now_ms);
        while let Some(queue) = self.rates.due(now_ms) {
            self.look_at(queue);
        }
    }

    /// When something is due next, in milliseconds.
    pub(super) fn next_ms(&self) -> Option<i64> {
        self.expiring.next_ms().into_iter().chain(self.rates.next_ms()).min()
    }

    /// Ends a demand: its members get nothing more.
    pub(super) fn end_demand(&mut self, number: u64) {
        let Some(row) = self.rows.get_mut(&number) else { return };
        row.has_ended = true;
        self.demands.set(row.credit, Credit::NONE);
        self.drop_ended(number);
    }

    /// A demand goes when it has ended and no member draws on it: its place is another one's then.
    fn drop_ended(&mut self, number: u64) {
        let ended = |row: &&mut DemandRow| row.has_ended && row.queues.is_empty();
        if let Some(row) = self.rows.get_mut(&number).filter(ended) {
            self.demands.remove(row.credit);
            self.rows.remove(&number);
        }
    }

    fn next_member(&mut self) -> MemberNo {
        self.next_member += 1;
        MemberNo(self.next_member)
    }

    /// A queue's dispatcher, made if it is not there.
    pub(super) fn lead(&mut self, target: QueueTarget, policy: QueuePolicy) -> &mut LedQueue {
        self.queues.entry(target.subscription()).or_insert_with(|| LedQueue::new(target, policy))
    }

    /// Adds a member to its queue.
    pub(super) fn attach(&mut self, new: NewMember) -> Result<MemberNo, QueueError> {
        let NewMember { target, owner, demand, priority, settles, .. } = new;
        let queue = target.subscription();
        if self.closing.contains_key(&queue) {
            return Err(QueueError::Unknown);
        }
        // One of an earlier term is not known any more: its session has not been told, and its consumer would wait for ever.
        let row = self.rows.get(&demand).ok_or(QueueError::Shard(ShardFailure::NotLeader))?;
        let credit = Some(row).filter(|row| !row.has_ended).map(|row| row.credit);
        let member = self.next_member();
        let dealt = DemandMember {
            number: member,
            // One that has ended gives nothing.
            demand: credit.unwrap_or(DemandNo(u32::MAX)),
            owner,
            priority,
            filter: None,
            waits: false,
        };
        if let Err(refused) = self.lead(target, new.policy).dispatcher.attach(dealt, new.exclusive) {
            self.tidy(queue);
            return Err(refused.into());
        }
        self.look_at(queue);
        if let Some(row) = self.rows.get_mut(&demand) {
            row.queues.push(queue);
        }
        let to = Recipient::Consumer { number: new.number, seat: new.seat };
        self.members.insert(member, Member { target, owner, demand: Some(demand), settles, to, waiting: 0 });
        Ok(member)
    }

    /// Takes a member away.
    pub(super) fn detach(&mut self, member: MemberNo) -> Option<Member> {
        let gone = self.members.remove(&member)?;
        let queue = gone.target.subscription();
        if let Some(led) = self.queues.get_mut(&queue) {
            led.dispatcher.detach(member);
            if led.policy.auto_delete && led.dispatcher.is_idle() {
                self.deserted.push(gone.target.partition);
            }
            if led.policy.expires && led.dispatcher.is_idle() {
                self.left.push(gone.target.partition);
            }
            // Another one may be active, and what groups kept for it is free.
            led.list(queue, &mut self.due);
        }
        if let Some(number) = gone.demand {
            let row = self.rows.get_mut(&number);
            row.into_iter().for_each(|row| row.forget(queue));
            self.drop_ended(number);
        }
        self.tidy(queue);
        Some(gone)
    }

    /// A session has ended without saying so: what it has is given back.
    pub(super) fn session_gone(&mut self, member: MemberNo) {
        if let Some(gone) = self.detach(member) {
            self.gathered.add(gone.target.subscription(), Change::Released(gone.owner, false), []);
        }
    }

    /// Lets go of a queue of which nothing is to be known.
    pub(super) fn tidy(&mut self, queue: SubscriptionNo) {
        let at_rest = |led: &LedQueue| led.dispatcher.is_at_rest() && led.waiting.is_empty();
        if self.queues.get(&queue).is_some_and(at_rest) {
            self.queues.remove(&queue);
        }
    }

    /// Nothing comes of a queue any more.
    pub(super) fn end_queue(
        &mut self,
        queue: SubscriptionNo,
        why: CancelReason,
        error: QueueError,
        wakes: &mut WakeBatch,
    ) {
        let Some(led) = self.queues.remove(&queue) else { return };
        let mut members: Vec<MemberNo> = led.dispatcher.members().map(|member| member.number).collect();
        // A getter of a single message is a member only as long as that is under way.
        members.extend(led.waiting.values().map(|dealt| dealt.member));
        for member in members {
            self.detach(member).into_iter().for_each(|gone| gone.end(why, error, wakes));
        }
    }

    /// Nothing comes of anything any more, since the shard is not led here.
    pub(super) fn end_all(&mut self, error: QueueError, wakes: &mut WakeBatch) {
        let all = self.members.drain();
        all.for_each(|(_, gone)| gone.end(CancelReason::Unavailable, error, wakes));
        self.asked.drain(..).for_each(|asked| asked.ask.refuse(error, wakes));
        // Numbers are never given twice: a handle from before means no member.
        let entries = std::mem::take(&mut self.entries);
        let next = entries.into_values().flat_map(|entry| entry.next);
        next.for_each(|next| next.refuse(error, wakes));
        let rates = std::mem::take(&mut self.rates).anew();
        *self = Self { next_member: self.next_member, next_entry: self.next_entry, rates, ..Self::default() };
    }

    /// How many members a queue has, and how many of its messages are dealt and undecided.
    pub(super) fn count(&self, queue: SubscriptionNo) -> (usize, u64) {
        let count = |led: &LedQueue| (led.dispatcher.member_count(), led.dispatcher.undecided());
        self.queues.get(&queue).map_or((0, 0), count)
    }

    /// How many queues there are of which `apply` is to tell.
    pub(super) fn watched(&self) -> usize {
        self.queues.len() + self.expiring.len() + self.closing.len()
    }

    /// Has a queue take no consumers any more; where that is wanted, only if it has none.
    pub(super) fn close(&mut self, queue: SubscriptionNo, if_unused: bool) -> Result<(), QueueError> {
        if if_unused && self.count(queue).0 > 0 {
            return Err(QueueError::InUse);
        }
        *self.closing.entry(queue).or_default() += 1;
        Ok(())
    }

    /// One deletion of a queue comes to nothing: if there is no other one, the queue takes consumers again.
    pub(super) fn reopen(&mut self, queue: SubscriptionNo) {
        if let Some(deletions) = self.closing.get_mut(&queue) {
            *deletions -= 1;
        }
        self.closing.retain(|_, deletions| *deletions > 0);
    }

    /// A queue is gone.
    pub(super) fn forget_closing(&mut self, queue: SubscriptionNo) {
        self.closing.remove(&queue);
    }

    /// Makes a getter of a single message.
    pub(super) fn add_getter(
        &mut self,
        target: QueueTarget,
        owner: MessageOwner,
        settles: bool,
        replier: GetReplier,
    ) -> DemandMember {
        let number = self.next_member();
        let to = Recipient::Getter { replier: Some(replier), left: 0 };
        self.members.insert(number, Member { target, owner, demand: None, settles, to, waiting: 0 });
        DemandMember { number, demand: DemandNo(u32::MAX), owner, priority: 0, filter: None, waits: false }
    }

    /// Whether there is something to propose, as far as can be seen without looking at queues.
    pub(super) fn has_work(&self) -> bool {
        let rests = self.due.is_empty() && self.asked.is_empty() && self.gathered.is_empty();
        !rests || self.expiring.has_listed() || self.is_new
    }
}

impl LedQueue {
    pub(super) fn new(target: QueueTarget, policy: QueuePolicy) -> Self {
        let dispatcher = Dispatcher::new(policy.access, policy.order);
        let dispatcher = if policy.by_level { dispatcher.by_level() } else { dispatcher };
        Self { target, policy, dispatcher, waiting: BTreeMap::new(), is_due: false, fresh_from: None }
    }

    /// Lists it among those to be looked at, once.
    fn list(&mut self, queue: SubscriptionNo, due: &mut VecDeque<SubscriptionNo>) {
        if !self.is_due {
            self.is_due = true;
            due.push_back(queue);
        }
    }
}

impl DemandRow {
    fn forget(&mut self, queue: SubscriptionNo) {
        if let Some(at) = self.queues.iter().position(|other| *other == queue) {
            self.queues.swap_remove(at);
        }
    }
}

impl QueueRequest {
    pub(super) fn target(&self) -> QueueTarget {
        match self {
            Self::Get { target, .. }
            | Self::Purge { target, .. }
            | Self::Back { target, .. }
            | Self::Redrive { target, .. } => *target,
        }
    }

    /// Whether there is use in doing it: a message that no client waits for any more would stay with its owner, which may have given back all it has.
    pub(super) fn is_awaited(&self) -> bool {
        match self {
            Self::Get { replier, .. } => replier.is_awaited(),
            Self::Purge { .. } | Self::Back { .. } | Self::Redrive { .. } => true,
        }
    }

    pub(super) fn refuse(self, error: QueueError, wakes: &mut WakeBatch) {
        match self {
            Self::Get { replier, .. } => replier.send(Err(error), wakes),
            Self::Purge { replier, .. } => replier.send(Err(error), wakes),
            Self::Back { replier, .. } => replier.send(Err(error), wakes),
            Self::Redrive { tally, .. } => tally.answer(Err(error)),
        }
    }
}
