//! `apply`: the one place where entries take effect, in their order.

use sabir_journal::{BlockView, EntryView};
use sabir_model::{DecodeError, ErrorKind, Offset, PartitionId, Sequence, Term};

use super::trains::{OpenTrain, TrainKey};
use super::{ApplyError, At, EntryError, Locate, Outcome, ShardState};
use crate::append::Appended;
use crate::entry::{
    AppendBody, Body, ChunkBody, DataShardsFixed, FormatLevelRaised, FrontEndRegistered, LogStartsMoved,
    PartitionsConfigured, PartitionsCreated, PartitionsDeleted, ProducerIdsAllocated, ProducersExpired,
    ReferenceBody, Started, TopicConfigured, TopicCreated, TopicDeleted, TopicExtended, TrainBody,
    TrainDropped, kind,
};
use crate::partition::{Chunk, Partition, PartitionKey, ProducerKey, ProducerState, Run, RunKind, Verdict};

impl ShardState {
    /// Applies the block that follows the last one; `outcome` is told what each entry came to, in order. An entry that fails
    /// changes nothing, those before it have taken effect, and nothing is applied after it, nor checkpointed.
    pub(crate) fn apply_block(
        &mut self,
        sequence: Sequence,
        term: Term,
        content: &[u8],
        locate: Locate<'_>,
        outcome: &mut dyn FnMut(u32, Outcome),
    ) -> Result<(), ApplyError> {
        let failed = |error: EntryError| ApplyError { sequence, reason: error.to_string() };
        if let Some(block) = self.half_applied {
            return Err(failed(EntryError::HalfApplied { block }));
        }
        // Before anything changes, and taken back when all has: whichever way this is left, half a block is known for what it is.
        self.half_applied = Some(sequence);
        self.apply_whole(sequence, term, content, locate, outcome).map_err(failed)?;
        self.half_applied = None;
        Ok(())
    }

    fn apply_whole(
        &mut self,
        sequence: Sequence,
        term: Term,
        content: &[u8],
        locate: Locate<'_>,
        outcome: &mut dyn FnMut(u32, Outcome),
    ) -> Result<(), EntryError> {
        let view = BlockView::parse(content)?;
        let at = At { sequence, term, time_ms: view.time_ms() };
        if sequence != self.applied.next() {
            return Err(EntryError::Order { after: self.applied });
        }
        self.touched.grown.clear();
        self.touched.gone.clear();
        self.enter(term);
        for entry in view.entries() {
            let entry = entry?;
            let result = self.apply(&entry, &at, locate)?;
            outcome(entry.index, result);
        }
        self.note_usage(sequence, locate);
        self.applied = sequence;
        self.time_ms = at.time_ms;
        self.counters.blocks += 1;
        self.counters.entries += u64::from(view.len());
        self.counters.bytes += content.len() as u64;
        Ok(())
    }

    /// A later term drops the trains that an earlier one left unfinished.
    fn enter(&mut self, term: Term) {
        if term == self.term {
            return;
        }
        self.term = term;
        let stale = |(key, train): (&TrainKey, &OpenTrain)| (train.term < term).then_some(*key);
        let stale: Vec<TrainKey> = self.trains.iter().filter_map(stale).collect();
        stale.iter().for_each(|key| drop(self.trains.remove(key)));
    }

    fn note_usage(&mut self, sequence: Sequence, locate: Locate<'_>) {
        if let (Some(segment), false) = (locate(sequence), self.touched.grown.is_empty()) {
            let grown: Vec<PartitionId> = self.touched.grown.iter().map(|(id, _)| *id).collect();
            self.usage.note(segment, &grown);
        }
    }

    fn apply(&mut self, entry: &EntryView<'_>, at: &At, locate: Locate<'_>) -> Result<Outcome, EntryError> {
        self.within_entry = true;
        let outcome = self.apply_entry(entry, at, locate);
        self.within_entry = false;
        outcome
    }

    fn apply_entry(
        &mut self,
        entry: &EntryView<'_>,
        at: &At,
        locate: Locate<'_>,
    ) -> Result<Outcome, EntryError> {
        #[cfg(any(test, feature = "testing"))]
        if entry.kind != kind::APPEND {
            crate::panicking::panic_if_wanted("apply", entry.body);
        }
        Ok(match entry.kind {
            kind::APPEND => Outcome::of(self.append(&body(entry)?, payload(entry)?, at), Outcome::Appended),
            kind::REFERENCE => Outcome::of(self.reference(&body(entry)?, at, locate), Outcome::Appended),
            kind::CHUNK => Outcome::of_done(self.chunk(&body(entry)?, payload(entry)?, at)),
            kind::TRAIN => Outcome::of(self.train(&body(entry)?, at, locate), Outcome::Appended),
            kind::TRAIN_DROPPED => Outcome::of_done(self.drop_train(body(entry)?)),
            kind::PARTITIONS_CREATED => Outcome::of_done(self.create_partitions(&body(entry)?)),
            kind::PARTITIONS_DELETED => Outcome::of_done(self.delete_partitions(&body(entry)?)),
            kind::PARTITIONS_CONFIGURED => Outcome::of_done(self.configure_partitions(&body(entry)?)),
            kind::LOG_STARTS_MOVED => Outcome::of(self.move_log_starts(&body(entry)?), Outcome::Number),
            kind::PRODUCERS_EXPIRED => Outcome::of_done(self.expire_producers(&body(entry)?)),
            kind::STARTED => Outcome::of_done(self.started(&body(entry)?)),
            number if kind::GROUPS.contains(&number) => {
                let applied = self.groups.apply(number, entry.body, at.time_ms);
                Outcome::of_done(applied.map_err(|source| bad_body(entry, source))?)
            }
            _ => self.apply_catalog(entry)?,
        })
    }

