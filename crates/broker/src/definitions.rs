//! The driver of definitions: what the catalog's shard has decided is carried to the shards concerned, and shown when they
//! all have it.
//!
//! ```text
//!   topic created (shard 0) ─► partitions created (each shard) ─► all applied ─► shown, answered
//!   topic deleted (shard 0) ─► hidden ─► partitions deleted (each shard) ─► all applied ─► answered
//! ```
//!
//! Each step is started by the thread that applied the one before. A step that fails, or is lost with the process, is made up
//! for by [`Definitions::reconcile`], which compares the shards with the catalog; every step may be repeated.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use sabir_base::wake::WakeBatch;
use sabir_journal::Priority;
use sabir_model::{Durability, PartitionId, ShardFailure, ShardId, Term, TopicConfig, TopicError, TopicId};
use tracing::warn;

use crate::answer::{Answer, EntryReply, Waiter};
use crate::catalog::{CatalogView, Partition, Topic};
use crate::entry::{
    Body, PartitionSettings, PartitionsConfigured, PartitionsCreated, PartitionsDeleted, TopicConfigured,
    TopicDeleted,
};
use crate::queue::{ClosedQueue, ExclusiveOwners};
use crate::shard::{Leading, Shard};
use crate::state::{EntryOutcome, Outcome};
use crate::survey::ShardsError;
use crate::topics::Admitted;
use crate::traffic::TrafficBook;

/// What an entry about a topic comes to.
type TopicOutcome = Result<Arc<Topic>, TopicError>;

/// Waits until every shard concerned has a change of a topic.
pub(crate) type TopicAnswer = Answer<TopicOutcome>;

/// Partitions named by one entry.
const BATCH: usize = 4096;

/// Carries definitions from the catalog to the shards.
pub(crate) struct Definitions {
    /// By number; the first is the catalog's.
    shards: Vec<Arc<Shard>>,
    view: ArcSwap<CatalogView>,
    pub(crate) traffic: Arc<TrafficBook>,
    pub(crate) exclusive: ExclusiveOwners,
    /// Held while the view is changed.
    changing: Mutex<()>,
    /// Whether a step failed.
    unsettled: AtomicBool,
}

/// What the shards are to be told of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TopicStep {
    /// It has these partitions.
    Create,
    /// It has another configuration.
    Configure,
    /// It is gone.
    Delete,
}

/// The call that waits for a definition's outcome. If the step that should give it ends without (it panicked, or was never run), the shards are
/// compared with the catalog again, and the call is told that it takes longer.
pub(crate) struct Unanswered {
    definitions: Arc<Definitions>,
    reply: Option<Arc<EntryReply>>,
    /// What it adds to the catalog: counted here until it is counted there.
    _admitted: Option<Admitted>,
}

impl Unanswered {
    pub(crate) fn answer(mut self, outcome: TopicOutcome, wakes: &mut WakeBatch) {
        if let Some(reply) = self.reply.take() {
            reply.answer(outcome.into_outcome(), wakes);
        }
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            self.definitions.unsettle();
            let mut wakes = WakeBatch::default();
            reply.answer(Outcome::Failed(ShardFailure::Timeout), &mut wakes);
            wakes.deliver();
        }
    }
}

/// What is done once every shard concerned has answered.
type Finish = Box<dyn FnOnce(Result<(), ShardFailure>, &mut WakeBatch) + Send>;

/// Waits for several entries.
struct Join {
    left: AtomicUsize,
    failed: Mutex<Option<ShardFailure>>,
    finish: Mutex<Option<Finish>>,
}

impl Join {
    fn one_done(&self, done: Result<(), ShardFailure>, wakes: &mut WakeBatch) {
        if let Err(failure) = done {
            self.failed.lock().get_or_insert(failure);
        }
        if self.left.fetch_sub(1, SeqCst) == 1
            && let Some(finish) = self.finish.lock().take()
        {
            finish(self.failed.lock().map_or(Ok(()), Err), wakes);
        }
    }
}

