//! A publish: batches for any number of partitions, and what becomes of them in each, as it is known.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Instant;

use parking_lot::Mutex;
use sabir_base::wake::WakeBatch;
use sabir_model::batch::{BatchRefusal, BatchRules, CheckedBatch, RulesOf};
use sabir_model::{
    AppendError, Durability, ErrorAbout, FrontendNo, PartitionId, RecordFacts, ShardId, TimestampType,
    TopicId,
};

use crate::answer::Sleeper;
use crate::append::{AppendRefusal, AppendTarget, Appended};
use crate::caller::Caller;
use crate::entry::Targets;
use crate::open::block_on_until;
use crate::shard::Shard;
use crate::state::AppendOutcome;

/// Partitions that one entry names at the most. For more of a shard a batch is stored again.
const ENTRY_TARGETS: usize = 4096;

/// Why a publish is not taken. Nothing is written of it. Where it is about one target, [`ErrorAbout`] names that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishRefused {
    /// It is for no partition.
    #[error("it is for no partition")]
    NoTarget,
    /// A partition is named twice: by this target, counted from 0, again.
    #[error("it is a target twice")]
    Twice(usize),
    /// Front ends build batches for themselves alone.
    #[error("the target is another front end's")]
    OtherOrigin(usize),
    /// No batch can be in the codec of both topics: they are to be published to one after the other.
    #[error("the target keeps batches in another codec than those before it")]
    OtherCodec(usize),
    /// The caller may not append there.
    #[error("{why}")]
    Target {
        /// Which one, counted from 0.
        target: usize,
        /// Why not.
        why: AppendRefusal,
    },
    /// A batch as a client sent it is for one partition, and is taken whole or not at all.
    #[error("a client's batch is for one partition, and whole")]
    ClientsBatch,
    /// A batch was not checked for these targets.
    #[error("batch {0} was not checked by the rules of its targets")]
    OtherRules(usize),
    /// Facts are not of as many records as their batch has.
    #[error("the facts of batch {0} are not of as many records as it has")]
    OtherFacts(usize),
}

/// Targets of one entry: partitions of one shard, whose batches are the same bytes.
#[derive(Debug)]
pub(crate) struct TargetGroup {
    pub(crate) shard: ShardId,
    /// Whether batches are stamped for them.
    pub(crate) stamp: bool,
    pub(crate) partitions: Targets,
    /// Their numbers among all targets.
    numbers: Vec<usize>,
    /// Whether one of them asks for a sync, and whether one leaves it to the node.
    sync: bool,
    by_default: bool,
    /// Whether one of them is a queue.
    pub(crate) queues: bool,
}

impl TargetGroup {
    /// The strictest that one of them asks for.
    pub(crate) fn durability(&self, default: Durability) -> Durability {
        match (self.sync, self.by_default) {
            (true, _) => Durability::Sync,
            (false, true) => default,
            (false, false) => Durability::Os,
        }
    }
}

/// The partitions that publishes are for: of any topics and shards, as they were when this was made. Made once for as many publishes as go
/// there; clones are the same.
#[derive(Debug, Clone)]
pub struct PublishTargets(Arc<TargetSet>);

#[derive(Debug)]
struct TargetSet {
    targets: Vec<AppendTarget>,
    rules: BatchRules,
    /// By shard.
    groups: Vec<TargetGroup>,
}

/// Whose rules several topics' together are: no topic's, and no other set's.
fn rules_of_a_set() -> RulesOf {
    static SETS: AtomicU64 = AtomicU64::new(1);
    RulesOf { topic: TopicId([0; 16]), version: SETS.fetch_add(1, Relaxed) }
}

