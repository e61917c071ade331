//! A partition's state in its shard: where its records are, its first and next offset, its leader epochs.

mod epochs;
mod index;
mod page;
mod producers;
mod runs;
mod spill;

pub(crate) use epochs::Epochs;
pub(crate) use index::{Index, PageRef, Place, Run, RunDetail, RunKind};
pub(crate) use page::{Chunk, decode_chunks, decode_runs, encode_chunks, put_chunk, take_chunk};
pub(crate) use producers::{ProducerKey, ProducerState, Verdict};
pub(crate) use runs::Runs;
pub(crate) use spill::{Spill, SpillKey};

use sabir_journal::pages::{PageDecodeError, PageKey, PageValue};
use sabir_model::{LeaderEpoch, Offset, PartitionId, Sequence, Term, TopicId};

use crate::codec::{Reader, put_i64, put_len, put_u32, put_u64};
use crate::entry::PartitionSettings;

/// A finished fragmented batch whose chunk list lies in pages of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FragmentedRef {
    pub(crate) base: Offset,
    pub(crate) next: Offset,
    pub(crate) pages: u16,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionState {
    pub(crate) topic: TopicId,
    pub(crate) number: u32,
    pub(crate) epoch_base: i32,
    pub(crate) settings: PartitionSettings,
    /// The first offset.
    pub(crate) log_start: Offset,
    /// The offset behind the last record.
    pub(crate) next: Offset,
    /// Bytes of the runs that are listed, and of their overlays.
    pub(crate) bytes: u64,
    pub(crate) epochs: Epochs,
    pub(crate) index: Index,
    pub(crate) fragmented: Vec<FragmentedRef>,
}

impl PartitionState {
    pub(crate) fn new(topic: TopicId, number: u32, epoch_base: i32, settings: PartitionSettings) -> Self {
        Self {
            topic,
            number,
            epoch_base,
            settings,
            log_start: Offset::ZERO,
            next: Offset::ZERO,
            bytes: 0,
            epochs: Epochs::default(),
            index: Index::default(),
            fragmented: Vec::new(),
        }
    }

    /// The leader epoch in `term`.
    pub(crate) fn epoch(&self, term: Term) -> LeaderEpoch {
        let term = i32::try_from(term.0).unwrap_or(i32::MAX);
        LeaderEpoch(self.epoch_base.saturating_add(term))
    }

    /// Appends records at the next offset, which is given back; `None` if offsets are used up. Closed history goes to `spill`.
    pub(crate) fn append(
        &mut self,
        id: PartitionId,
        mut run: Run,
        detail: Option<&RunDetail>,
        epoch: LeaderEpoch,
        spill: &mut Spill,
    ) -> Option<Offset> {
        let base = self.next;
        let next = base.checked_add(run.records)?;
        run.base = base;
        self.next = next;
        self.bytes += u64::from(run.len) + detail.map_or(0, RunDetail::overlay_bytes);
        self.epochs.reached(epoch, base);
        if let Some(page) = self.index.push(run, detail) {
            spill.put(SpillKey::index(id, page.first), page.encoded);
        }
        Some(base)
    }

    /// Keeps the chunk list of the fragmented batch just appended at `base`.
    pub(crate) fn keep_fragmented(
        &mut self,
        id: PartitionId,
        base: Offset,
        chunks: &[Chunk],
        spill: &mut Spill,
    ) {
        let pages = encode_chunks(chunks);
        let count = pages.len() as u16;
        for (number, page) in (0..count).zip(pages) {
            spill.put(SpillKey::fragmented(id, base, number), page);
        }
        self.fragmented.push(FragmentedRef { base, next: self.next, pages: count });
    }

    /// Moves the first offset up to `to`; what lies wholly below it is no longer listed.
    pub(crate) fn move_log_start(&mut self, id: PartitionId, to: Offset, spill: &mut Spill) {
        self.log_start = to;
        for page in self.index.drop_below(to, &mut self.bytes) {
            spill.remove(SpillKey::index(id, page.first));
        }
        let dead = self.fragmented.iter().take_while(|fragmented| fragmented.next <= to).count();
        for fragmented in self.fragmented.drain(..dead) {
            fragmented.remove(id, spill);
        }
        self.epochs.start_at(to);
    }

