//! Publishes and acknowledgements that take effect together.

use std::ops::Range;
use std::sync::Arc;

use sabir_base::wake::WakeBatch;
use sabir_delivery::subscription::{OperationsWriter, Settlement};
use sabir_model::{AppendError, ErrorAbout, ShardFailure, ShardId};

use super::gathered::{Change, Gathered};
use super::{QueueOwner, QueueTarget};
use crate::answer::Waiter;
use crate::broker::Broker;
use crate::caller::Caller;
use crate::entry::{DeliveryError, DeliveryOutcome};
use crate::group::Reply;
use crate::publish::{
    Publish, PublishCall, PublishOutcome, PublishOutcomes, PublishRefused, PublishTargets, PublishVerdict,
};

/// Bytes of an entry of acknowledgements, about: others go into the next one.
const MOST_BYTES: usize = 256 << 10;

/// What is to take effect together.
#[derive(Debug, Default)]
pub struct LocalTransaction {
    publishes: Vec<Publish>,
    /// What is settled, by shard.
    settled: Vec<(ShardId, Gathered)>,
}

/// The commit of a [`LocalTransaction`]. It is on its way whether this is asked or dropped.
#[derive(Debug)]
#[must_use = "the commit is answered through it"]
pub struct CommittingTransaction {
    published: Vec<PublishOutcomes>,
    settled: Vec<Reply<Result<(), ShardFailure>>>,
}

/// What a shard gets of a transaction.
pub(crate) struct ShardCommit<'a> {
    /// Publishes that have targets in it.
    pub(crate) publishes: Vec<(&'a Publish, Arc<PublishCall>)>,
    /// Entries of deliveries, and what waits for them.
    pub(crate) settled: Vec<(Vec<u8>, Waiter)>,
}

impl LocalTransaction {
    /// Adds batches for their targets.
    pub fn publish(&mut self, publish: Publish) {
        self.publishes.push(publish);
    }

    /// Adds messages that their consumer is done with. What the owner does not have is passed over.
    pub fn settle(
        &mut self,
        target: QueueTarget,
        owner: QueueOwner,
        offsets: impl IntoIterator<Item = Range<u64>>,
    ) {
        let at = self.settled.iter().position(|(shard, _)| *shard == target.shard).unwrap_or_else(|| {
            self.settled.push((target.shard, Gathered::default()));
            self.settled.len() - 1
        });
        let change = Change::Settled(owner.stored(), Settlement::Acknowledged);
        self.settled[at].1.add(target.subscription(), change, offsets);
    }

    /// Where what it publishes goes.
    pub fn targets(&self) -> impl Iterator<Item = &PublishTargets> {
        self.publishes.iter().map(|publish| &publish.targets)
    }

    /// The shards that it concerns, in order.
    fn shards(&self) -> Vec<ShardId> {
        let published = self.publishes.iter().flat_map(|publish| publish.targets.shards());
        let mut shards: Vec<_> = published.chain(self.settled.iter().map(|(shard, _)| *shard)).collect();
        shards.sort_unstable();
        shards.dedup();
        shards
    }
}

impl Broker {
    /// Has a transaction take effect. What it is in one shard goes into one block of the shard's journal, as far as that has room (a megabyte): after
    /// a crash all of it has taken effect or nothing, and no reader sees a part. Call [`flush`](Self::flush) when no more comes in this turn.
    ///
    /// It does not undo: a queue may take what another one refuses, and shards are not bound to one another.
    ///
    /// # Errors
    /// See [`PublishRefused`]; nothing of it takes effect then.
    pub fn commit(
        &self,
        caller: &Caller,
        mut transaction: LocalTransaction,
    ) -> Result<CommittingTransaction, ErrorAbout<PublishRefused>> {
        transaction.publishes.iter().try_for_each(|publish| publish.check(caller))?;
        let shards = transaction.shards();
        let mut settled = std::mem::take(&mut transaction.settled);
        let calls: Vec<_> = transaction.publishes.iter().map(PublishCall::new).collect();
        let mut committing = CommittingTransaction { published: Vec::new(), settled: Vec::new() };
        for id in shards {
            let all = transaction.publishes.iter().zip(&calls);
            let here = all.filter(|(publish, _)| publish.targets.shards().any(|shard| shard == id));
            let publishes = here.map(|(publish, call)| (publish, call.clone())).collect();
            let gathered = settled.iter_mut().filter(|(shard, _)| *shard == id);
            let bodies = gathered.flat_map(|(_, gathered)| bodies(gathered)).collect();
            let settled = committing.wait_for(bodies);
            self.commit_in(id, ShardCommit { publishes, settled });
        }
        let outcomes = transaction.publishes.iter().zip(calls);
        committing.published =
            outcomes.map(|(publish, call)| PublishOutcomes::new(call, publish.targets.clone())).collect();
        Ok(committing)
    }

    fn commit_in(&self, id: ShardId, commit: ShardCommit<'_>) {
        match self.shard(id) {
            Some(shard) => shard.append_together(commit),
            None => commit.refuse(id, ShardFailure::NotLeader),
        }
    }
}

impl ShardCommit<'_> {
    /// Answers all of it with an error.
    pub(crate) fn refuse(self, shard: ShardId, why: ShardFailure) {
        let mut wakes = WakeBatch::default();
        self.publishes.iter().for_each(|(publish, call)| publish.refuse(shard, call, why.into()));
        self.settled.into_iter().for_each(|(_, waiter)| waiter.fail(why, &mut wakes));
        wakes.deliver();
    }
}

impl CommittingTransaction {
    fn wait_for(&mut self, bodies: Vec<Vec<u8>>) -> Vec<(Vec<u8>, Waiter)> {
        let waited = bodies.into_iter().map(|body| {
            let (replier, reply) = Reply::pair();
            self.settled.push(reply);
            let waiter = Waiter::then(
                move |outcome: Result<DeliveryOutcome, DeliveryError>, wakes: &mut WakeBatch| {
                    let failure = match outcome {
                        Err(DeliveryError::Shard(why)) => Err(why),
                        Ok(_) | Err(DeliveryError::Refused { .. }) => Ok(()),
                    };
                    replier.send(failure, wakes);
                },
            );
            (body, waiter)
        });
        waited.collect()
    }

    /// Waits until all of it has taken effect, and tells what became of each publish, counted from 0. A target that is gone refuses nothing.
    ///
    /// # Errors
    /// The first refusal, once all is decided: the rest has taken effect.
    pub async fn done(
        self,
        mut each: impl FnMut(usize, &PublishOutcome),
    ) -> Result<(), ErrorAbout<AppendError>> {
        let mut done = Ok(());
        for (number, mut outcomes) in self.published.into_iter().enumerate() {
            while let Some(outcome) = outcomes.next().await {
                each(number, &outcome);
                if let PublishVerdict::Refused(error) = outcome.verdict() {
                    done = done.and(Err(error));
                }
            }
        }
        for settled in self.settled {
            done = done.and(settled.await.map_err(ErrorAbout::from));
        }
        done
    }
}

/// Entries' bodies of what was gathered.
fn bodies(gathered: &mut Gathered) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    while !gathered.is_empty() {
        let mut body = Vec::new();
        let mut writer = OperationsWriter::new(&mut body, false);
        let written = gathered.write(&mut writer, MOST_BYTES, |_, _| {});
        gathered.remove(written);
        bodies.push(body);
    }
    bodies
}