impl Definitions {
    pub(crate) fn new(shards: Vec<Arc<Shard>>, traffic: Arc<TrafficBook>) -> Arc<Self> {
        Arc::new(Self {
            shards,
            view: ArcSwap::default(),
            traffic,
            exclusive: ExclusiveOwners::default(),
            changing: Mutex::new(()),
            unsettled: AtomicBool::new(false),
        })
    }

    pub(crate) fn view(&self) -> Arc<CatalogView> {
        self.view.load_full()
    }

    /// The same, for a short look.
    pub(crate) fn shown(&self) -> Guard<Arc<CatalogView>> {
        self.view.load()
    }

    fn catalog(&self) -> &Arc<Shard> {
        &self.shards[0]
    }

    /// Proposes a change of a topic; the answer comes when every shard concerned has it.
    pub(crate) fn change<B: Body<Outcome = TopicOutcome>>(
        self: &Arc<Self>,
        body: &B,
        priority: Priority,
        admitted: Option<Admitted>,
    ) -> TopicAnswer {
        let answer = Answer::default();
        let (definitions, waits) = (self.clone(), self.unanswered(answer.0.clone(), admitted));
        let step = match B::KIND {
            crate::entry::kind::TOPIC_DELETED => TopicStep::Delete,
            crate::entry::kind::TOPIC_CONFIGURED => TopicStep::Configure,
            _ => TopicStep::Create,
        };
        let decided = move |outcome: TopicOutcome, wakes: &mut WakeBatch| match outcome {
            Ok(topic) => definitions.carry(step, topic, waits, wakes),
            Err(error) => waits.answer(Err(error), wakes),
        };
        self.catalog().propose(priority, body, Waiter::then(decided));
        answer
    }

    /// Has topics follow the node's defaults in all that is not their own.
    pub(crate) fn follow(self: &Arc<Self>, defaults: &TopicConfig, durability: Durability) {
        let topics: Vec<Arc<Topic>> = self.catalog().state.read().catalog.topics().cloned().collect();
        for topic in topics {
            let config = topic.config.clone().inheriting(defaults);
            if let Err(error) = TopicConfig::clone(&config).validate(durability) {
                warn!(topic = &*topic.name, %error, "a setting of the topic does not fit the broker's");
            }
            if config != topic.config {
                let body = TopicConfigured { id: topic.id, version: Some(topic.version), config };
                // No call waits for it; one that is lost is proposed at the next start.
                drop(self.change(&body, Priority::Reserve, None));
            }
        }
        self.flush();
    }

    /// Sends what was proposed on its way.
    pub(crate) fn flush(&self) {
        self.catalog().submit();
    }

    /// Has the queues of a shard deleted that are to go with their last consumers, or if no client uses them, and have none any more.
    pub(crate) fn delete_deserted(self: &Arc<Self>, shard: &Shard) {
        let deserted = shard.queues.close_deserted();
        if deserted.is_empty() {
            return;
        }
        for queue in deserted {
            let closed = ClosedQueue::of(shard, queue);
            let topic = shard.state.read().partition(queue).map(|kept| kept.topic);
            if let Some(id) = topic {
                let nobody = self.unanswered(Arc::default(), None);
                self.delete_closed(id, nobody, closed);
            }
        }
        self.flush();
    }

    /// Proposes to delete a queue that takes no consumers any more.
    pub(crate) fn delete_closed(self: &Arc<Self>, id: TopicId, waits: Unanswered, closed: ClosedQueue) {
        let definitions = self.clone();
        let decided = move |outcome: TopicOutcome, wakes: &mut WakeBatch| match outcome {
            Ok(topic) => {
                closed.goes();
                definitions.carry(TopicStep::Delete, topic, waits, wakes);
            }
            Err(error) => {
                drop(closed);
                // It may be sealed, and is to be deleted then.
                if let TopicError::Shard(_) = error {
                    definitions.unsettle();
                }
                waits.answer(Err(error), wakes);
            }
        };
        self.catalog().propose(Priority::Reserve, &TopicDeleted { id }, Waiter::then(decided));
    }

    /// Whether there is such a topic.
    pub(crate) fn topic(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.catalog().state.read().catalog.topic(id).cloned()
    }