impl PublishTargets {
    /// Several partitions, each once, for batches that one front end builds; or one.
    ///
    /// # Errors
    /// They are none, or cannot be given the same batch.
    pub fn new(targets: Vec<AppendTarget>) -> Result<Self, ErrorAbout<PublishRefused>> {
        let first = targets.first().ok_or(PublishRefused::NoTarget)?;
        let origin = first.origin;
        if targets.len() > 1 && origin == FrontendNo::NONE {
            return Err(PublishRefused::ClientsBatch.into());
        }
        if let Some(other) = targets.iter().position(|target| target.origin != origin) {
            return Err(targets[other].refused(PublishRefused::OtherOrigin(other)));
        }
        let rules = common_rules(&targets)?;
        let groups = groups(&targets)?;
        Ok(Self(Arc::new(TargetSet { targets, rules, groups })))
    }

    /// Each of them, in the order in which they were given.
    pub fn targets(&self) -> &[AppendTarget] {
        &self.0.targets
    }

    /// What batches must be, to be taken by all.
    pub fn rules(&self) -> BatchRules {
        self.0.rules
    }

    /// What a batch was refused with that was built by [their rules](Self::rules), with the target that it is about: the first whose own rules refuse
    /// it so. Of what has nothing to do with any of them no target is named.
    pub fn refused(&self, refusal: BatchRefusal) -> ErrorAbout<BatchRefusal> {
        let refuses = |target: &&AppendTarget| target.rules().refuse_of(&self.0.rules, &refusal);
        match self.targets().iter().find(refuses) {
            Some(target) => target.refused(refusal),
            None => refusal.into(),
        }
    }

    /// The front end that builds the batches.
    pub(crate) fn origin(&self) -> FrontendNo {
        self.0.targets[0].origin
    }

    pub(crate) fn groups(&self) -> &[TargetGroup] {
        &self.0.groups
    }

    /// Their shards, in order, each once.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.groups().chunk_by(|a, b| a.shard == b.shard).map(|groups| groups[0].shard)
    }
}

/// The rules that every batch keeps which all targets take.
fn common_rules(targets: &[AppendTarget]) -> Result<BatchRules, ErrorAbout<PublishRefused>> {
    let mut rules = targets[0].rules();
    if targets.len() > 1 {
        let of = rules_of_a_set();
        for (number, target) in targets.iter().enumerate() {
            let both = rules.and(&target.rules(), of);
            rules = both.ok_or_else(|| target.refused(PublishRefused::OtherCodec(number)))?;
        }
    }
    Ok(rules)
}

fn groups(targets: &[AppendTarget]) -> Result<Vec<TargetGroup>, ErrorAbout<PublishRefused>> {
    let mut order: Vec<(ShardId, bool, PartitionId, usize)> = targets
        .iter()
        .enumerate()
        .map(|(number, target)| (target.shard, target.stamps(), target.partition, number))
        .collect();
    // By partition first: a target that was made before a change of its topic may be stamped otherwise.
    order.sort_unstable_by_key(|(shard, _, partition, number)| (*shard, *partition, *number));
    let twice = order.windows(2).find(|pair| (pair[0].0, pair[0].2) == (pair[1].0, pair[1].2));
    if let Some(pair) = twice {
        let again = pair[1].3;
        return Err(targets[again].refused(PublishRefused::Twice(again)));
    }
    order.sort_by_key(|(shard, stamp, ..)| (*shard, *stamp));
    let alike = order.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1));
    Ok(alike.flat_map(|alike| alike.chunks(ENTRY_TARGETS)).map(|of| group(targets, of)).collect())
}

fn group(targets: &[AppendTarget], of: &[(ShardId, bool, PartitionId, usize)]) -> TargetGroup {
    let asks =
        |durability| of.iter().any(|(.., number)| targets[*number].topic.config.durability == durability);
    TargetGroup {
        shard: of[0].0,
        stamp: of[0].1,
        partitions: match of {
            [(_, _, one, _)] => Targets::One(*one),
            several => Targets::Several(several.iter().map(|(_, _, id, _)| *id).collect()),
        },
        numbers: of.iter().map(|(.., number)| *number).collect(),
        sync: asks(Some(Durability::Sync)),
        by_default: asks(None),
        queues: of.iter().any(|(.., number)| targets[*number].topic.config.queue().is_some()),
    }
}

