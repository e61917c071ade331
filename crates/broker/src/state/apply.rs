//! What entries do to partitions.

use sabir_model::{AppendError, Offset, PartitionId, Sequence, ShardFailure, TopicError};

use super::unfinished::{UnfinishedBatch, UnfinishedKey};
use super::{At, Locate, Partitions};
use crate::append::Appended;
use crate::entry::{
    AppendBody, ChunkBody, FragmentedBody, FragmentedDropped, LogStartsMoved, PartitionsConfigured,
    PartitionsCreated, PartitionsDeleted, ProducersExpired, ReferenceBody,
};
use crate::partition::{Chunk, Partition, PartitionKey, ProducerKey, ProducerState, Run, RunKind, Verdict};

impl Partitions {
    pub(super) fn append(
        &mut self,
        body: &AppendBody,
        payload: (u32, u32),
        at: &At,
    ) -> Result<Appended, AppendError> {
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
        self.append_run(body, run, at, &[])
    }

    /// Appends to every target; the answer is the first one's. A producer's mark belongs to the one target it can have.
    pub(super) fn append_run(
        &mut self,
        body: &AppendBody,
        run: Run,
        at: &At,
        chunks: &[Chunk],
    ) -> Result<Appended, AppendError> {
        let mut first = None;
        for &target in body.targets.as_slice() {
            let appended = self.append_one(target, body, run, at);
            if let (Ok(Appended { base_offset, duplicate: false, .. }), false) = (appended, chunks.is_empty())
            {
                self.keep_fragmented(target, base_offset, chunks);
            }
            first.get_or_insert(appended);
        }
        let answer = first.unwrap_or(Err(AppendError::UnknownPartition));
        match answer {
            Ok(Appended { duplicate: true, .. }) => self.counters.duplicates += 1,
            Ok(_) => {}
            Err(_) => self.counters.refused += 1,
        }
        answer
    }

    fn append_one(
        &mut self,
        target: PartitionId,
        body: &AppendBody,
        run: Run,
        at: &At,
    ) -> Result<Appended, AppendError> {
        let partition =
            self.partitions.get_mut(&PartitionKey(target)).ok_or(AppendError::UnknownPartition)?;
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
        let base = partition.append(target, run, epoch, &mut self.spill).ok_or(AppendError::NoOffsets)?;
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

    pub(super) fn reference(
        &mut self,
        body: &ReferenceBody,
        at: &At,
        locate: Locate<'_>,
    ) -> Result<Appended, AppendError> {
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
        if block > at.sequence {
            return Err(AppendError::InvalidReference);
        }
        if let Some(segment) = locate(block) {
            self.usage.note(segment, &body.targets);
        }
        let as_append = AppendBody {
            targets: crate::entry::Targets::Several(body.targets.clone()),
            records: extent.records,
            max_ts: body.max_ts,
            stamped: false,
            origin: extent.origin,
            producer: None,
        };
        self.append_run(&as_append, run, at, &[])
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
    pub(super) fn fragmented(
        &mut self,
        body: &FragmentedBody,
        at: &At,
        locate: Locate<'_>,
    ) -> Result<Appended, AppendError> {
        let fragmented =
            self.unfinished.remove(&UnfinishedKey(body.fragmented)).ok_or(ShardFailure::NotLeader)?;
        if fragmented.chunks.len() != body.chunks as usize {
            return Err(ShardFailure::NotLeader.into());
        }
        let run = Run {
            base: Offset::ZERO,
            block: fragmented.first_block().unwrap_or(at.sequence),
            max_ts: timestamp(body.append.max_ts, at),
            offset: 0,
            len: fragmented.bytes().ok_or(AppendError::TooLarge)?,
            records: body.append.records,
            first_record: 0,
            origin: body.append.origin,
            kind: RunKind::Fragmented,
        };
        for segment in fragmented.chunks.iter().filter_map(|chunk| locate(chunk.block)) {
            self.usage.note(segment, body.append.targets.as_slice());
        }
        self.append_run(&body.append, run, at, &fragmented.chunks)
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