    pub(crate) fn shard_of(&self, partition: &Partition) -> Option<&Arc<Shard>> {
        self.shards.get(partition.shard.0 as usize)
    }

    pub(crate) fn unanswered(
        self: &Arc<Self>,
        reply: Arc<EntryReply>,
        admitted: Option<Admitted>,
    ) -> Unanswered {
        Unanswered { definitions: self.clone(), reply: Some(reply), _admitted: admitted }
    }

    fn carry(self: &Arc<Self>, step: TopicStep, topic: Arc<Topic>, waits: Unanswered, wakes: &mut WakeBatch) {
        #[cfg(any(test, feature = "testing"))]
        crate::panicking::panic_if_wanted("carry", topic.name.as_bytes());
        if step == TopicStep::Delete {
            self.hide(topic.id);
            self.forget_queue(&topic);
        }
        let definitions = self.clone();
        let told = topic.clone();
        let finish: Finish = Box::new(move |result, wakes| {
            if result.is_err() {
                definitions.unsettle();
            } else if step != TopicStep::Delete {
                definitions.show(&topic);
            }
            #[cfg(any(test, feature = "testing"))]
            crate::panicking::panic_if_wanted("finish", topic.name.as_bytes());
            waits.answer(result.map(|()| topic).map_err(TopicError::from), wakes);
        });
        self.tell(step, &told, finish, wakes);
    }

    /// Tells each shard concerned its part of a step.
    fn tell(&self, step: TopicStep, topic: &Topic, finish: Finish, wakes: &mut WakeBatch) {
        let mut by_shard = BTreeMap::<ShardId, Vec<(u32, PartitionId)>>::new();
        for partition in &topic.partitions {
            let number = partition.index as u32;
            by_shard.entry(partition.shard).or_default().push((number, partition.id));
        }
        let entries = by_shard.values().map(|all| all.len().div_ceil(BATCH)).sum();
        let join = Arc::new(Join {
            left: AtomicUsize::new(entries),
            failed: Mutex::new(None),
            finish: Mutex::new(Some(finish)),
        });
        for (shard, partitions) in by_shard {
            let Some(shard) = self.shards.get(shard.0 as usize) else {
                join.one_done(Err(ShardFailure::StorageError), wakes);
                continue;
            };
            for batch in partitions.chunks(BATCH) {
                let join = join.clone();
                let waiter = Waiter::then(move |done, wakes| join.one_done(done, wakes));
                propose(shard, step, topic, batch, waiter);
            }
            shard.submit();
        }
    }

    /// Shows a topic as it was when its last step began, unless it has changed or gone since.
    fn show(&self, topic: &Arc<Topic>) {
        let _changing = self.changing.lock();
        let is_current = self.catalog().state.read().catalog.topic(topic.id).is_some();
        let view = self.view.load();
        let shown = view.topic_by_id(topic.id).map_or(0, |shown| shown.version);
        if is_current && shown < topic.version {
            topic.traffic.enter(&self.traffic, &topic.name);
            self.note_queue(topic);
            let mut view = CatalogView::clone(&view);
            view.show(topic);
            self.view.store(Arc::new(view));
        }
    }

    /// A queue that goes if it is not used for some time is counted from now on, and consumed at its rate, before it is shown.
    fn note_queue(&self, topic: &Topic) {
        let Some(queue) = topic.config.queue() else { return };
        for partition in &topic.partitions {
            if let Some(shard) = self.shards.get(partition.shard.0 as usize) {
                shard.queues.lives(partition.id, queue.expires_ms, shard.now_ms());
                shard.queues.set_rate(partition.id, queue.rate_limit());
            }
        }
    }

    fn forget_queue(&self, topic: &Topic) {
        for partition in topic.partitions.iter().filter(|_| topic.config.queue().is_some()) {
            let shard = self.shards.get(partition.shard.0 as usize);
            shard.into_iter().for_each(|shard| shard.queues.gone(partition.id));
        }
    }

    pub(crate) fn hide(&self, id: TopicId) {
        let _changing = self.changing.lock();
        let mut view = CatalogView::clone(&self.view.load());
        view.hide(id);
        self.view.store(Arc::new(view));
        self.exclusive.forget(id);
    }