    fn apply_catalog(&mut self, entry: &EntryView<'_>) -> Result<Outcome, EntryError> {
        let catalog = &mut self.catalog;
        Ok(match entry.kind {
            kind::TOPIC_CREATED => Outcome::of_topic(catalog.create(body::<TopicCreated>(entry)?)),
            kind::TOPIC_DELETED => Outcome::of_topic(catalog.delete(&body::<TopicDeleted>(entry)?)),
            kind::TOPIC_CONFIGURED => Outcome::of_topic(catalog.configure(body::<TopicConfigured>(entry)?)),
            kind::TOPIC_EXTENDED => Outcome::of_topic(catalog.extend(&body::<TopicExtended>(entry)?)),
            kind::FRONT_END_REGISTERED => {
                let number = catalog.register(body::<FrontEndRegistered>(entry)?);
                Outcome::of(number, |number| Outcome::Number(number.0.into()))
            }
            kind::PRODUCER_IDS_ALLOCATED => {
                let first = catalog.allocate(&body::<ProducerIdsAllocated>(entry)?);
                Outcome::of(first, |first| Outcome::Number(first.0))
            }
            kind::DATA_SHARDS_FIXED => {
                catalog.fix_shards(&body::<DataShardsFixed>(entry)?);
                Outcome::Done
            }
            kind::FORMAT_LEVEL_RAISED => {
                catalog.raise_level(&body::<FormatLevelRaised>(entry)?);
                Outcome::Done
            }
            kind => return Err(EntryError::Kind { index: entry.index, kind }),
        })
    }

    fn append(&mut self, body: &AppendBody, payload: (u32, u32), at: &At) -> Result<Appended, ErrorKind> {
        let (offset, len) = payload;
        let run = Run {
            base: Offset::ZERO,
            block: at.sequence,
            max_ts: timestamp(body.max_ts, at),
            offset,
            len,
            records: body.records,
            first_record: 0,
            maker: body.maker,
            kind: RunKind::Whole,
        };
        self.append_run(body, run, at, &[])
    }

    /// Appends to every target; the answer is the first one's. A producer's mark belongs to the one target it can have.
    fn append_run(
        &mut self,
        body: &AppendBody,
        run: Run,
        at: &At,
        chunks: &[Chunk],
    ) -> Result<Appended, ErrorKind> {
        let mut first = None;
        for &target in body.targets.as_slice() {
            let appended = self.append_one(target, body, run, at);
            if let (Ok(Appended { base_offset, duplicate: false, .. }), false) = (appended, chunks.is_empty())
            {
                self.keep_train(target, base_offset, chunks);
            }
            first.get_or_insert(appended);
        }
        let answer = first.unwrap_or(Err(ErrorKind::UnknownTopic));
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
    ) -> Result<Appended, ErrorKind> {
        let partition = self.partitions.get_mut(&PartitionKey(target)).ok_or(ErrorKind::UnknownTopic)?;
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
        let base = partition.append(target, run, epoch, &mut self.spill).ok_or(ErrorKind::InvalidRecord)?;
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

    fn reference(
        &mut self,
        body: &ReferenceBody,
        at: &At,
        locate: Locate<'_>,
    ) -> Result<Appended, ErrorKind> {
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
            maker: extent.maker,
            kind: RunKind::Reference,
        };
        if block > at.sequence {
            return Err(ErrorKind::InvalidRecord);
        }
        if let Some(segment) = locate(block) {
            self.usage.note(segment, &body.targets);
        }
        let as_append = AppendBody {
            targets: crate::entry::Targets::Several(body.targets.clone()),
            records: extent.records,
            max_ts: body.max_ts,
            stamped: false,
            maker: extent.maker,
            producer: None,
        };
        self.append_run(&as_append, run, at, &[])
    }

