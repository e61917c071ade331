//! What entries do to partitions.

use std::ops::Range;

use sabir_delivery::policy::{Backlog, DedupLimit, LengthLimit};
use sabir_model::{
    AppendError, Offset, Overflow, Overlay, OverlayBody, OverlayPlace, PartitionId, RecordFacts, Sequence,
    ShardFailure, TopicError,
};

use super::unfinished::{UnfinishedBatch, UnfinishedKey};
use super::{AppendOutcome, At, Locate, MessageIds, Partitions, QueueChange};
use crate::append::Appended;
use crate::entry::{
    AppendBody, ChunkBody, FragmentedBody, FragmentedDropped, LogStartsMoved, PartitionSettings,
    PartitionsConfigured, PartitionsCreated, PartitionsDeleted, ProducersExpired, ReferenceBody, Targets,
};
use crate::partition::{
    Chunk, PartitionKey, PartitionState, ProducerKey, ProducerState, Run, RunDetail, RunKind, Verdict,
};

/// The most bytes that an overlay takes with all records that it holds for: each is shown with what it adds.
const OVERLAID_MAX: u64 = 16 << 20;

/// Stored records on their way into partitions.
struct Incoming<'a> {
    body: &'a AppendBody,
    run: Run,
    detail: Option<RunDetail>,
    /// Of a fragmented batch; else none.
    chunks: &'a [Chunk],
}

impl Partitions {
    pub(super) fn append(&mut self, body: &AppendBody, payload: (u32, u32), at: &At) -> AppendOutcome {
        let (offset, len) = payload;
        let run = Run {
            base: Offset::ZERO,
            block: at.sequence,
            max_ts: timestamp(body.max_ts, at),
            offset,
            len,
            records: body.records,
            first_record: 0,
            origin: body.origin,
            kind: RunKind::Whole,
        };
        self.append_run(&Incoming { body, run, detail: None, chunks: &[] }, at)
    }

    /// Appends to every target. A producer's mark is each target's own.
    fn append_run(&mut self, incoming: &Incoming<'_>, at: &At) -> AppendOutcome {
        match &incoming.body.targets {
            Targets::One(target) => AppendOutcome::One(self.append_counted(*target, incoming, at)),
            Targets::Several(targets) => AppendOutcome::Each(
                targets.iter().map(|target| self.append_counted(*target, incoming, at)).collect(),
            ),
        }
    }

    fn append_counted(
        &mut self,
        target: PartitionId,
        incoming: &Incoming<'_>,
        at: &At,
    ) -> Result<Appended, AppendError> {
        let mut answer = self.append_one(target, incoming, at);
        match answer {
            Ok(Appended { duplicate: true, .. }) => self.counters.duplicates += 1,
            Ok(Appended { base_offset, .. }) if !incoming.chunks.is_empty() => {
                self.keep_fragmented(target, base_offset, incoming.chunks);
            }
            Ok(_) | Err(_) => {}
        }
        if let Ok(Appended { records: 0, .. }) = answer {
            // It lies there to be published elsewhere.
            answer = Err(AppendError::QueueFull);
        }
        self.counters.refused += u64::from(answer.is_err());
        answer
    }

