//! Entries of front ends that are applied and not answered yet: their answers come from entries behind them.

use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use sabir_base::wake::WakeBatch;
use sabir_model::{ShardFailure, Term};

use super::Shard;
use crate::answer::Waiter;
use crate::front_ends::Written;
use crate::projection::{EntryId, FrontendAnswer};
use crate::state::Outcome;

/// How many there are at least before it is looked whether a caller still waits for each.
const LOOK_FROM: usize = 64;

/// Those of a shard.
#[derive(Default)]
pub(super) struct LateAnswers(Mutex<LateEntries>);

#[derive(Default)]
struct LateEntries {
    entries: FxHashMap<EntryId, Arc<Written>>,
    look_at: usize,
}

impl LateEntries {
    fn keep(&mut self, id: EntryId, written: Arc<Written>) {
        if self.entries.len() >= self.look_at.max(LOOK_FROM) {
            self.entries.retain(|_, written| written.is_awaited());
            self.look_at = 2 * self.entries.len();
        }
        self.entries.insert(id, written);
    }
}

impl Shard {
    /// Hands on what an entry came to: to its writer, and to others that it answers.
    pub(super) fn hand_on(&self, waiter: Waiter, outcome: Outcome, wakes: &mut WakeBatch) {
        match (waiter, outcome) {
            (Waiter::Frontend(written), Outcome::Projection(mut answer)) => {
                self.answer_others(&mut answer, wakes);
                match answer.later {
                    None => written.answer(Outcome::Projection(answer), wakes),
                    Some(id) => {
                        written.count(&answer);
                        self.keep_waiting(id, written);
                    }
                }
            }
            (waiter, outcome) => waiter.answer(outcome, wakes),
        }
    }

    fn keep_waiting(&self, id: EntryId, written: Arc<Written>) {
        self.applies.late.0.lock().keep(id, written);
        // Looked at last: what ended all waiting before it was kept did not see it.
        let led = self.replicator.is_leader() && self.replicator.term() == id.term();
        let refused = self.appends.open.lock().refused;
        if let Some(why) = refused.or((!led).then_some(ShardFailure::NotLeader)) {
            self.end_those(|other| *other == id, why);
        }
    }

    fn answer_others(&self, answer: &mut FrontendAnswer, wakes: &mut WakeBatch) {
        for (id, bytes) in answer.others.drain(..) {
            let waits = self.applies.late.0.lock().entries.remove(&id);
            waits.into_iter().for_each(|written| written.reply(Ok(bytes.clone()), wakes));
        }
    }

    /// Nothing will answer those from before this term, or any of them.
    pub(super) fn end_waiting(&self, before: Option<Term>, why: ShardFailure) {
        self.end_those(|id| before.is_none_or(|term| id.term() < term), why);
    }

    fn end_those(&self, ends: impl Fn(&EntryId) -> bool, why: ShardFailure) {
        let ended: Vec<_> = self.applies.late.0.lock().entries.extract_if(|id, _| ends(id)).collect();
        let mut wakes = WakeBatch::default();
        ended.into_iter().for_each(|(_, written)| written.reply(Err(why), &mut wakes));
        wakes.deliver();
    }
}

#[cfg(test)]
impl Shard {
    /// Entries that are not answered yet.
    pub(crate) fn waiting_answers(&self) -> usize {
        self.applies.late.0.lock().entries.len()
    }
}
