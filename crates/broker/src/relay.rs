//! Publishing elsewhere what lies in a queue, before it is settled there: no entry is in two shards.
//!
//! Some targets may have taken a message while the shard of another cannot decide. A thread that tries again asks those alone that have not decided;
//! what is known of that is in memory, so that a message may come twice where the node dies between, or its shard is led by another one.
//!
//! A shard that does not decide in time, as one whose disk has stopped, is given nothing more until it has decided on that, and no thread waits for
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use sabir_delivery::subscription::SubscriptionNo;
use sabir_model::batch::{BatchBuilder, BatchRules, RulesOf};
use sabir_model::{
    AppendError, ErrorAbout, Overflow, PartitionId, QueueConfig, RecordFacts, ShardId, TopicId,
};
use tracing::debug;

use crate::append::AppendTarget;
use crate::caller::Caller;
use crate::catalog::Topic;
use crate::exchange::targets_by_codec;
use crate::publish::{Publish, PublishOutcome, PublishOutcomes, PublishTargets, publish_in};
use crate::shard::Shard;

/// What the records of a batch of messages may take decompressed, in bytes.
pub(crate) const RECORDS_MAX: usize = 512 << 20;

/// It cannot be done now, and is to be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Later;

/// How long the decisions on one publish are waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// Runs of messages from which on all are looked at that are known.
const SWEEP_LEAST: usize = 4096;

/// Targets that have decided on messages which are not settled yet.
#[derive(Debug, Default)]
pub(crate) struct RelayedMessages {
    /// Runs of messages that do not overlap, by where each begins.
    queues: FxHashMap<SubscriptionNo, BTreeMap<u64, RelayedRun>>,
    /// What the entry proposed last settles of them.
    settling: Vec<(SubscriptionNo, Range<u64>)>,
    /// How many runs were left when all were looked at.
    swept: usize,
    /// The shards that took nothing when they were asked last, and since when, in milliseconds of the node's time.
    silent: FxHashMap<ShardId, i64>,
    /// What was published and is not decided: nothing else is for these shards.
    open: Vec<OpenRelay>,
    /// Copies that targets have refused which decided late, and that are not told yet.
    refused: u64,
    /// Messages that stay where they are, since their target has refused them.
    staying: BTreeSet<(SubscriptionNo, u64)>,
}

/// A publish on which shards have not decided.
#[derive(Debug)]
struct OpenRelay {
    queue: SubscriptionNo,
    offsets: Range<u64>,
    stays: bool,
    outcomes: PublishOutcomes,
    /// By target, whether it has decided.
    decided: Vec<bool>,
    /// How many have not, by shard.
    left: FxHashMap<ShardId, usize>,
}

impl OpenRelay {
    fn new(relay: &Relay<'_>, outcomes: PublishOutcomes) -> Self {
        let Relay { queue, stays, .. } = *relay;
        let offsets = relay.offsets.clone();
        let mut left = FxHashMap::default();
        let targets = outcomes.targets().targets();
        targets.iter().for_each(|target| *left.entry(target.shard).or_default() += 1);
        Self { queue, offsets, stays, decided: vec![false; targets.len()], outcomes, left }
    }

    /// A target is heard of: once, or once for those of its records that are taken and once for the others.
    fn decides(&mut self, number: usize, shard: ShardId) {
        if !std::mem::replace(&mut self.decided[number], true)
            && let Some(left) = self.left.get_mut(&shard)
        {
            *left -= 1;
            if *left == 0 {
                self.left.remove(&shard);
            }
        }
    }
}

/// Messages on which the same targets have decided.
#[derive(Debug, Clone)]
struct RelayedRun {
    end: u64,
    /// In order.
    decided: Arc<[PartitionId]>,
}

impl RelayedMessages {
    /// Leaves out the targets that have decided on a message.
    pub(crate) fn leave_out(&self, queue: SubscriptionNo, offset: u64, targets: &mut Vec<AppendTarget>) {
        let decided = self.decided(queue, offset);
        targets.retain(|target| decided.binary_search(&target.partition).is_err());
    }

    /// The targets that have decided on a message, in order.
    fn decided(&self, queue: SubscriptionNo, offset: u64) -> &[PartitionId] {
        let before = self.queues.get(&queue).and_then(|runs| runs.range(..=offset).next_back());
        before.filter(|(_, run)| run.end > offset).map_or(&[], |(_, run)| &run.decided)
    }