    /// What a queue refuses and publishes elsewhere is appended, and not among the records that are taken.
    fn append_one(
        &mut self,
        target: PartitionId,
        incoming: &Incoming<'_>,
        at: &At,
    ) -> Result<Appended, AppendError> {
        let Incoming { body, run, detail, .. } = incoming;
        let partition =
            self.partitions.get_mut(&PartitionKey(target)).ok_or(AppendError::UnknownPartition)?;
        // It was found empty, and is as good as deleted.
        if self.sealed.contains(&target) {
            return Err(AppendError::UnknownPartition);
        }
        let append_time_ms = if body.stamped { body.max_ts } else { -1 };
        let log_start = partition.log_start;
        let answer = |base_offset, duplicate, records| Appended {
            base_offset,
            append_time_ms,
            log_start,
            duplicate,
            records,
        };
        let mut producer = None;
        if let Some(mark) = body.producer {
            let key = ProducerKey { partition: target, producer: mark.id };
            let verdict = self.producers.get(&key).map(|state| state.judge(&mark, body.records));
            match verdict {
                Some(Verdict::Duplicate(offset)) => return Ok(answer(offset, true, run.records)),
                Some(Verdict::Refused(error)) => return Err(error),
                Some(Verdict::Next) | None => producer = Some((key, mark)),
            }
        }
        let limit = partition.settings.queue.as_ref().and_then(|queue| queue.limit());
        let mut run = *run;
        let (mut sized, mut taken) = (None, run.records);
        if let Some(limit) = limit {
            let backlog = self.backlogs.get(&target).copied().unwrap_or_default();
            let elsewhere = keeps_what_it_refuses(partition);
            let sizes = admit(&limit, backlog, incoming, elsewhere)?;
            taken = sizes.iter().map(|(count, _)| count).sum();
            run = if elsewhere { run } else { front_of(run, taken) };
            sized = Some((limit, sizes));
        }
        let epoch = partition.epoch(at.term);
        let base = partition
            .append(target, run, detail.as_ref(), epoch, &mut self.spill)
            .ok_or(AppendError::NoOffsets)?;
        if let Some((key, mark)) = producer.filter(|_| taken > 0) {
            let expiry = &mut self.expiry;
            let state = self.producers.get_or_insert_with(key, || {
                expiry.note(key, at.time_ms);
                ProducerState::new(mark.epoch)
            });
            state.take(&mark, body.records, base, at.time_ms);
        }
        if let Some(queue) = &partition.settings.queue {
            if let Some((limit, sizes)) = sized {
                // A batch that comes with the same entry is judged by this.
                let backlog = self.backlogs.entry(target).or_default();
                *backlog = with(*backlog, &sizes);
                let each = sizes.into_iter().filter(|_| limit.bytes.is_some());
                self.queue_changes.extend(each.map(|(count, size)| QueueChange::Sized(target, count, size)));
            }
            if let Some(highest) = queue.max_priority {
                let levels = levels(body, base, run.records, highest);
                self.queue_changes
                    .extend(levels.map(|(messages, level)| QueueChange::Leveled(target, messages, level)));
            }
            if queue.delays {
                let delays = delays(body, base, run.records);
                self.queue_changes
                    .extend(delays.map(|(messages, due)| QueueChange::Delayed(target, messages, due)));
            }
            let ttl_ms = queue.message_ttl_ms;
            expiries(body, run.records, ttl_ms, at, |first, count, expires_ms| {
                self.queue_changes.push(QueueChange::Expires(target, first, count, expires_ms));
            });
            let again = match &queue.dedup {
                Some(limit) => repeated(&mut self.message_ids, limit, target, body, base, taken, at.time_ms),
                None => Vec::new(),
            };
            self.counters.repeated += again.iter().map(|range| range.end - range.start).sum::<u64>();
            self.queue_changes.push(match again.is_empty() {
                true => QueueChange::Published(target, run.records),
                false => QueueChange::Repeated(target, run.records, again),
            });
            if taken < run.records {
                let first = u64::try_from(base.0).expect("offsets count from 0");
                let refused = first + u64::from(taken)..first + u64::from(run.records);
                self.queue_changes.push(QueueChange::Refused(target, refused));
            }
        } else if !self.subscribed.is_empty() && self.subscribed.contains(&target) {
            self.queue_changes.push(QueueChange::Published(target, run.records));
        }
        self.touched.grew(target, run.len.into());
        self.counters.batches += 1;
        self.counters.records += u64::from(run.records);
        self.counters.batch_bytes += u64::from(run.len);
        Ok(answer(base, false, taken))
    }

    /// Whether a queue gives up what it refuses, rather than not to have it.
    pub(super) fn keeps_what_it_refuses(&self, id: PartitionId) -> bool {
        self.partition(id).is_some_and(keeps_what_it_refuses)
    }

