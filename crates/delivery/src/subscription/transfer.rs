//! Messages in flight that change owner.

use super::machine::{Subscription, Wanted};
use super::{Attempts, AttemptsChange, HeldBy, Holding, MessageState, OffsetRanges, Operation, Touched};

/// How far below the floor a forced transfer reaches: what is settled in order is not remembered one by one.
const FARTHEST_FORCE: u64 = 1 << 24;

impl Subscription {
    pub(super) fn transfer(
        &mut self,
        operation: &Operation<'_>,
        time_ms: i64,
        out: &mut impl Touched,
    ) -> u64 {
        let Operation::Transferred { ranges, terms, min_idle_ms, since_ms, attempts, force } = *operation
        else {
            return 0;
        };
        let holding = Holding { since_ms: since_ms.unwrap_or(time_ms), ..terms.from(time_ms) };
        let mut transferred = 0;
        self.each(ranges, Wanted::in_flight(HeldBy::Any, time_ms), |me, from, to, held| {
            let idle = held.map_or(0, |held| time_ms.saturating_sub(held.since_ms));
            if idle >= min_idle_ms.into() {
                me.rehold(from, to, holding, out);
                me.change_attempts(from, to, attempts);
                transferred += to - from;
            }
        });
        if force {
            transferred += self.force(ranges, holding, attempts, out);
        }
        transferred
    }

    /// What is ready or settled is in flight again.
    fn force(
        &mut self,
        ranges: OffsetRanges<'_>,
        holding: Holding,
        attempts: AttemptsChange,
        out: &mut impl Touched,
    ) -> u64 {
        let (states, busy) = self.parts();
        let lowest = ranges.iter().next().map_or(u64::MAX, |range| range.start);
        if lowest < states.floor && states.floor - lowest <= FARTHEST_FORCE {
            states.lower_floor(lowest, &mut |block| {
                busy.dirty_containers.insert(block);
            });
        }
        let mut count = 0;
        for range in ranges.iter() {
            let (mut at, to) = (range.start.max(self.states.floor), range.end.min(self.states.end));
            while at < to {
                let (state, end) = self.states.run(at);
                let end = end.min(to);
                if matches!(state, MessageState::Ready | MessageState::Settled) {
                    self.forget_attempts_of(state, at, end);
                    self.hold(at, end, holding, out);
                    self.change_attempts(at, end, attempts);
                    count += end - at;
                }
                at = end;
            }
        }
        // What was not taken is settled as before, and lies below the floor again.
        let (states, busy) = self.parts();
        states.settle_floor(&mut |block| {
            busy.dirty_containers.insert(block);
        });
        count
    }

    /// A row may still span what is settled.
    fn forget_attempts_of(&mut self, state: MessageState, from: u64, to: u64) {
        if state == MessageState::Settled {
            self.parts().1.attempts.update(from, to, |_| None);
        }
    }

    fn change_attempts(&mut self, from: u64, to: u64, change: AttemptsChange) {
        let (_, busy) = self.parts();
        match change {
            AttemptsChange::Keep => {}
            AttemptsChange::Add => {
                busy.attempts
                    .update(from, to, |known| Some(known.unwrap_or(Attempts::FIRST).acquired_again()));
            }
            AttemptsChange::Set(acquired) => busy.attempts.update(from, to, |known| {
                let returned = known.map_or(0, |known| known.returned);
                Some(Attempts { acquired, returned })
            }),
        }
    }
}