    fn chunk(&mut self, body: &ChunkBody, payload: (u32, u32), at: &At) -> Result<(), ErrorKind> {
        let key = TrainKey(body.train);
        if body.index == 0 {
            self.trains.insert(key, OpenTrain { term: at.term, chunks: Vec::new() });
        }
        let train = self.trains.get_mut(&key).ok_or(ErrorKind::InvalidRecord)?;
        if train.chunks.len() != body.index as usize {
            self.trains.remove(&key);
            return Err(ErrorKind::InvalidRecord);
        }
        let (offset, len) = payload;
        train.chunks.push(Chunk { block: at.sequence, offset, len });
        Ok(())
    }

    /// A train of which chunks are missing was cut with its term: its producer must send it again.
    fn train(&mut self, body: &TrainBody, at: &At, locate: Locate<'_>) -> Result<Appended, ErrorKind> {
        let train = self.trains.remove(&TrainKey(body.train)).ok_or(ErrorKind::NotLeader)?;
        if train.chunks.len() != body.chunks as usize {
            return Err(ErrorKind::NotLeader);
        }
        let run = Run {
            base: Offset::ZERO,
            block: train.first_block().unwrap_or(at.sequence),
            max_ts: timestamp(body.append.max_ts, at),
            offset: 0,
            len: train.bytes().ok_or(ErrorKind::MessageTooLarge)?,
            records: body.append.records,
            first_record: 0,
            maker: body.append.maker,
            kind: RunKind::Train,
        };
        for segment in train.chunks.iter().filter_map(|chunk| locate(chunk.block)) {
            self.usage.note(segment, body.append.targets.as_slice());
        }
        self.append_run(&body.append, run, at, &train.chunks)
    }

    fn drop_train(&mut self, body: TrainDropped) -> Result<(), ErrorKind> {
        self.trains.remove(&TrainKey(body.train));
        Ok(())
    }

    fn keep_train(&mut self, target: PartitionId, base: Offset, chunks: &[Chunk]) {
        if let Some(partition) = self.partitions.get_mut(&PartitionKey(target)) {
            partition.keep_train(target, base, chunks, &mut self.spill);
        }
    }

    fn create_partitions(&mut self, body: &PartitionsCreated) -> Result<(), ErrorKind> {
        for &(number, id) in &body.partitions {
            if !self.partitions.contains(&PartitionKey(id)) {
                let partition = Partition::new(body.topic, number, body.epoch_base, body.settings);
                self.partitions.insert(PartitionKey(id), partition);
            }
        }
        Ok(())
    }

    fn delete_partitions(&mut self, body: &PartitionsDeleted) -> Result<(), ErrorKind> {
        for &id in &body.partitions {
            if let Some(partition) = self.partitions.remove(&PartitionKey(id)) {
                partition.give_up(id, &mut self.spill);
                self.producers.remove_all_of(id);
                self.touched.gone.push(id);
            }
        }
        Ok(())
    }

    fn configure_partitions(&mut self, body: &PartitionsConfigured) -> Result<(), ErrorKind> {
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
    fn move_log_starts(&mut self, body: &LogStartsMoved) -> Result<i64, ErrorKind> {
        let mut first = None;
        for &(id, to) in &body.moves {
            let moved = self.move_log_start(id, to);
            first.get_or_insert(moved);
        }
        first.unwrap_or(Err(ErrorKind::InvalidRequest))
    }

    fn move_log_start(&mut self, id: PartitionId, to: Offset) -> Result<i64, ErrorKind> {
        let partition = self.partition(id).ok_or(ErrorKind::UnknownTopic)?;
        let to = if to == Offset(-1) { partition.next } else { to };
        if to > partition.next || to.0 < 0 {
            return Err(ErrorKind::OffsetOutOfRange);
        }
        if to <= partition.log_start {
            return Ok(partition.log_start.0);
        }
        if let Some(partition) = self.partitions.get_mut(&PartitionKey(id)) {
            partition.move_log_start(id, to, &mut self.spill);
        }
        Ok(to.0)
    }

    fn expire_producers(&mut self, body: &ProducersExpired) -> Result<(), ErrorKind> {
        for &(partition, producer) in &body.producers {
            let key = ProducerKey { partition, producer };
            if self.producers.get(&key).is_some_and(|state| state.last_ms <= body.idle_since) {
                self.producers.remove(&key);
            }
        }
        self.tidy_expiry();
        Ok(())
    }

    fn started(&mut self, _body: &Started) -> Result<(), ErrorKind> {
        self.starts += 1;
        Ok(())
    }
}

/// Records without a time of their own age with their block.
fn timestamp(max_ts: i64, at: &At) -> i64 {
    if max_ts < 0 { at.time_ms } else { max_ts }
}

fn body<B: Body>(entry: &EntryView<'_>) -> Result<B, EntryError> {
    B::decode(entry.body).map_err(|source| bad_body(entry, source))
}

fn bad_body(entry: &EntryView<'_>, source: DecodeError) -> EntryError {
    EntryError::Body { index: entry.index, kind: entry.kind, source }
}

fn payload(entry: &EntryView<'_>) -> Result<(u32, u32), EntryError> {
    entry.payload.ok_or(EntryError::Payload { index: entry.index, kind: entry.kind })
}