    fn decide(&mut self, queue: SubscriptionNo, offsets: Range<u64>, targets: &[PartitionId]) {
        if targets.is_empty() {
            return;
        }
        let runs = self.queues.entry(queue).or_default();
        split(runs, offsets.start);
        split(runs, offsets.end);
        let (mut at, mut gaps) = (offsets.start, Vec::new());
        for (start, run) in runs.range_mut(offsets.clone()) {
            gaps.push(at..*start);
            run.decided = with(&run.decided, targets);
            at = run.end;
        }
        gaps.push(at..offsets.end);
        let decided = with(&[], targets);
        for gap in gaps.into_iter().filter(|gap| !gap.is_empty()) {
            runs.insert(gap.start, RelayedRun { end: gap.end, decided: decided.clone() });
        }
    }

    /// Whether a message stays where it is, its target having refused it. It is not known any more then.
    pub(crate) fn take_staying(&mut self, queue: SubscriptionNo, offset: u64) -> bool {
        let stays = self.staying.remove(&(queue, offset));
        if stays {
            self.forget_message(queue, offset);
        }
        stays
    }

    /// It may be wanted once more where it went: that is not known any more.
    pub(crate) fn forget_message(&mut self, queue: SubscriptionNo, offset: u64) {
        if let Some(runs) = self.queues.get_mut(&queue) {
            split(runs, offset);
            split(runs, offset + 1);
            runs.remove(&offset);
        }
    }

    /// An entry is proposed that settles these messages.
    pub(crate) fn settles(&mut self, queue: SubscriptionNo, offsets: Range<u64>) {
        let last = self.queues.get(&queue).and_then(|runs| runs.range(..offsets.end).next_back());
        if last.is_some_and(|(_, run)| run.end > offsets.start) {
            self.settling.push((queue, offsets));
        }
    }

    /// Notes what was decided meanwhile, and forgets what the entry proposed last has settled, once that is decided; and at times all that is settled
    /// otherwise, or gone with its queue.
    pub(crate) fn forget_settled(&mut self, shard: &Shard, now_ms: i64) {
        for mut open in std::mem::take(&mut self.open) {
            let heard = self.hear(&mut open, Instant::now(), now_ms);
            self.refused += heard.outcome.refused;
            self.open.extend((!heard.is_over).then_some(open));
        }
        // The thread that applies blocks does not wait for a look at all of them.
        self.forget(|queue, offsets| shard.state.read().subscriptions.has_unsettled(queue, offsets));
    }

    /// The same, `is_open` telling whether any of such messages is not settled.
    fn forget(&mut self, is_open: impl Fn(SubscriptionNo, Range<u64>) -> bool) {
        for (queue, offsets) in std::mem::take(&mut self.settling) {
            let Some(runs) = self.queues.get_mut(&queue) else { continue };
            let before = runs.range(..=offsets.start).next_back();
            let first = before.map_or(offsets.start, |(start, _)| *start);
            let settled =
                runs.range(first..offsets.end).filter(|(start, run)| !is_open(queue, **start..run.end));
            let settled: Vec<u64> = settled.map(|(start, _)| *start).collect();
            settled.iter().for_each(|start| drop(runs.remove(start)));
            if runs.is_empty() {
                self.queues.remove(&queue);
            }
        }
        if self.runs() > SWEEP_LEAST.max(2 * self.swept) {
            self.queues.retain(|queue, runs| {
                runs.retain(|start, run| is_open(*queue, *start..run.end));
                !runs.is_empty()
            });
            self.swept = self.runs();
        }
    }

    /// Whether a shard has not decided on what it was given before.
    fn is_open_in(&self, shard: ShardId) -> bool {
        self.open.iter().any(|open| open.left.contains_key(&shard))
    }

    /// For how long a shard has taken nothing, which does not now.
    fn silent_ms(&mut self, shard: ShardId, now_ms: i64) -> i64 {
        now_ms.saturating_sub(*self.silent.entry(shard).or_insert(now_ms))
    }