impl AppendTarget {
    /// Whether batches for it are stamped with the broker's time.
    pub(crate) fn stamps(&self) -> bool {
        self.topic.config.timestamp_type == TimestampType::LogAppendTime
    }
}

/// A batch to publish.
#[derive(Debug, Clone)]
pub struct PublishBatch {
    /// The batch.
    pub batch: CheckedBatch,
    /// What queues must know of its records; targets that are none pass it over.
    pub facts: Option<RecordFacts>,
}

impl PublishBatch {
    fn records(&self) -> u32 {
        self.batch.header().last_offset_delta as u32 + 1
    }

    fn facts_fit(&self) -> bool {
        self.facts.as_ref().is_none_or(|facts| facts.records() == u64::from(self.records()))
    }
}

impl From<CheckedBatch> for PublishBatch {
    fn from(batch: CheckedBatch) -> Self {
        Self { batch, facts: None }
    }
}

/// What a publish takes effect with. Local transactions and half messages come here, once there is something that decides them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PublishTransaction {
    /// Nothing else: by itself.
    #[default]
    None,
}

/// How a publish is known that came before, beside the message ids that [facts](PublishBatch::facts) say to queues. The places that a record was moved
/// from come here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PublishDedup {
    /// By the mark of an idempotent producer in a client's batch, where there is one; what front ends build has none.
    #[default]
    Producer,
}

/// Batches for partitions.
#[derive(Debug, Clone)]
pub struct Publish {
    /// Where they go, all of them to each.
    pub targets: PublishTargets,
    /// In their order.
    pub batches: Vec<PublishBatch>,
    /// What it takes effect with.
    pub transaction: PublishTransaction,
    /// How a second one like it is known.
    pub dedup: PublishDedup,
    /// Whether a target may take the records at a batch's front and refuse the others, as a queue does that has not room for all of them; only
    /// what a front end built, for which no producer asks again. A batch that is too large for one entry is taken whole or not at all.
    pub partial: bool,
}

impl Publish {
    /// Batches that were checked by the rules of the targets; each is taken whole or not at all.
    pub fn new(targets: PublishTargets, batches: impl IntoIterator<Item = CheckedBatch>) -> Self {
        Self {
            targets,
            batches: batches.into_iter().map(PublishBatch::from).collect(),
            transaction: PublishTransaction::None,
            dedup: PublishDedup::Producer,
            partial: false,
        }
    }

    /// The entries that it takes in a shard, in their order: what waits for each, the targets that it is for and what it brings.
    pub(crate) fn entries(
        &self,
        shard: ShardId,
        call: &Arc<PublishCall>,
    ) -> impl Iterator<Item = (PublishWaiter, &TargetGroup, &PublishBatch)> {
        let groups = self.targets.groups();
        let from = groups.partition_point(|group| group.shard < shard);
        let to = groups.partition_point(|group| group.shard <= shard);
        let batches = self.batches.iter().enumerate();
        batches.flat_map(move |(number, batch)| {
            (from..to).map(move |group| {
                (PublishWaiter::new(self, call, group, number, batch), &groups[group], batch)
            })
        })
    }

    /// Answers its entries in a shard with an error.
    pub(crate) fn refuse(&self, shard: ShardId, call: &Arc<PublishCall>, error: AppendError) {
        let mut wakes = WakeBatch::default();
        for (waiter, ..) in self.entries(shard, call) {
            waiter.answer(AppendOutcome::One(Err(error)), &mut wakes);
        }
        wakes.deliver();
    }