    /// `payload` is where an overlay lies that came with the entry.
    pub(super) fn refer(
        &mut self,
        body: &ReferenceBody,
        payload: Option<(u32, u32)>,
        facts: Option<Box<RecordFacts>>,
        at: &At,
        locate: Locate<'_>,
    ) -> AppendOutcome {
        let extent = &body.extent;
        let block = if extent.block == Sequence::NONE { at.sequence } else { extent.block };
        let run = Run {
            base: Offset::ZERO,
            block,
            max_ts: timestamp(body.max_ts, at),
            offset: extent.offset,
            len: extent.len,
            records: extent.records,
            first_record: extent.first_record,
            origin: extent.origin,
            kind: RunKind::Reference,
        };
        let overlay = match extent.overlay {
            Overlay::At(place) => Some(place),
            _ => payload.map(|(offset, len)| OverlayPlace { block: at.sequence, offset, len }),
        };
        let detail = RunDetail { overlay, source: body.source };
        if let Err(error) = self.check_reference(&run, &detail, at) {
            return AppendOutcome::Each(body.targets.iter().map(|_| Err(error)).collect());
        }
        let blocks = std::iter::once(block).chain(overlay.map(|overlay| overlay.block));
        blocks.filter_map(locate).for_each(|segment| self.usage.note(segment, &body.targets));
        let as_append = AppendBody {
            targets: Targets::Several(body.targets.clone()),
            records: extent.records,
            max_ts: body.max_ts,
            stamped: false,
            origin: extent.origin,
            producer: None,
            facts,
            partial: false,
        };
        self.append_run(&Incoming { body: &as_append, run, detail: detail.said(), chunks: &[] }, at)
    }

    /// What it refers to must be there: in a block that is applied, and kept by the partition that it is taken from. So no segment goes
    /// between the moment at which an entry is made and this one.
    fn check_reference(&self, run: &Run, detail: &RunDetail, at: &At) -> Result<(), AppendError> {
        let overlay = detail.overlay;
        let kept = detail.source.is_none_or(|source| {
            let partition = self.partition(source.partition);
            partition.is_some_and(|kept| (kept.log_start..kept.next).contains(&source.offset))
        });
        let blocks = [Some(run.block), overlay.map(|overlay| overlay.block)];
        let applied = blocks.iter().flatten().all(|block| (Sequence(1)..=at.sequence).contains(block));
        let bytes = overlay.map_or(0, |overlay| u64::from(overlay.len));
        let small = bytes <= OverlayBody::MAX as u64 && bytes * u64::from(run.records) <= OVERLAID_MAX;
        if kept && applied && small { Ok(()) } else { Err(AppendError::InvalidReference) }
    }

    /// A chunk that does not follow those before it is dropped with them: the end of the batch finds none, and says so.
    pub(super) fn chunk(
        &mut self,
        body: &ChunkBody,
        payload: (u32, u32),
        at: &At,
    ) -> Result<(), ShardFailure> {
        let key = UnfinishedKey(body.fragmented);
        if body.index == 0 {
            self.unfinished.insert(key, UnfinishedBatch { term: at.term, chunks: Vec::new() });
        }
        let Some(fragmented) = self.unfinished.get_mut(&key) else { return Ok(()) };
        if fragmented.chunks.len() != body.index as usize {
            self.unfinished.remove(&key);
            return Ok(());
        }
        let (offset, len) = payload;
        fragmented.chunks.push(Chunk { block: at.sequence, offset, len });
        Ok(())
    }

    /// A fragmented batch of which chunks are missing was cut with its term: its producer must send it again.
    pub(super) fn fragmented(&mut self, body: &FragmentedBody, at: &At, locate: Locate<'_>) -> AppendOutcome {
        let refused = |error| AppendOutcome::One(Err(error));
        let whole = |fragmented: &UnfinishedBatch| fragmented.chunks.len() == body.chunks as usize;
        let fragmented = self.unfinished.remove(&UnfinishedKey(body.fragmented)).filter(whole);
        let Some(fragmented) = fragmented else { return refused(ShardFailure::NotLeader.into()) };
        let Some(len) = fragmented.bytes() else { return refused(AppendError::TooLarge) };
        let run = Run {
            base: Offset::ZERO,
            block: fragmented.first_block().unwrap_or(at.sequence),
            max_ts: timestamp(body.append.max_ts, at),
            offset: 0,
            len,
            records: body.append.records,
            first_record: 0,
            origin: body.append.origin,
            kind: RunKind::Fragmented,
        };
        for segment in fragmented.chunks.iter().filter_map(|chunk| locate(chunk.block)) {
            self.usage.note(segment, body.append.targets.as_slice());
        }
        let chunks = &fragmented.chunks;
        self.append_run(&Incoming { body: &body.append, run, detail: None, chunks }, at)
    }