    /// For shards to tell when this node leads them.
    pub(crate) fn leading(self: &Arc<Self>) -> Weak<dyn Leading> {
        let leading: Arc<dyn Leading> = self.clone();
        Arc::downgrade(&leading)
    }

    /// Has the shards compared with the catalog again.
    pub(crate) fn unsettle(&self) {
        self.unsettled.store(true, SeqCst);
    }

    /// Whether a step has failed since the last reconciliation.
    pub(crate) fn take_unsettled(&self) -> bool {
        self.unsettled.swap(false, SeqCst)
    }

    /// Makes the shards agree with the catalog, and shows what they have.
    ///
    /// # Errors
    /// A shard has what the catalog cannot explain; then nothing was changed.
    pub(crate) fn reconcile(self: &Arc<Self>) -> Result<(), ShardsError> {
        // What seems to be lacking may only not have taken effect.
        let torn = |shard: &Arc<Shard>| !shard.state.read().is_whole();
        if self.catalog().is_stopped() || self.shards.iter().any(torn) {
            return Ok(());
        }
        let Known { partitions: known, topics, next } = Known::of(&self.shards);
        self.delete_strays(strays(&known, &topics, next)?);
        let mut ready = Vec::new();
        for topic in topics {
            match self.missing(&topic, &known) {
                None if self.is_sealed(&topic) => {
                    drop(self.change(&TopicDeleted { id: topic.id }, Priority::Reserve, None));
                }
                None => ready.push(topic),
                Some(step) => {
                    // No call waits for it here; a failure is tried again.
                    let nobody = self.unanswered(Arc::default(), None);
                    let mut wakes = WakeBatch::default();
                    self.carry(step, topic, nobody, &mut wakes);
                    wakes.deliver();
                }
            }
        }
        self.flush();
        self.show_all(ready);
        Ok(())
    }

    fn show_all(&self, topics: Vec<Arc<Topic>>) {
        let _changing = self.changing.lock();
        let mut view = CatalogView::clone(&self.view.load());
        let state = self.catalog().state.read();
        // A topic may have been deleted by a step that was lost before it was hidden.
        let gone: Vec<TopicId> =
            view.topics().map(|topic| topic.id).filter(|id| state.catalog.topic(*id).is_none()).collect();
        gone.into_iter().for_each(|id| view.hide(id));
        for topic in topics.iter().filter(|topic| state.catalog.topic(topic.id).is_some()) {
            if view.topic_by_id(topic.id).is_none_or(|shown| shown.version < topic.version) {
                topic.traffic.enter(&self.traffic, &topic.name);
                view.show(topic);
                self.note_queue(topic);
            }
        }
        drop(state);
        self.view.store(Arc::new(view));
    }

    /// What the shards of a topic have not been told yet.
    fn missing(&self, topic: &Topic, known: &[FxHashSet<PartitionId>]) -> Option<TopicStep> {
        let has = |id: &PartitionId, shard: ShardId| {
            known.get(shard.0 as usize).is_some_and(|known| known.contains(id))
        };
        if !topic.partitions.iter().all(|partition| has(&partition.id, partition.shard)) {
            return Some(TopicStep::Create);
        }
        let stale = topic.partitions.iter().any(|partition| {
            let shard = &self.shards[partition.shard.0 as usize];
            let state = shard.state.read();
            let known = state.partition(partition.id).map(|known| known.settings.clone());
            known
                .is_some_and(|known| known.version < topic.version && known != settings(topic, known.version))
        });
        stale.then_some(TopicStep::Configure)
    }

    /// Deletes what is left of deleted topics, by shard.
    fn delete_strays(self: &Arc<Self>, strays: Vec<Vec<PartitionId>>) {
        for (shard, strays) in self.shards.iter().zip(strays) {
            for batch in strays.chunks(BATCH) {
                let body = PartitionsDeleted { partitions: batch.to_vec() };
                let (id, definitions) = (shard.id, self.clone());
                let told = move |done: Result<(), ShardFailure>, _: &mut WakeBatch| {
                    if let Err(error) = done {
                        warn!(shard = %id, %error, "deleted partitions are still there");
                        definitions.unsettle();
                    }
                };
                shard.propose(Priority::Reserve, &body, Waiter::then(told));
            }
            shard.submit();
        }
    }
}