    /// Whether a caller may do so, and what it asks for is what there is.
    pub(crate) fn check(&self, caller: &Caller) -> Result<(), ErrorAbout<PublishRefused>> {
        let origin = self.targets.origin();
        for (target, place) in self.targets.targets().iter().enumerate() {
            let may = caller.may_append(&place.topic, origin);
            may.map_err(|why| place.refused(PublishRefused::Target { target, why }))?;
        }
        if self.partial && origin == FrontendNo::NONE {
            return Err(PublishRefused::ClientsBatch.into());
        }
        let of = self.targets.rules().whose();
        if let Some(batch) = self.batches.iter().position(|batch| batch.batch.rules_of() != of) {
            return Err(PublishRefused::OtherRules(batch).into());
        }
        match self.batches.iter().position(|batch| !batch.facts_fit()) {
            Some(batch) => Err(PublishRefused::OtherFacts(batch).into()),
            None => Ok(()),
        }
    }
}

/// What became of records of a publish in one of its targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishOutcome {
    /// The target, counted from 0.
    pub target: usize,
    /// The batch, counted from 0.
    pub batch: usize,
    /// The records, counted from the batch's first offset: all of them, or of a batch that is taken in part first those that are and then the
    /// others.
    pub records: Range<u32>,
    /// Where they are, or why not.
    pub result: Result<Appended, ErrorAbout<AppendError>>,
}

/// How a target took records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishVerdict {
    /// They are there.
    Taken(Appended),
    /// The target was deleted after the publish was made for it; whatever has its name now is another one. It has refused nothing: what was routed
    /// there is as unroutable as if it had come a moment later.
    Gone,
    /// The target is there, or may be, and has not taken them.
    Refused(ErrorAbout<AppendError>),
}

impl PublishOutcome {
    /// The same, with targets that are gone told apart from those that refuse.
    pub fn verdict(&self) -> PublishVerdict {
        match &self.result {
            Ok(appended) => PublishVerdict::Taken(*appended),
            Err(ErrorAbout { error: AppendError::UnknownPartition, .. }) => PublishVerdict::Gone,
            Err(error) => PublishVerdict::Refused(error.clone()),
        }
    }
}

/// One entry of a publish, decided.
#[derive(Debug)]
struct Decided {
    group: usize,
    batch: usize,
    records: u32,
    outcome: AppendOutcome,
    /// Targets of the group that were told.
    told: usize,
    /// Records of the next target that were told.
    records_told: u32,
}

impl Decided {
    /// What became of the next target's next records.
    fn next(&mut self) -> (Range<u32>, Result<Appended, AppendError>) {
        let of_target = self.outcome.at(self.told);
        let taken = of_target.map_or(self.records, |appended| appended.records.min(self.records));
        let (records, result) = match self.records_told {
            0 => (0..taken, of_target),
            told => (told..self.records, Err(AppendError::QueueFull)),
        };
        self.records_told = records.end;
        if self.records_told == self.records {
            (self.told, self.records_told) = (self.told + 1, 0);
        }
        (records, result)
    }
}

#[derive(Debug)]
struct Decisions {
    decided: VecDeque<Decided>,
    /// Entries that are not decided yet.
    open: usize,
    sleeper: Sleeper,
}

/// The decisions of one publish.
#[derive(Debug)]
pub(crate) struct PublishCall(Mutex<Decisions>);

impl PublishCall {
    pub(crate) fn new(publish: &Publish) -> Arc<Self> {
        let open = publish.batches.len() * publish.targets.groups().len();
        Arc::new(Self(Mutex::new(Decisions { decided: VecDeque::new(), open, sleeper: Sleeper::default() })))
    }

    fn decide(&self, decided: Decided, wakes: &mut WakeBatch) {
        let mut call = self.0.lock();
        call.decided.push_back(decided);
        call.open -= 1;
        call.sleeper.wake(wakes);
    }
}