    pub(super) fn drop_fragmented(&mut self, body: FragmentedDropped) -> Result<(), ShardFailure> {
        self.unfinished.remove(&UnfinishedKey(body.fragmented));
        Ok(())
    }

    fn keep_fragmented(&mut self, target: PartitionId, base: Offset, chunks: &[Chunk]) {
        if let Some(partition) = self.partitions.get_mut(&PartitionKey(target)) {
            partition.keep_fragmented(target, base, chunks, &mut self.spill);
        }
    }

    pub(super) fn create_partitions(&mut self, body: &PartitionsCreated) -> Result<(), ShardFailure> {
        for &(number, id) in &body.partitions {
            if !self.partitions.contains(&PartitionKey(id)) {
                let partition =
                    PartitionState::new(body.topic, number, body.epoch_base, body.settings.clone());
                self.partitions.insert(PartitionKey(id), partition);
                if body.settings.queue.is_some() {
                    self.queue_changes.push(QueueChange::Made(id));
                }
            }
        }
        Ok(())
    }

    pub(super) fn delete_partitions(&mut self, body: &PartitionsDeleted) -> Result<(), ShardFailure> {
        for &id in &body.partitions {
            if let Some(partition) = self.partitions.remove(&PartitionKey(id)) {
                partition.give_up(id, &mut self.spill);
                self.producers.remove_all_of(id);
                self.touched.gone.push(id);
                if self.subscribed.remove(&id) {
                    self.queue_changes.push(QueueChange::Gone(id));
                }
                if partition.settings.queue.is_some() {
                    self.message_ids.remove_all_of(id);
                    self.backlogs.remove(&id);
                    self.sealed.remove(&id);
                    self.queue_changes.push(QueueChange::Gone(id));
                }
            }
        }
        Ok(())
    }

    pub(super) fn configure_partitions(&mut self, body: &PartitionsConfigured) -> Result<(), ShardFailure> {
        for &id in &body.partitions {
            if let Some(partition) = self.partitions.get_mut(&PartitionKey(id))
                && partition.settings.version < body.settings.version
            {
                // Whether it has a subscription was decided when it was made.
                let before = partition.settings.queue.take();
                let queue = before.and_then(|before| body.settings.queue.clone().or(Some(before)));
                if queue.as_ref().is_none_or(|queue| queue.dedup.is_none()) {
                    self.message_ids.remove_all_of(id);
                }
                partition.settings = PartitionSettings { queue, ..body.settings };
                if partition.settings.queue.is_some() {
                    self.queue_changes.push(QueueChange::Configured(id));
                }
            }
        }
        Ok(())
    }

    /// The answer is the log start of the first partition named.
    pub(super) fn move_log_starts(&mut self, body: &LogStartsMoved) -> Result<Offset, TopicError> {
        let mut first = None;
        for &(id, to) in &body.moves {
            let moved = self.move_log_start(id, to);
            first.get_or_insert(moved);
        }
        first.unwrap_or(Err(TopicError::Unknown))
    }

    pub(super) fn move_log_start(&mut self, id: PartitionId, to: Offset) -> Result<Offset, TopicError> {
        let partition = self.partition(id).ok_or(TopicError::Unknown)?;
        if partition.settings.queue.is_some() {
            return Err(TopicError::QueuePartition(id));
        }
        let to = if to == Offset(-1) { partition.next } else { to };
        if to > partition.next || to.0 < 0 {
            return Err(TopicError::OffsetOutOfRange { asked: to, end: partition.next });
        }
        if to <= partition.log_start {
            return Ok(partition.log_start);
        }
        if let Some(partition) = self.partitions.get_mut(&PartitionKey(id)) {
            partition.move_log_start(id, to, &mut self.spill);
        }
        if self.subscribed.contains(&id) {
            self.queue_changes.push(QueueChange::Trimmed(id, to));
        }
        Ok(to)
    }