    /// Notes what was decided on a publish until that moment.
    fn hear(&mut self, open: &mut OpenRelay, until: Instant, now_ms: i64) -> Heard {
        let (mut heard, mut decided) = (Heard::default(), Vec::new());
        while let Some(next) = open.outcomes.next_until(until) {
            let Some(told) = next else {
                heard.is_over = true;
                break;
            };
            let target = &open.outcomes.targets().targets()[told.target];
            let (shard, partition) = (target.shard, target.partition);
            let stays = open.stays && !gives_up(&told, &target.topic);
            open.decides(told.target, shard);
            match self.refused_by(&told, shard, now_ms) {
                Ok(refused) => {
                    if stays && refused > 0 {
                        let from = open.offsets.start;
                        let refused =
                            told.records.clone().map(|record| (open.queue, from + u64::from(record)));
                        self.staying.extend(refused);
                    }
                    heard.outcome.refused += if open.stays { 0 } else { refused };
                    decided.push(partition);
                }
                Err(silent_ms) => {
                    heard.outcome.undecided_ms = heard.outcome.undecided_ms.max(Some(silent_ms));
                }
            }
        }
        self.decide(open.queue, open.offsets.clone(), &decided);
        heard
    }

    /// How many copies a target has refused; an error where its shard takes nothing now, with for how long it has not.
    fn refused_by(&mut self, told: &PublishOutcome, shard: ShardId, now_ms: i64) -> Result<u64, i64> {
        match &told.result {
            Err(ErrorAbout { error: AppendError::Shard(_), .. }) => return Err(self.silent_ms(shard, now_ms)),
            Err(error) => debug!(%error, "messages are not taken"),
            Ok(_) => {}
        }
        self.silent.remove(&shard);
        Ok(if told.result.is_ok() { 0 } else { (told.records.end - told.records.start).into() })
    }

    fn runs(&self) -> usize {
        self.queues.values().map(BTreeMap::len).sum()
    }
}

/// Whether a queue has given up what it refused, rather than not to have it.
fn gives_up(told: &PublishOutcome, queue: &Topic) -> bool {
    let gives_up =
        |queue: &QueueConfig| queue.overflow == Overflow::RejectAndDeadLetter && queue.dead_letter.is_some();
    told.result.as_ref().is_err_and(|refused| refused.error == AppendError::QueueFull)
        && queue.config.queue().is_some_and(|queue| gives_up(queue))
}

/// Has a run begin at an offset, if that is in one.
fn split(runs: &mut BTreeMap<u64, RelayedRun>, at: u64) {
    let Some((_, run)) = runs.range_mut(..at).next_back().filter(|(_, run)| run.end > at) else { return };
    let behind = run.clone();
    run.end = at;
    runs.insert(at, behind);
}

fn with(some: &[PartitionId], others: &[PartitionId]) -> Arc<[PartitionId]> {
    let mut all = [some, others].concat();
    all.sort_unstable();
    all.dedup();
    all.into()
}

/// What was heard of a publish.
#[derive(Debug, Default)]
struct Heard {
    outcome: RelayOutcome,
    /// All targets have decided.
    is_over: bool,
}

/// Messages of a queue in a row, as they are published elsewhere.
#[derive(Debug)]
pub(crate) struct Relay<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) queue: SubscriptionNo,
    pub(crate) offsets: Range<u64>,
    /// Whether what a target refuses stays in the queue.
    pub(crate) stays: bool,
    pub(crate) batch: &'a BatchBuilder,
    pub(crate) facts: Option<&'a RecordFacts>,
    /// The machine's time and the node's, in milliseconds.
    pub(crate) wall_ms: i64,
    pub(crate) now_ms: i64,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RelayOutcome {
    /// Copies that their target has refused.
    pub(crate) refused: u64,
    /// Where a target has not decided, for how many milliseconds its shard has taken nothing.
    pub(crate) undecided_ms: Option<i64>,
}

impl RelayOutcome {
    fn add(&mut self, other: Self) {
        self.refused += other.refused;
        self.undecided_ms = self.undecided_ms.max(other.undecided_ms);
    }
}

