//! Runs in a row: those that are open, and those of a page.

use sabir_model::{DecodeError, Offset, Sequence};

use super::index::{Run, RunDetail};
use super::page::{put_run, take_run};
use crate::codec::{Reader, put_len};

/// Runs in the order of their offsets, and what few of them have beside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    list: Vec<Run>,
    details: Option<Box<Details>>,
}

/// Details by the base offsets of their runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Details(Vec<(Offset, RunDetail)>);

impl Details {
    fn get(&self, base: Offset) -> Option<&RunDetail> {
        let at = self.0.binary_search_by_key(&base, |(base, _)| *base).ok()?;
        Some(&self.0[at].1)
    }

    /// Takes those below an offset off the front.
    fn take_below(&mut self, offset: Offset) -> Option<Box<Self>> {
        let rest = self.0.split_off(self.0.partition_point(|(base, _)| *base < offset));
        let front = std::mem::replace(&mut self.0, rest);
        (!front.is_empty()).then(|| Box::new(Self(front)))
    }
}

impl Runs {
    /// Adds a run; false where the last one took it in.
    pub(super) fn push(&mut self, run: Run, detail: Option<&RunDetail>) -> bool {
        if self.list.last_mut().is_some_and(|last| last.merge(&run)) {
            return false;
        }
        self.list.push(run);
        if let Some(detail) = detail {
            self.details.get_or_insert_default().0.push((run.base, *detail));
        }
        true
    }

    pub(crate) fn list(&self) -> &[Run] {
        &self.list
    }

    /// What a run of these has beside.
    pub(crate) fn detail(&self, run: &Run) -> Option<&RunDetail> {
        self.details.as_ref()?.get(run.base)
    }

    /// How many runs there are, those with details counted twice: what they take in a page.
    pub(super) fn weight(&self) -> usize {
        self.list.len() + self.details.as_ref().map_or(0, |details| details.0.len())
    }

    /// Takes as many runs off the front as have a weight.
    pub(super) fn take_front(&mut self, weight: usize) -> Self {
        let mut left = weight;
        let fits = |run: &&Run| {
            let more = 1 + usize::from(self.detail(run).is_some());
            left.checked_sub(more).map(|rest| left = rest).is_some()
        };
        let count = self.list.iter().take_while(fits).count();
        self.split_front(count)
    }

    fn split_front(&mut self, count: usize) -> Self {
        let rest = self.list.split_off(count);
        let list = std::mem::replace(&mut self.list, rest);
        let end = list.last().map_or(Offset::ZERO, Run::next);
        let details = self.details.as_mut().and_then(|details| details.take_below(end));
        self.details.take_if(|details| details.0.is_empty());
        Self { list, details }
    }

    /// Lets go of those that lie wholly below an offset; gives their bytes.
    pub(super) fn drop_below(&mut self, offset: Offset) -> u64 {
        let count = self.list.partition_point(|run| run.next() <= offset);
        let gone = if count > 0 { self.split_front(count).bytes() } else { 0 };
        if self.list.is_empty() {
            self.list = Vec::new();
        }
        gone
    }

    /// A run's bytes, and those of its overlay.
    pub(super) fn bytes_of(&self, run: &Run) -> u64 {
        u64::from(run.len) + self.detail(run).map_or(0, RunDetail::overlay_bytes)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.list.iter().map(|run| self.bytes_of(run)).sum()
    }

    /// The lowest block in which a run or an overlay lies.
    pub(super) fn first_block(&self) -> Option<Sequence> {
        self.first_block_from(Offset::ZERO)
    }

    /// The same of the runs that do not lie wholly below an offset. Any of them may have it: a reference may be to an older block than those of
    /// the runs before it.
    pub(crate) fn first_block_from(&self, offset: Offset) -> Option<Sequence> {
        let kept = self.list.partition_point(|run| run.next() <= offset);
        let overlay = |run: &Run| Some(self.detail(run)?.overlay?.block);
        self.list[kept..].iter().flat_map(|run| std::iter::once(run.block).chain(overlay(run))).min()
    }

    /// A list of runs.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_len(out, self.list.len());
        let mut before = None;
        for run in &self.list {
            put_run(out, run, self.detail(run), before);
            before = Some(run);
        }
    }

    pub(super) fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (mut details, mut before) = (Details::default(), None);
        let list = input.list(7, |input| {
            let (run, detail) = take_run(input, before.as_ref())?;
            details.0.extend(detail.map(|detail| (run.base, detail)));
            before = Some(run);
            Ok(run)
        })?;
        if details.0.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(DecodeError::Field("offset of a run"));
        }
        let details = (!details.0.is_empty()).then(|| Box::new(details));
        Ok(Self { list, details })
    }
}