    /// The first offset of a queue's partition is that of the first message that is not settled.
    pub(super) fn follow_floor(&mut self, id: PartitionId, floor: Offset) {
        if self.partition(id).is_some_and(|partition| partition.log_start < floor && floor <= partition.next)
            && let Some(partition) = self.partitions.get_mut(&PartitionKey(id))
        {
            partition.move_log_start(id, floor, &mut self.spill);
        }
    }

    pub(super) fn expire_producers(&mut self, body: &ProducersExpired) -> Result<(), ShardFailure> {
        for &(partition, producer) in &body.producers {
            let key = ProducerKey { partition, producer };
            if self.producers.get(&key).is_some_and(|state| state.last_ms <= body.idle_since) {
                self.producers.remove(&key);
            }
        }
        self.tidy_expiry();
        Ok(())
    }
}

/// What queues count a batch's messages with, in runs of one size: what is said of them beside it, else their part of the batch.
fn sizes(body: &AppendBody, run: &Run) -> Vec<(u32, u32)> {
    match &body.facts {
        Some(facts) => facts.runs().map(|(count, facts)| (count, facts.size)).collect(),
        None => vec![(run.records, run.len / run.records.max(1))],
    }
}

/// Until when a batch's messages are kept back, in runs; what nothing is said of fires at once.
fn delays(body: &AppendBody, base: Offset, records: u32) -> impl Iterator<Item = (Range<u64>, i64)> {
    let told = body.facts.iter().flat_map(|facts| facts.runs());
    let told = told.map(|(count, facts)| (count, facts.deliver_at_ms.unwrap_or(0)));
    let plain = body.facts.is_none().then_some((records, 0));
    with_offsets(base, records, told.chain(plain))
}

/// The messages at a batch's front, so many, whose ids their queue has had, in runs. It remembers those of the others.
fn repeated(
    ids: &mut MessageIds,
    limit: &DedupLimit,
    queue: PartitionId,
    body: &AppendBody,
    base: Offset,
    records: u32,
    time_ms: i64,
) -> Vec<Range<u64>> {
    let told = body.facts.iter().flat_map(|facts| facts.runs());
    let told = told.map(|(count, facts)| (count, facts.message_hash()));
    let mut all: Vec<Range<u64>> = Vec::new();
    for (messages, id) in with_offsets(base, records, told) {
        let Some(id) = id else { continue };
        let known = ids.is_known(queue, id, time_ms, limit);
        let again = messages.start + u64::from(!known)..messages.end;
        match all.last_mut().filter(|last| last.end == again.start) {
            Some(last) => last.end = again.end,
            None if again.is_empty() => {}
            None => all.push(again),
        }
    }
    all
}

/// Counts runs of records from a batch's first offset on, so many records in all: the front of the batch may be all that is taken.
fn with_offsets<T>(
    base: Offset,
    records: u32,
    runs: impl Iterator<Item = (u32, T)>,
) -> impl Iterator<Item = (Range<u64>, T)> {
    let mut from = u64::try_from(base.0).expect("offsets count from 0");
    let end = from + u64::from(records);
    let runs = runs.map(move |(count, what)| {
        let start = from;
        from = end.min(from + u64::from(count));
        (start..from, what)
    });
    runs.take_while(|(range, _)| !range.is_empty())
}

/// The levels of a batch's messages, in runs: what is said of their priorities beside it, else 0. One above the highest counts as that.
fn levels(
    body: &AppendBody,
    base: Offset,
    records: u32,
    highest: u8,
) -> impl Iterator<Item = (Range<u64>, u8)> {
    let told = body.facts.iter().flat_map(|facts| facts.runs());
    let told = told.map(move |(count, facts)| (count, facts.priority.unwrap_or(0).min(highest)));
    let plain = body.facts.is_none().then_some((records, 0));
    with_offsets(base, records, told.chain(plain))
}