    /// Gives up all pages of its own, before the partition itself goes.
    pub(crate) fn give_up(&self, id: PartitionId, spill: &mut Spill) {
        for page in self.index.closed() {
            spill.remove(SpillKey::index(id, page.first));
        }
        self.fragmented.iter().for_each(|fragmented| fragmented.remove(id, spill));
    }

    /// Up to where records are to go by the partition's retention, if that is beyond the first offset.
    pub(crate) fn retention_due(&self, now_ms: i64) -> Option<Offset> {
        let PartitionSettings { retention_ms, retention_bytes, ref queue, .. } = self.settings;
        if queue.is_some() {
            return None;
        }
        let by_time = (retention_ms >= 0).then(|| {
            let oldest = now_ms.saturating_sub(retention_ms);
            self.index.dead_until(|max_ts, _| max_ts < oldest)
        });
        let by_size = u64::try_from(retention_bytes).ok().map(|keep| {
            let mut left = self.bytes;
            self.index.dead_until(|_, bytes| {
                left -= bytes;
                left >= keep
            })
        });
        let due = by_time.flatten().max(by_size.flatten());
        due.filter(|due| *due > self.log_start)
    }

    /// The closed page that the log start lies in, if it lies in one. How low the blocks are of what is kept of it, its runs say alone
    /// ([`Runs::first_block_from`]).
    pub(crate) fn cut_page(&self) -> Option<PageRef> {
        self.index.cut_page(self.log_start)
    }

    /// The lowest block that a record kept here, or an overlay, lies in, but for those of the [cut page](Self::cut_page); `None` where there
    /// is none.
    pub(crate) fn first_block_behind_cut(&self) -> Option<Sequence> {
        self.index.first_block_behind_cut(self.log_start)
    }
}

impl FragmentedRef {
    fn remove(&self, id: PartitionId, spill: &mut Spill) {
        (0..self.pages).for_each(|number| spill.remove(SpillKey::fragmented(id, self.base, number)));
    }
}

/// Keys of partitions: the id, big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PartitionKey(pub(crate) PartitionId);

impl PageKey for PartitionKey {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.0.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        let id = bytes.try_into().map_err(|_| PageDecodeError("a partition's key has 8 bytes".into()))?;
        Ok(Self(PartitionId(u64::from_be_bytes(id))))
    }
}

/// In form 1 the settings had no form of their own.
const FORM: u8 = 2;

impl PageValue for PartitionState {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        out.extend_from_slice(&self.topic.0);
        put_u32(out, self.number);
        put_i64(out, self.epoch_base.into());
        self.settings.put(out);
        put_i64(out, self.log_start.0);
        put_i64(out, self.next.0);
        put_u64(out, self.bytes);
        self.epochs.put(out);
        self.index.put(out);
        put_len(out, self.fragmented.len());
        for fragmented in &self.fragmented {
            put_i64(out, fragmented.base.0);
            put_i64(out, fragmented.next.0);
            put_u32(out, fragmented.pages.into());
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        take(bytes).map_err(|error| PageDecodeError(error.to_string()))
    }
}

fn take(bytes: &[u8]) -> Result<PartitionState, sabir_model::DecodeError> {
    let mut input = Reader::new(bytes);
    let form = input.u8()?;
    if !(1..=FORM).contains(&form) {
        return Err(sabir_model::DecodeError::Version(form));
    }
    let partition = PartitionState {
        topic: input.topic()?,
        number: input.u32()?,
        epoch_base: input.i32()?,
        settings: match form {
            1 => PartitionSettings::take_formless(&mut input)?,
            _ => PartitionSettings::take(&mut input)?,
        },
        log_start: input.offset()?,
        next: input.offset()?,
        bytes: input.u64()?,
        epochs: Epochs::take(&mut input)?,
        index: Index::take(&mut input)?,
        fragmented: input.list(3, |input| {
            Ok(FragmentedRef {
                base: input.offset()?,
                next: input.offset()?,
                pages: input.u16("pages of a fragmented batch")?,
            })
        })?,
    };
    input.end()?;
    Ok(partition)
}

#[cfg(test)]
mod tests;
