//! What entries do to partitions.

use sabir_model::{
    AppendError, Offset, Overlay, OverlayBody, OverlayPlace, PartitionId, Sequence, ShardFailure, TopicError,
};

use super::unfinished::{UnfinishedBatch, UnfinishedKey};
use super::{AppendOutcome, At, Locate, Partitions};
use crate::append::Appended;
use crate::entry::{
    AppendBody, ChunkBody, FragmentedBody, FragmentedDropped, LogStartsMoved, PartitionsConfigured,
    PartitionsCreated, PartitionsDeleted, ProducersExpired, ReferenceBody, Targets,
};
use crate::partition::{
    Chunk, Partition, PartitionKey, ProducerKey, ProducerState, Run, RunDetail, RunKind, Verdict,
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
        let answer = self.append_one(target, incoming, at);
        match answer {
            Ok(Appended { duplicate: true, .. }) => self.counters.duplicates += 1,
            Ok(Appended { base_offset, .. }) if !incoming.chunks.is_empty() => {
                self.keep_fragmented(target, base_offset, incoming.chunks);
            }
            Ok(_) => {}
            Err(_) => self.counters.refused += 1,
        }
        answer
    }

    fn append_one(
        &mut self,
        target: PartitionId,
        incoming: &Incoming<'_>,
        at: &At,
    ) -> Result<Appended, AppendError> {
        let Incoming { body, run, detail, .. } = incoming;
        let partition =
            self.partitions.get_mut(&PartitionKey(target)).ok_or(AppendError::UnknownPartition)?;
        if body.facts.is_some() {
            return Err(AppendError::NoQueue);
        }
        let append_time_ms = if body.stamped { body.max_ts } else { -1 };
        let log_start = partition.log_start;
        let answer = |base_offset, duplicate| Appended { base_offset, append_time_ms, log_start, duplicate };
        let mut producer = None;
        if let Some(mark) = body.producer {
            let key = ProducerKey { partition: target, producer: mark.id };
            let verdict = self.producers.get(&key).map(|state| state.judge(&mark, body.records));
            match verdict {
                Some(Verdict::Duplicate(offset)) => return Ok(answer(offset, true)),
                Some(Verdict::Refused(error)) => return Err(error),
                Some(Verdict::Next) | None => producer = Some((key, mark)),
            }
        }
        let epoch = partition.epoch(at.term);
        let base = partition
            .append(target, *run, detail.as_ref(), epoch, &mut self.spill)
            .ok_or(AppendError::NoOffsets)?;
        if let Some((key, mark)) = producer {
            let expiry = &mut self.expiry;
            let state = self.producers.get_or_insert_with(key, || {
                expiry.note(key, at.time_ms);
                ProducerState::new(mark.epoch)
            });
            state.take(&mark, body.records, base, at.time_ms);
        }
        self.touched.grew(target, run.len.into());
        self.counters.batches += 1;
        self.counters.records += u64::from(run.records);
        self.counters.batch_bytes += u64::from(run.len);
        Ok(answer(base, false))
    }

    /// `payload` is where an overlay lies that came with the entry.
    pub(super) fn reference(
        &mut self,
        body: &ReferenceBody,
        payload: Option<(u32, u32)>,
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
            facts: None,
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
                let partition = Partition::new(body.topic, number, body.epoch_base, body.settings);
                self.partitions.insert(PartitionKey(id), partition);
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
            }
        }
        Ok(())
    }

    pub(super) fn configure_partitions(&mut self, body: &PartitionsConfigured) -> Result<(), ShardFailure> {
        for &id in &body.partitions {
            if let Some(partition) = self.partitions.get_mut(&PartitionKey(id))
                && partition.settings.version < body.settings.version
            {
                partition.settings = body.settings;
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

    fn move_log_start(&mut self, id: PartitionId, to: Offset) -> Result<Offset, TopicError> {
        let partition = self.partition(id).ok_or(TopicError::Unknown)?;
        let to = if to == Offset(-1) { partition.next } else { to };
        if to > partition.next || to.0 < 0 {
            return Err(TopicError::OffsetOutOfRange);
        }
        if to <= partition.log_start {
            return Ok(partition.log_start);
        }
        if let Some(partition) = self.partitions.get_mut(&PartitionKey(id)) {
            partition.move_log_start(id, to, &mut self.spill);
        }
        Ok(to)
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

/// Records without a time of their own age with their block.
fn timestamp(max_ts: i64, at: &At) -> i64 {
    if max_ts < 0 { at.time_ms } else { max_ts }
}
