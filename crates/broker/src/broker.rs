//! The handle to a broker.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::task::Poll;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sabir_base::clock::Clock;
use sabir_base::node_time::NodeClock;
use sabir_journal::{Priority, TailBudget};
use sabir_model::{
    AppendError, ErrorAbout, FrontendNo, LeaderEpoch, NodeId, Offset, ProducerId, ProducerIdError, ReadError,
    ShardFailure, ShardId, Term, TopicId,
};
use tracing::{error, warn};

use crate::answer::{AppendCall, Sleeper};
use crate::append::{Append, Appending};
use crate::caller::Caller;
use crate::catalog::CatalogView;
use crate::dead_letter::RedriveDriver;
use crate::definitions::Definitions;
use crate::entry::ProducerIdsAllocated;
use crate::exchange::Exchanges;
use crate::group::{GroupDrivers, GroupId, GroupListing, GroupScope, Groups};
use crate::housekeeper::Housekeeper;
use crate::level::FormatLevel;
use crate::lock::DataLock;
use crate::open::{end_run, random_id};
use crate::options::BrokerOptions;
use crate::publish::{Publish, PublishCall, PublishOutcomes, PublishRefused, PublishTargets};
use crate::queue::Queues;
use crate::read::{
    Damage, EpochEnd, Fetched, FoundOffset, OffsetSpec, READ_FOR, ReadGrant, ReadMemory, ReadRoom, ReadSpec,
    ReadTarget, UNHELD, hold,
};
use crate::shard::Shard;
use crate::stats::{PartitionStats, ShardStats, Stats};
use crate::timer::TimerDriver;
use crate::topics::OnTheWay;
use crate::traffic::Traffic;
use crate::watch::DataWatch;

/// Producer ids taken from the catalog at a time.
const PRODUCER_IDS: u32 = 1000;
/// How long a shutdown waits for what is under way.
const DRAIN: Duration = Duration::from_secs(5);
/// How long it waits for the journals to be sealed, and their checkpoints.
const SEAL: Duration = Duration::from_secs(10);
/// How often it is looked meanwhile whether the disks answer.
const TELL: Duration = Duration::from_millis(100);
/// How often it is looked whether a full disk has space again.
const SPACE_LOOK: Duration = Duration::from_millis(100);

/// A running broker; clones are the same one. All methods may be called from any thread.
#[derive(Clone)]
pub struct Broker {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) options: BrokerOptions,
    pub(crate) clock: Arc<NodeClock>,
    pub(crate) cluster: TopicId,
    /// By number; the first holds the catalog.
    pub(crate) shards: Vec<Arc<Shard>>,
    /// The memory of the newest blocks of all shards.
    pub(crate) tail: Arc<TailBudget>,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) groups: GroupDrivers,
    pub(crate) queues: Queues,
    pub(crate) exchanges: Exchanges,
    pub(crate) redrives: Arc<RedriveDriver>,
    pub(crate) timers: Arc<TimerDriver>,
    pub(crate) housekeeper: Housekeeper,
    pub(crate) on_the_way: Arc<OnTheWay>,
    /// A turn at changing configurations.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// Producer ids allocated and not given out: the next one, and the one behind the last.
    pub(crate) producer_ids: Mutex<(i64, i64)>,
    /// The projections of front ends, by the numbers that the catalog gave them.
    pub(crate) projections: Vec<(FrontendNo, &'static str)>,
    /// Given back last.
    pub(crate) lock: Mutex<Option<DataLock>>,
}