/// Publishes what was checked in those of all shards that its targets name. Gives what becomes of it.
pub(crate) fn publish_in(shards: &[Arc<Shard>], publish: &Publish) -> PublishOutcomes {
    let call = PublishCall::new(publish);
    for id in publish.targets.shards() {
        let shard = &shards[id.0 as usize];
        shard.publish(publish, &call);
        shard.submit();
    }
    PublishOutcomes::new(call, publish.targets.clone())
}

/// What waits for one entry of a publish.
#[derive(Debug)]
pub(crate) struct PublishWaiter {
    call: Arc<PublishCall>,
    targets: PublishTargets,
    group: usize,
    batch: usize,
    records: u32,
    bytes: usize,
    /// The number of its fragmented batch, if it is one.
    pub(crate) fragmented: Option<u64>,
}

impl PublishWaiter {
    fn new(
        publish: &Publish,
        call: &Arc<PublishCall>,
        group: usize,
        number: usize,
        batch: &PublishBatch,
    ) -> Self {
        Self {
            call: call.clone(),
            targets: publish.targets.clone(),
            group,
            batch: number,
            records: batch.records(),
            bytes: batch.batch.bytes().len(),
            fragmented: None,
        }
    }

    pub(crate) fn answer(self, outcome: AppendOutcome, wakes: &mut WakeBatch) {
        let Self { call, targets, group, batch, records, bytes, .. } = self;
        // Before the task that waits can look at the counters.
        for (at, number) in targets.groups()[group].numbers.iter().enumerate() {
            if outcome.at(at).is_ok_and(|appended| !appended.duplicate) {
                targets.targets()[*number].topic.traffic.receive(bytes);
            }
        }
        call.decide(Decided { group, batch, records, outcome, told: 0, records_told: 0 }, wakes);
    }
}

/// The outcomes of a [publish](crate::Broker::publish), in the order in which they are known. The batches are on their way whether this is
/// asked or dropped.
#[derive(Debug)]
#[must_use = "the publish is answered through it"]
pub struct PublishOutcomes {
    call: Arc<PublishCall>,
    targets: PublishTargets,
}

impl PublishOutcomes {
    pub(crate) fn new(call: Arc<PublishCall>, targets: PublishTargets) -> Self {
        Self { call, targets }
    }

    /// The next outcome; `None` once there are no more.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<PublishOutcome>> {
        let mut call = self.call.0.lock();
        let Some(decided) = call.decided.front_mut() else {
            if call.open == 0 {
                return Poll::Ready(None);
            }
            call.sleeper.sleep(cx);
            return Poll::Pending;
        };
        let numbers = &self.targets.groups()[decided.group].numbers;
        let (target, batch) = (numbers[decided.told], decided.batch);
        let (records, result) = decided.next();
        let result = result.map_err(|error| ErrorAbout::new(error, self.targets.targets()[target].subject()));
        let outcome = PublishOutcome { target, batch, records, result };
        if decided.told == numbers.len() {
            call.decided.pop_front();
        }
        Poll::Ready(Some(outcome))
    }

    /// The next outcome, or `None` behind the last, if it is known by that moment. Blocking.
    pub(crate) fn next_until(&mut self, until: Instant) -> Option<Option<PublishOutcome>> {
        block_on_until(self.next(), until)
    }

    /// What the targets are.
    pub(crate) fn targets(&self) -> &PublishTargets {
        &self.targets
    }

    /// Waits for the next outcome; `None` once there are no more.
    pub async fn next(&mut self) -> Option<PublishOutcome> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Waits until every target, in whichever shard, has taken all: for a caller that names the targets, and is to hear of those that are gone.
    ///
    /// # Errors
    /// The first refusal, once every target has answered: others may have taken it, or refused it, too. [`AppendError::UnknownPartition`] where a
    /// target is gone.
    pub async fn confirmed(mut self) -> Result<(), ErrorAbout<AppendError>> {
        let mut confirmed = Ok(());
        while let Some(outcome) = self.next().await {
            confirmed = confirmed.and(outcome.result.map(drop));
        }
        confirmed
    }
}