/// What an earlier leader decided, and did not carry to all shards, is carried on.
impl Leading for Definitions {
    fn led(self: Arc<Self>, _: Term) {
        self.unsettle();
    }

    fn laid_down(self: Arc<Self>) {}
}

/// What the shards and the catalog have.
struct Known {
    /// By shard.
    partitions: Vec<FxHashSet<PartitionId>>,
    topics: Vec<Arc<Topic>>,
    /// The first id that the catalog never gave.
    next: PartitionId,
}

impl Known {
    /// First the shards, then the catalog: what a shard has and the catalog lacks was deleted.
    fn of(shards: &[Arc<Shard>]) -> Self {
        let partitions = shards.iter().map(|shard| partitions_of(shard)).collect();
        let state = shards[0].state.read();
        Self {
            partitions,
            topics: state.catalog.topics().cloned().collect(),
            next: state.catalog.next_partition(),
        }
    }
}

/// Checks that the catalog can explain what the shards have, and changes nothing. One that may still lack what an earlier leader
/// committed says nothing yet; [`Definitions::reconcile`] sees to those.
///
/// # Errors
/// It cannot.
pub(crate) fn check(shards: &[Arc<Shard>]) -> Result<(), ShardsError> {
    let lacks = |shard: &Arc<Shard>| {
        let state = shard.state.read();
        state.applied < shard.journal.last() || !state.is_whole()
    };
    if shards.iter().any(lacks) {
        return Ok(());
    }
    let Known { partitions, topics, next } = Known::of(shards);
    strays(&partitions, &topics, next).map(drop)
}

/// By shard, what it has of topics that were deleted: the catalog gave those ids and has them no more. An id that it never gave proves
/// that the catalog is not the one which made the partition.
fn strays(
    known: &[FxHashSet<PartitionId>],
    topics: &[Arc<Topic>],
    next: PartitionId,
) -> Result<Vec<Vec<PartitionId>>, ShardsError> {
    let partitions = topics.iter().flat_map(|topic| &topic.partitions);
    let homes: FxHashMap<PartitionId, ShardId> =
        partitions.map(|partition| (partition.id, partition.shard)).collect();
    let mut strays = vec![Vec::new(); known.len()];
    for (number, known) in known.iter().enumerate() {
        let shard = ShardId(number as u32);
        for &id in known {
            match homes.get(&id) {
                Some(home) if *home == shard => {}
                Some(&home) => {
                    return Err(ShardsError::MisplacedPartition { shard, partition: id.0, home });
                }
                None if id < next => strays[number].push(id),
                None => return Err(ShardsError::UnknownPartition { shard, partition: id.0 }),
            }
        }
    }
    Ok(strays)
}

fn settings(topic: &Topic, version: u64) -> PartitionSettings {
    PartitionSettings::of(&topic.config, version)
}

fn partitions_of(shard: &Shard) -> FxHashSet<PartitionId> {
    shard.state.read().partitions.ids().collect()
}

fn propose(shard: &Shard, step: TopicStep, topic: &Topic, partitions: &[(u32, PartitionId)], waiter: Waiter) {
    let ids = || partitions.iter().map(|(_, id)| *id).collect();
    let settings = settings(topic, topic.version);
    match step {
        TopicStep::Create => {
            let epoch_base = topic.partitions.first().map_or(0, |first| first.epoch_base);
            let partitions = partitions.to_vec();
            let body = PartitionsCreated { topic: topic.id, epoch_base, settings, partitions };
            shard.propose(Priority::Reserve, &body, waiter);
        }
        TopicStep::Configure => {
            shard.propose(Priority::Reserve, &PartitionsConfigured { settings, partitions: ids() }, waiter);
        }
        TopicStep::Delete => {
            shard.propose(Priority::Reserve, &PartitionsDeleted { partitions: ids() }, waiter);
        }
    }
}