impl Broker {
    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.inner.options.node_id
    }

    /// A random id that the data directory was given when it was made.
    pub fn cluster_id(&self) -> TopicId {
        self.inner.cluster
    }

    /// A random id, such as a topic is made with.
    pub fn fresh_topic_id(&self) -> TopicId {
        random_id()
    }

    /// Which stored forms are written in the data directory.
    pub fn format_level(&self) -> FormatLevel {
        self.catalog_shard().state.read().catalog.level()
    }

    /// What the broker was opened with; `data_shards` is the number in use.
    pub fn options(&self) -> &BrokerOptions {
        &self.inner.options
    }

    /// The node's time, in milliseconds since the epoch: the system clock's, but for its jumps.
    pub fn now_ms(&self) -> i64 {
        self.inner.clock.now_ms()
    }

    /// What the machine's wall clock shows, in milliseconds since the epoch: what is compared with the clocks of others. It may jump,
    /// and [`now_ms`](Self::now_ms) follows it slowly then.
    pub fn wall_ms(&self) -> i64 {
        self.inner.clock.wall_ms()
    }

    /// The topics that take writes, as of now.
    pub fn catalog(&self) -> Arc<CatalogView> {
        self.inner.definitions.view()
    }

    /// The consumer groups, for a caller to work with its own: those of its front end in its namespace. The operator's, if it asks for no
    /// front end, are those of the one that had groups before they named any.
    pub fn groups(&self, caller: &Caller) -> Groups {
        let front_end = match caller.by() {
            Some(name) if self.options().unnamed_groups != Some(name) => self.front_end_number(name),
            _ => Some(FrontendNo::NONE),
        };
        self.inner.groups.of(GroupScope { namespace: caller.namespace().clone(), front_end })
    }

    /// The groups of all callers, by id.
    pub fn all_groups(&self) -> Vec<GroupListing> {
        self.inner.groups.list()
    }

    /// About how many groups there are; exact while none is being made.
    pub fn group_count(&self) -> usize {
        self.inner.groups.count()
    }

    /// Whether a shard has groups, or is the home of the default namespace.
    pub fn has_groups(&self, shard: ShardId) -> bool {
        self.inner.groups.are_in(shard)
    }

    /// The exchanges, and where messages go that are published to them.
    pub fn exchanges(&self) -> &Exchanges {
        &self.inner.exchanges
    }

    /// The name of the front end whose group it is; none where nothing says it.
    pub fn owner_of(&self, group: &GroupId) -> Option<String> {
        if group.front_end == FrontendNo::NONE {
            return self.options().unnamed_groups.map(str::to_owned);
        }
        let state = self.catalog_shard().state.read();
        state.catalog.front_end_name(group.front_end).map(str::to_owned)
    }

    /// The term a shard is led in, and whether this node leads it; `None` for a shard that does not exist.
    pub fn leadership(&self, shard: ShardId) -> Option<(Term, bool)> {
        let replicator = &self.shard(shard)?.replicator;
        Some((replicator.term(), replicator.is_leader()))
    }

    pub(crate) fn shard(&self, shard: ShardId) -> Option<&Arc<Shard>> {
        self.inner.shards.get(shard.0 as usize)
    }

    pub(crate) fn catalog_shard(&self) -> &Arc<Shard> {
        &self.inner.shards[0]
    }

    /// Copies batches into the open blocks at once, in order. Call [`flush`](Self::flush) when no more come in this turn.
    pub fn append(&self, items: Vec<Append>) -> Appending {
        let call = AppendCall::new(items.len());
        let mut slot = 0;
        for run in items.chunk_by(|a, b| a.shard == b.shard) {
            match self.shard(run[0].shard) {
                Some(shard) => shard.append(run, &call, slot),
                None => call.refuse(slot, run, AppendError::UnknownPartition),
            }
            slot += run.len() as u32;
        }
        Appending::new(call)
    }

    /// Copies batches into the open blocks of all shards that the targets are in, once in each, and answers for each target when its shard
    /// has decided. Call [`flush`](Self::flush) when no more come in this turn, and await [`room`](Self::room) where there is
    /// [none](Self::crowded_by).
    ///
    /// It is not atomic: a shard may take what another one refuses.
    ///
    /// # Errors
    /// See [`PublishRefused`].
    pub fn publish(
        &self,
        caller: &Caller,
        publish: &Publish,
    ) -> Result<PublishOutcomes, ErrorAbout<PublishRefused>> {
        publish.check(caller)?;
        let call = PublishCall::new(publish);
        for id in publish.targets.shards() {
            match self.shard(id) {
                Some(shard) => shard.publish(publish, &call),
                // That is no target that is gone: the data directory has more shards than this.
                None => publish.refuse(id, &call, ShardFailure::NotLeader.into()),
            }
        }
        Ok(PublishOutcomes::new(call, publish.targets.clone()))
    }

    /// A shard of these targets in whose open blocks too much waits to be written, if there is one.
    pub fn crowded_by(&self, targets: &PublishTargets) -> Option<ShardId> {
        targets.shards().find(|id| self.shard(*id).is_some_and(|shard| !shard.has_room()))
    }

    /// A shard of these targets whose disk has no space for what is published, if there is one: a front end that holds its publishers back rather than
    /// have them refused awaits [`space`](Self::space) there.
    pub fn full_by(&self, targets: &PublishTargets) -> Option<ShardId> {
        targets.shards().find(|id| self.shard(*id).is_some_and(|shard| shard.is_full()))
    }

    /// Waits while the disk of a shard has no space for what is published.
    pub async fn space(&self, shard: ShardId) {
        while self.shard(shard).is_some_and(|shard| shard.is_full()) {
            tokio::time::sleep(SPACE_LOOK).await;
        }
    }

    /// Sends the open blocks on their way, if the group-commit rule lets them; call it at the end of a socket read.
    pub fn flush(&self) {
        self.inner.shards.iter().for_each(|shard| shard.flush_all());
    }

    /// A shard of these in whose open blocks too much waits to be written, if there is one: a front end awaits
    /// [`room`](Self::room) there before it appends them.
    #[inline]
    pub fn crowded(&self, items: &[Append]) -> Option<ShardId> {
        let full = |item: &&Append| self.shard(item.shard).is_some_and(|shard| !shard.has_room());
        items.iter().find(full).map(|item| item.shard)
    }

    /// Waits while too much waits in the open blocks of a shard to be written. It says nothing of what is stored, so that no caller is named.
    pub async fn room(&self, shard: ShardId) {
        let Some(shard) = self.shard(shard) else { return };
        let sleeper = Arc::new(Mutex::new(Sleeper::default()));
        std::future::poll_fn(|cx| {
            let mut asleep = sleeper.lock();
            // A task that was not woken since is still on the shard's list.
            let listed = asleep.is_asleep();
            asleep.sleep(cx);
            drop(asleep);
            if !listed {
                shard.wait_for_room(&sleeper);
            }
            // Looked at last: room that was made before the task was on the list woke no task.
            if shard.has_room() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Reads whole batches from the one that holds `from` on, about `max_bytes` of them; with `min_one` the first whatever
    /// its size. Ready at once unless the bytes must come from the disk, from which they are read for [`READ_FOR`] at most, and for as
    /// long as the first batch takes; or that is large and waits for memory, which it holds until its slice is let go of.
    ///
    /// # Errors
    /// No such partition, an offset outside [log start, high watermark], a corrupt batch, the disk.
    pub async fn read(
        &self,
        target: ReadTarget,
        from: Offset,
        max_bytes: usize,
        min_one: bool,
    ) -> Result<Fetched, ErrorAbout<ReadError>> {
        let (partition, until) = (target.partition, Instant::now() + READ_FOR);
        let spec = ReadSpec { partition, from, max_bytes, min_one, until, unheld: UNHELD, owns: false };
        self.read_own(target, spec, None).await
    }

    /// The same for a reader that has memory for what it reads, and with a moment of its own from which on it is answered with what it has, for one of
    /// several reads that share their time.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_until(
        &self,
        target: ReadTarget,
        from: Offset,
        room: ReadRoom<'_>,
    ) -> Result<Fetched, ErrorAbout<ReadError>> {
        let (partition, unheld) = (target.partition, room.max_bytes.max(UNHELD));
        let ReadRoom { max_bytes, min_one, until, waits } = room;
        let spec = ReadSpec { partition, from, max_bytes, min_one, until, unheld, owns: false };
        let shard = self.shard_of(target)?;
        let read = shard.read(spec, None, waits).await;
        read.map_err(|error| self.failed(shard, target, error))
    }

    /// The same for a reader that has memory of the node's for the first batch, which holds it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_held(
        &self,
        target: ReadTarget,
        from: Offset,
        room: ReadRoom<'_>,
        grant: Box<dyn ReadGrant>,
    ) -> Result<Fetched, ErrorAbout<ReadError>> {
        let (partition, unheld) = (target.partition, room.max_bytes.max(UNHELD));
        let ReadRoom { max_bytes, min_one, until, .. } = room;
        let spec = ReadSpec { partition, from, max_bytes, min_one, until, unheld, owns: false };
        self.read_own(target, spec, Some(grant)).await
    }

    /// Reads for a reader that has no memory for it.
    pub(crate) async fn read_own(
        &self,
        target: ReadTarget,
        spec: ReadSpec,
        grant: Option<Box<dyn ReadGrant>>,
    ) -> Result<Fetched, ErrorAbout<ReadError>> {
        let shard = self.shard_of(target)?;
        let read = shard.read(spec, grant, &mut || {}).await;
        read.map_err(|error| self.failed(shard, target, error))
    }

    fn failed(&self, shard: &Shard, target: ReadTarget, error: ReadError) -> ErrorAbout<ReadError> {
        self.log_damage(shard);
        self.about(target, error)
    }

    /// Has reads hold memory of the node's for what is large. Before this is said nothing bounds them.
    pub fn hold_reads_in(&self, memory: &Arc<dyn ReadMemory>) {
        let say = |shard: &Arc<Shard>| shard.reads.memory.set(memory.clone());
        // The first to say so is heard.
        self.inner.shards.iter().for_each(|shard| drop(say(shard)));
    }

    /// Waits for memory for so many bytes of what is read, or made of that; none is given where nothing bounds it. The caller has none meanwhile.
    pub async fn hold_memory(&self, bytes: usize) -> Option<Box<dyn ReadGrant>> {
        let memory = self.inner.shards.first()?.reads.memory.get()?;
        hold(&**memory, bytes, || {}).await
    }

    /// The shard of a partition: a data directory has more of them than this program was told of only if it was tampered with.
    fn shard_of(&self, target: ReadTarget) -> Result<&Arc<Shard>, ReadError> {
        self.shard(target.shard).ok_or(ReadError::UnknownPartition)
    }

    /// An error of a read, with the partition by its topic's name, where that is still there.
    pub(crate) fn about(&self, target: ReadTarget, error: ReadError) -> ErrorAbout<ReadError> {
        let shard = self.shard(target.shard);
        let place = shard.and_then(|shard| {
            let state = shard.state.read();
            state.partition(target.partition).map(|kept| (kept.topic, kept.number))
        });
        let named = place.and_then(|(topic, number)| self.catalog().subject(topic, number));
        named.map_or_else(|| error.into(), |subject| ErrorAbout::new(error, subject))
    }

    /// The offset behind all that cannot be read, or is gone, as the record at `offset` is, so that a reader may pass over it at once.
    pub async fn unreadable_end(&self, target: ReadTarget, offset: Offset) -> Offset {
        let next = Offset(offset.0.saturating_add(1));
        let Some(shard) = self.shard(target.shard).cloned() else { return next };
        let look = move || shard.unreadable_end(target.partition, offset);
        tokio::task::spawn_blocking(look).await.unwrap_or(next)
    }

    /// Looks an offset up. Ready at once for [`OffsetSpec::Earliest`] and [`OffsetSpec::Latest`].
    ///
    /// # Errors
    /// No such partition, a corrupt batch, the disk.
    pub async fn offsets(
        &self,
        target: ReadTarget,
        spec: OffsetSpec,
    ) -> Result<FoundOffset, ErrorAbout<ReadError>> {
        let shard = self.shard_of(target)?;
        let found = shard.find_offset(target.partition, spec).await;
        found.inspect_err(|_| self.log_damage(shard)).map_err(|error| self.about(target, error))
    }

    /// Lets the tail caches of all shards hold so many bytes together from now on.
    pub fn resize_tail_cache(&self, bytes: usize) {
        self.inner.tail.resize(bytes);
        self.inner.shards.iter().for_each(|shard| shard.journal.shrink_reads());
    }

    /// Takes down that what was read of a partition makes no sense from an offset on: it is counted, logged and shown as damage that a read meets.
    pub fn damaged(&self, target: ReadTarget, offset: Offset, error: ReadError) {
        if let Some(shard) = self.shard(target.shard) {
            shard.damaged(target.partition, offset, error);
            self.log_damage(shard);
        }
    }

    /// Says which records cannot be read, by their topic's name.
    fn log_damage(&self, shard: &Shard) {
        for Damage { topic, partition, offset, cause } in shard.reads.damages.take_unlogged() {
            let known = self.catalog().topic_by_id(topic).map(|topic| topic.name.to_string());
            let topic = known.unwrap_or_else(|| topic.to_string());
            tracing::error!(shard = %shard.id, topic, partition, %offset, error = %cause, "records cannot be read");
        }
    }

    /// The end of the largest leader epoch of a partition that is not above `epoch`.
    ///
    /// # Errors
    /// No such partition.
    pub fn end_of_epoch(
        &self,
        target: ReadTarget,
        epoch: LeaderEpoch,
    ) -> Result<EpochEnd, ErrorAbout<ReadError>> {
        let shard = self.shard_of(target)?;
        let state = shard.state.read();
        // What cannot be read here is gone, or nothing is to be believed: nothing names it.
        let partition = state.readable(target.partition)?;
        let current = partition.epoch(shard.replicator.term());
        let end = partition.epochs.end(epoch, current, partition.next);
        let (epoch, end_offset) = end.unwrap_or((LeaderEpoch::UNKNOWN, Offset(-1)));
        Ok(EpochEnd { epoch, end_offset })
    }

    /// What a partition keeps: one short look, so that many may be asked for one after another.
    ///
    /// # Errors
    /// No such partition.
    pub fn partition_stats(&self, target: ReadTarget) -> Result<PartitionStats, ErrorAbout<ReadError>> {
        let shard = self.shard_of(target)?;
        let state = shard.state.read();
        let kept = state.readable(target.partition)?;
        Ok(PartitionStats::of(kept))
    }

    /// Bytes of the batches that a partition keeps.
    ///
    /// # Errors
    /// No such partition.
    pub fn partition_bytes(&self, target: ReadTarget) -> Result<u64, ErrorAbout<ReadError>> {
        let shard = self.shard_of(target)?;
        let state = shard.state.read();
        Ok(state.readable(target.partition)?.bytes)
    }

    /// Watches partitions for `min_bytes` of new records in all. Register it before reading, so that nothing is missed.
    pub fn watch(&self, targets: &[ReadTarget], min_bytes: usize) -> DataWatch {
        let place = |target: &ReadTarget| Some((self.shard(target.shard)?.clone(), target.partition));
        DataWatch::register(targets.iter().filter_map(place).collect(), min_bytes)
    }

    /// A producer id that was never given out before. No caller is refused one.
    ///
    /// # Errors
    /// The catalog's shard does not take writes.
    pub async fn allocate_producer_id(&self, _caller: &Caller) -> Result<ProducerId, ProducerIdError> {
        if let Some(id) = self.take_producer_id() {
            return Ok(id);
        }
        let body = ProducerIdsAllocated { count: PRODUCER_IDS };
        let first = self.catalog_shard().ask(Priority::Reserve, &body).await?;
        // Another call may have been quicker; what it brought is given up.
        *self.inner.producer_ids.lock() = (first.0 + 1, first.0 + i64::from(PRODUCER_IDS));
        Ok(first)
    }

    fn take_producer_id(&self) -> Option<ProducerId> {
        let mut ids = self.inner.producer_ids.lock();
        let id = ids.0;
        (id < ids.1).then(|| {
            ids.0 += 1;
            ProducerId(id)
        })
    }

    /// How many topics may have counters of their own, and what all others were given and gave together.
    pub fn other_traffic(&self) -> (usize, Arc<Traffic>) {
        let book = &self.inner.definitions.traffic;
        (book.most, book.other.clone())
    }

    /// Figures for metrics. Waits for no disk.
    pub fn stats(&self) -> Stats {
        let (view, kept) = (self.catalog(), self.inner.timers.kept());
        let shards = self.inner.shards.iter().map(|shard| {
            let kept_back = kept.get(&shard.id).copied().unwrap_or_default();
            ShardStats { kept_back, ..shard.stats() }
        });
        Stats {
            shards: shards.collect(),
            topics: view.len() as u64,
            partitions: view.partitions() as u64,
            tail_cache_limit: self.inner.tail.bound() as u64,
            setting_bytes: view.setting_bytes() as u64,
            exchanges: self.inner.exchanges.memory(),
            refused_settings: self.inner.on_the_way.refused_settings.load(Relaxed),
            clock_ahead_ms: self.inner.clock.ahead_ms(),
            stamps_ahead_ms: self.inner.clock.stamps_ahead_ms(),
        }
    }

    /// What to watch for readability, edge-triggered, calling [`drive`](Self::drive) whenever one becomes readable. Until this is
    /// called the broker watches them itself.
    pub fn event_fds(&self) -> Vec<(ShardId, OwnedFd)> {
        let mut all = Vec::new();
        for shard in &self.inner.shards {
            match shard.event_fds() {
                Ok(fds) => {
                    all.extend(fds.into_iter().map(|fd| (shard.id, fd)));
                    shard.watched_outside();
                }
                Err(error) => warn!(shard = %shard.id, %error, "the shard goes on driving itself"),
            }
        }
        all
    }

    /// Completes, applies and answers what a shard's disk has finished. Never blocks on the disk.
    pub fn drive(&self, shard: ShardId) {
        if let Some(shard) = self.shard(shard) {
            shard.drive();
        }
    }

    /// Takes no more writes, finishes those under way, seals the journals, writes checkpoints and unlocks the data
    /// directory. Blocking, for some seconds at the most: of a disk that does not answer, the rest is left as after a kill.
    pub fn shutdown(&self) {
        let inner = &self.inner;
        inner.groups.retire(ShardFailure::ShuttingDown.into());
        inner.redrives.close();
        inner.shards.iter().for_each(|shard| shard.close());
        let until = Instant::now() + DRAIN;
        inner.shards.iter().for_each(|shard| shard.drain(until));
        let (told, sealed) = std::sync::mpsc::channel();
        let inner = self.inner.clone();
        let seal = move || {
            inner.housekeeper.end();
            inner.shards.iter().for_each(|shard| shard.seal());
            end_run(&inner.shards);
            inner.lock.lock().take();
            // The caller may open the directory again once it has let go of its broker.
            drop(inner);
            // If the caller waits no longer, the process is about to end.
            let _ = told.send(());
        };
        let begun = std::thread::Builder::new().name("seal".into()).spawn(seal).is_ok();
        let left = if self.is_at_rest() { SEAL } else { Duration::ZERO };
        if !begun || !self.is_told(&sealed, left) {
            error!(
                "the disk does not answer: the journals are left as they are, and the next start replays them"
            );
        }
    }

    /// Waits to be told, but no longer for a disk that does not answer.
    fn is_told(&self, told: &Receiver<()>, most: Duration) -> bool {
        let until = Instant::now() + most;
        loop {
            match told.recv_timeout(TELL.min(most)) {
                Ok(()) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let hung = |shard: &Arc<Shard>| !shard.is_stopped() && shard.is_stalled();
            if Instant::now() >= until || self.inner.shards.iter().any(hung) {
                return false;
            }
        }
    }

    /// Whether something is under way at a disk that a shutdown has not waited for. A thread that has it there does not end before
    /// the disk answers.
    pub fn has_hung_disk(&self) -> bool {
        self.inner.shards.iter().any(|shard| shard.in_flight() > 0 || shard.is_stalled())
    }

    /// Whether nothing is under way that a disk has not answered.
    fn is_at_rest(&self) -> bool {
        self.inner
            .shards
            .iter()
            .all(|shard| shard.is_stopped() || (shard.in_flight() == 0 && !shard.is_stalled()))
    }
}