impl Relay<'_> {
    /// Publishes them to targets elsewhere, and waits a short time for each. Blocking. Where one of these does not decide, they are published to those
    /// here, too, which else have them with the entry that settles them: that entry comes later.
    pub(crate) fn publish_or_later(
        &self,
        shards: &[Arc<Shard>],
        here: &[AppendTarget],
        elsewhere: &[AppendTarget],
        relayed: &mut RelayedMessages,
    ) -> RelayOutcome {
        let mut outcome = self.publish(shards, elsewhere, relayed);
        if outcome.undecided_ms.is_some() {
            outcome.add(self.publish(shards, here, relayed));
        }
        outcome.refused += std::mem::take(&mut relayed.refused);
        outcome
    }

    fn publish(
        &self,
        shards: &[Arc<Shard>],
        targets: &[AppendTarget],
        relayed: &mut RelayedMessages,
    ) -> RelayOutcome {
        let mut outcome = RelayOutcome::default();
        for targets in targets_by_codec(targets.to_vec()).unwrap_or_default() {
            outcome.add(self.publish_in_codec(shards, &targets, relayed));
        }
        outcome
    }

    /// Leaves out the targets whose shards have not decided on what they were given before. Gives the others, if there are any.
    fn without_open(
        &self,
        targets: &PublishTargets,
        relayed: &mut RelayedMessages,
    ) -> (Option<PublishTargets>, RelayOutcome) {
        let open: Vec<_> = targets.shards().filter(|shard| relayed.is_open_in(*shard)).collect();
        let silent = open.iter().map(|shard| relayed.silent_ms(*shard, self.now_ms));
        let outcome = RelayOutcome { refused: 0, undecided_ms: silent.max() };
        if open.is_empty() {
            return (Some(targets.clone()), outcome);
        }
        let others = targets.targets().iter().filter(|target| !open.contains(&target.shard)).cloned();
        (PublishTargets::new(others.collect()).ok(), outcome)
    }

    fn publish_in_codec(
        &self,
        shards: &[Arc<Shard>],
        targets: &PublishTargets,
        relayed: &mut RelayedMessages,
    ) -> RelayOutcome {
        let (targets, mut outcome) = self.without_open(targets, relayed);
        let Some(targets) = targets else { return outcome };
        if let Some(publish) = self.publication(&targets) {
            outcome.add(self.publish_as(shards, &publish, relayed));
            return outcome;
        }
        // One of them does not take such a batch: that is no reason for others not to have it.
        let (takes, refuses) = match targets.targets() {
            [one] => (Vec::new(), vec![one.clone()]),
            several => self.part(several),
        };
        outcome.add(self.refuse(&refuses, relayed));
        // What each of them takes can be what all of them together do not: then it is given to one after the other.
        let at_once = if refuses.is_empty() { 1 } else { takes.len().max(1) };
        for some in takes.chunks(at_once).flat_map(|some| PublishTargets::new(some.to_vec())) {
            outcome.add(self.publish_in_codec(shards, &some, relayed));
        }
        outcome
    }

    /// The targets that take such a batch, and those that do not.
    fn part(&self, targets: &[AppendTarget]) -> (Vec<AppendTarget>, Vec<AppendTarget>) {
        // Many topics have the same rules, and the batch is built for each.
        let mut known: Vec<(BatchRules, bool)> = Vec::new();
        targets.iter().cloned().partition(|target| {
            let (own, nobody) = (target.rules(), RulesOf { topic: TopicId([0; 16]), version: 0 });
            let rules = own.and(&own, nobody).unwrap_or(own);
            let is_kept = known.iter().find(|(known, _)| *known == rules).map(|(_, is_kept)| *is_kept);
            let is_kept = is_kept.unwrap_or_else(|| {
                let is_kept = self.batch.clone().build_checked(&rules, self.wall_ms).is_ok();
                known.push((rules, is_kept));
                is_kept
            });
            is_kept && self.caller.may_append(&target.topic, target.origin).is_ok()
        })
    }

    fn refuse(&self, targets: &[AppendTarget], relayed: &mut RelayedMessages) -> RelayOutcome {
        let decided: Vec<_> = targets.iter().map(|target| target.partition).collect();
        if !decided.is_empty() {
            debug!(queue = %self.queue.0, targets = ?decided, "messages are not taken");
            relayed.decide(self.queue, self.offsets.clone(), &decided);
        }
        if self.stays && !decided.is_empty() {
            relayed.staying.extend(self.offsets.clone().map(|offset| (self.queue, offset)));
            return RelayOutcome::default();
        }
        let messages = self.offsets.end - self.offsets.start;
        RelayOutcome { refused: messages * decided.len() as u64, undecided_ms: None }
    }

    /// None where one of the targets does not take it.
    fn publication(&self, targets: &PublishTargets) -> Option<Publish> {
        let batch = self.batch.clone().build_checked(&targets.rules(), self.wall_ms).ok()?;
        let mut publish = Publish { partial: true, ..Publish::new(targets.clone(), [batch]) };
        publish.batches[0].facts = self.facts.cloned();
        publish.check(self.caller).ok()?;
        Some(publish)
    }

    fn publish_as(
        &self,
        shards: &[Arc<Shard>],
        publish: &Publish,
        relayed: &mut RelayedMessages,
    ) -> RelayOutcome {
        let mut open = OpenRelay::new(self, publish_in(shards, publish));
        let Heard { mut outcome, is_over } = relayed.hear(&mut open, Instant::now() + PATIENCE, self.now_ms);
        if !is_over {
            let silent = open.left.keys().map(|shard| relayed.silent_ms(*shard, self.now_ms));
            outcome.undecided_ms = outcome.undecided_ms.max(silent.max());
            debug!(queue = %self.queue.0, shards = ?open.left, "messages are not decided on in time");
            relayed.open.push(open);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: SubscriptionNo = SubscriptionNo(1);
    const ONE: PartitionId = PartitionId(7);
    const TWO: PartitionId = PartitionId(8);

    fn decided(relayed: &RelayedMessages, target: PartitionId) -> Vec<u64> {
        (0..20).filter(|offset| relayed.decided(QUEUE, *offset).contains(&target)).collect()
    }

    #[test]
    fn what_is_decided_is_known_until_its_message_is_settled() {
        let mut relayed = RelayedMessages::default();
        relayed.decide(QUEUE, 3..5, &[ONE]);
        relayed.decide(QUEUE, 4..5, &[TWO, ONE]);
        relayed.decide(QUEUE, 9..10, &[]);
        assert_eq!((decided(&relayed, ONE), decided(&relayed, TWO)), (vec![3, 4], vec![4]));
        relayed.decide(QUEUE, 2..8, &[TWO]);
        assert_eq!((decided(&relayed, ONE), decided(&relayed, TWO)), (vec![3, 4], (2..8).collect()));
        assert!(relayed.decided(SubscriptionNo(2), 3).is_empty());
        relayed.settles(QUEUE, 0..4);
        relayed.forget(|of, offsets| of == QUEUE && offsets.end > 4);
        assert_eq!((decided(&relayed, ONE), decided(&relayed, TWO)), (vec![4], vec![4, 5, 6, 7]));
        relayed.settles(QUEUE, 4..8);
        relayed.forget(|_, offsets| offsets.contains(&7));
        assert_eq!((decided(&relayed, ONE), decided(&relayed, TWO)), (vec![], vec![5, 6, 7]));
        relayed.settles(QUEUE, 7..8);
        relayed.forget(|_, _| false);
        assert!(relayed.queues.is_empty());
    }

    #[test]
    fn many_in_a_row_are_one_run_and_only_those_of_an_entry_are_looked_at() {
        let (mut relayed, asked) = (RelayedMessages::default(), std::cell::Cell::new(0));
        let is_open = |open: bool| {
            let asked = &asked;
            move |_, _| {
                asked.set(asked.get() + 1);
                open
            }
        };
        relayed.decide(QUEUE, 0..1_000_000, &[ONE]);
        assert_eq!(relayed.runs(), 1);
        (0..1_000).for_each(|queue| relayed.decide(SubscriptionNo(100 + queue), 0..9, &[ONE]));
        relayed.forget(is_open(false));
        assert_eq!(asked.get(), 0, "no entry settled anything");
        relayed.settles(SubscriptionNo(9), 0..9);
        relayed.settles(SubscriptionNo(100), 9..20);
        relayed.settles(SubscriptionNo(101), 3..5);
        relayed.forget(is_open(false));
        assert_eq!((asked.get(), relayed.runs()), (1, 1_000));
    }

    #[test]
    fn what_is_settled_otherwise_is_forgotten_when_there_are_many() {
        let mut relayed = RelayedMessages::default();
        let decide = |relayed: &mut RelayedMessages, offsets: Range<u64>| {
            offsets.for_each(|offset| relayed.decide(QUEUE, 2 * offset..2 * offset + 1, &[ONE]));
        };
        decide(&mut relayed, 0..4_096);
        relayed.forget(|_, _| panic!("there are few"));
        decide(&mut relayed, 4_096..6_000);
        relayed.forget(|_, offsets| offsets.start >= 2_000);
        assert_eq!(relayed.runs(), 5_000);
        decide(&mut relayed, 6_000..11_000);
        relayed.forget(|_, _| panic!("there are not twice as many"));
        decide(&mut relayed, 11_000..11_001);
        relayed.forget(|_, _| false);
        assert!(relayed.queues.is_empty());
    }
}