/// The messages of a batch that a queue of limited length takes, in runs of one size: all, or where its front end has it so those at the front. None
/// is an error, unless what is not taken goes elsewhere.
fn admit(
    limit: &LengthLimit,
    backlog: Backlog,
    incoming: &Incoming<'_>,
    elsewhere: bool,
) -> Result<Vec<(u32, u32)>, AppendError> {
    let all = sizes(incoming.body, &incoming.run);
    if limit.overflow == Overflow::DropHead || !limit.is_exceeded(with(backlog, &all)) {
        return Ok(all);
    }
    let divisible = incoming.body.partial && incoming.body.producer.is_none() && incoming.chunks.is_empty();
    let front = if divisible { fitting(limit, backlog, &all) } else { Vec::new() };
    if front.is_empty() && !elsewhere { Err(AppendError::QueueFull) } else { Ok(front) }
}

fn keeps_what_it_refuses(partition: &PartitionState) -> bool {
    let queue = partition.settings.queue.as_ref().filter(|queue| queue.dead_letters);
    let limit = queue.and_then(|queue| queue.limit());
    limit.is_some_and(|limit| limit.overflow == Overflow::RejectAndDeadLetter)
}

/// The messages at the front for which there is room.
fn fitting(limit: &LengthLimit, mut backlog: Backlog, sizes: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut front = Vec::new();
    for &(count, size) in sizes {
        let fits = room(limit, backlog, size).min(count.into()) as u32;
        let run = (fits, size);
        backlog = with(backlog, &[run]);
        front.extend((fits > 0).then_some(run));
        if fits < count {
            break;
        }
    }
    front
}

/// For how many more messages of a size there is room.
fn room(limit: &LengthLimit, backlog: Backlog, size: u32) -> u64 {
    let more = |most: Option<u64>, has: u64, each: u64| match most.map(|most| most.checked_sub(has)) {
        None => u64::MAX,
        Some(None) => 0,
        Some(Some(left)) => left.checked_div(each).unwrap_or(u64::MAX),
    };
    let by_count = more(limit.messages, backlog.messages, 1);
    by_count.min(more(limit.bytes, backlog.bytes, size.into()))
}

/// The first records of a run. What is less than its batch is a reference to it: it is built anew when it is read.
fn front_of(run: Run, records: u32) -> Run {
    if records < run.records { Run { records, kind: RunKind::Reference, ..run } } else { run }
}

/// Tells which of a batch's messages expire, in runs: the first one, how many, and when. What their queue says holds from when they are there; the
/// sooner of both counts.
fn expiries(
    body: &AppendBody,
    records: u32,
    ttl_ms: Option<u64>,
    at: &At,
    mut each: impl FnMut(u32, u32, i64),
) {
    let by_queue = ttl_ms.map(|ttl_ms| at.node_ms.saturating_add_unsigned(ttl_ms));
    let Some(facts) = &body.facts else {
        return by_queue.into_iter().for_each(|expires_ms| each(0, records, expires_ms));
    };
    let mut first = 0;
    for (count, facts) in facts.runs() {
        // The front of the batch may be all that is taken.
        let count = count.min(records - first);
        let expires_ms = facts.expires_ms.into_iter().chain(by_queue).min();
        expires_ms.into_iter().for_each(|expires_ms| each(first, count, expires_ms));
        first += count;
    }
}

fn with(backlog: Backlog, more: &[(u32, u32)]) -> Backlog {
    more.iter().fold(backlog, |sum, &(count, size)| Backlog {
        messages: sum.messages.saturating_add(count.into()),
        bytes: sum.bytes.saturating_add(u64::from(count) * u64::from(size)),
    })
}

/// Records without a time of their own age with their block.
fn timestamp(max_ts: i64, at: &At) -> i64 {
    if max_ts < 0 { at.time_ms } else { max_ts }
}
