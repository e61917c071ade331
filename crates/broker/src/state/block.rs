//! A block applied: the one place where entries take effect, in their order.

use sabir_journal::{BlockView, EntryView};
use sabir_model::{DecodeError, Sequence, ShardFailure, Term};

use super::{
    ApplyError, At, CoreProjection, EntryError, EntryOutcome, Locate, Outcome, Partitions, ShardState,
};
use crate::catalog::Catalog;
use crate::entry::{Body, Started, kind};
use crate::group::GroupTable;

impl ShardState {
    /// Applies the block that follows the last one; `outcome` is told what each entry came to, in order, and is shown the
    /// projections as the entry left them. An entry that fails
    /// changes nothing, those before it have taken effect, and nothing is applied after it, nor checkpointed.
    pub(crate) fn apply_block(
        &mut self,
        sequence: Sequence,
        term: Term,
        content: &[u8],
        locate: Locate<'_>,
        outcome: &mut dyn FnMut(u32, Outcome, &Self),
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
        outcome: &mut dyn FnMut(u32, Outcome, &Self),
    ) -> Result<(), EntryError> {
        let view = BlockView::parse(content)?;
        let at = At { sequence, term, time_ms: view.time_ms() };
        if sequence != self.applied.next() {
            return Err(EntryError::Order { after: self.applied });
        }
        self.partitions.begin_block();
        self.front_ends.begin_block();
        self.enter(term);
        for entry in view.entries() {
            let entry = entry?;
            let result = self.apply(&entry, &at, locate)?;
            outcome(entry.index, result, self);
        }
        self.partitions.note_usage(sequence, locate);
        self.applied = sequence;
        self.time_ms = at.time_ms;
        self.counters.blocks += 1;
        self.counters.entries += u64::from(view.len());
        self.counters.bytes += content.len() as u64;
        Ok(())
    }

    fn enter(&mut self, term: Term) {
        if term != self.term {
            self.term = term;
            self.partitions.enter(term);
        }
    }

    fn apply(&mut self, entry: &EntryView<'_>, at: &At, locate: Locate<'_>) -> Result<Outcome, EntryError> {
        self.within_entry = true;
        let outcome = self.apply_entry(entry, at, locate);
        self.within_entry = false;
        outcome
    }

    /// The projections are asked in the order in which their entries are frequent, by static dispatch.
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
        match entry.kind {
            of if Partitions::applies(of) => apply_to(&mut self.partitions, entry, at, locate),
            of if GroupTable::applies(of) => apply_to(&mut self.groups, entry, at, locate),
            of if Catalog::applies(of) => apply_to(&mut self.catalog, entry, at, locate),
            kind::FRONT_END => self.front_ends.apply(entry, at, &mut self.partitions),
            kind::STARTED => applied(entry, |body: Started| self.started(&body)),
            _ => Err(EntryError::unknown(entry)),
        }
    }

    fn started(&mut self, _body: &Started) -> Result<(), ShardFailure> {
        self.starts += 1;
        Ok(())
    }
}

/// Applies an entry, and says whose it was where that fails.
fn apply_to<P: CoreProjection>(
    projection: &mut P,
    entry: &EntryView<'_>,
    at: &At,
    locate: Locate<'_>,
) -> Result<Outcome, EntryError> {
    projection
        .apply(entry, at, locate)
        .map_err(|source| EntryError::In { name: P::NAME, source: source.into() })
}

/// Applies an entry of one kind, and gives what it came to.
pub(crate) fn applied<B: Body>(
    entry: &EntryView<'_>,
    apply: impl FnOnce(B) -> B::Outcome,
) -> Result<Outcome, EntryError> {
    let body = B::decode(entry.body).map_err(|source| bad_body(entry, source))?;
    Ok(apply(body).into_outcome())
}

pub(crate) fn bad_body(entry: &EntryView<'_>, source: DecodeError) -> EntryError {
    EntryError::Body { index: entry.index, kind: entry.kind, source }
}

/// Where the entry's payload lies in its block's content.
pub(crate) fn payload(entry: &EntryView<'_>) -> Result<(u32, u32), EntryError> {
    entry.payload.ok_or(EntryError::Payload { index: entry.index, kind: entry.kind })
}
