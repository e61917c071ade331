//! Messages that are given back, given up, and done with.

use std::ops::Range;

use super::machine::{Back, Subscription};
use super::{Attempts, MessageOwner, MessageState, Settlement, Terms, Touched};
use crate::policy::{DeathReason, RetryOutcome};

impl Subscription {
    /// Messages in flight are ready again, or parked until the moment that the return names, else as the queue's settings say of its count; those
    /// that came back too often are given up.
    pub(super) fn give_back(&mut self, from: u64, to: u64, back: Back, out: &mut impl Touched) {
        let (_, busy) = self.parts();
        busy.owners.release(from, to);
        busy.attempts.update(from, to, |known| Some(known.unwrap_or(Attempts::FIRST).back(back.counted)));
        if !back.counted || self.deaths.retry.is_none() {
            return self.keep(from, to, back, out);
        }
        let mut at = from;
        while at < to {
            let (attempts, end) = self.parts().1.attempts.run(at);
            let end = end.min(to);
            match self.deaths.retry.judge(attempts.unwrap_or_default(), back.time_ms) {
                RetryOutcome::Exhausted => {
                    self.finish(at, end, None, Settlement::TooOften, back.time_ms, out)
                }
                RetryOutcome::Parked(until_ms) if back.not_before_ms == 0 => {
                    self.keep(at, end, Back { not_before_ms: until_ms, ..back }, out);
                }
                _ => self.keep(at, end, back, out),
            }
            at = end;
        }
    }

    fn keep(&mut self, from: u64, to: u64, back: Back, out: &mut impl Touched) {
        match back.not_before_ms {
            until_ms if until_ms > back.time_ms => self.park(from, to, until_ms, out),
            _ => self.make_ready(from, to, out),
        }
    }

    /// Messages are done with, or given up by a queue that publishes them elsewhere. They are their owner's, if they have one.
    pub(super) fn finish(
        &mut self,
        from: u64,
        to: u64,
        owner: Option<MessageOwner>,
        why: Settlement,
        time_ms: i64,
        out: &mut impl Touched,
    ) {
        match why.death().filter(|_| self.deaths.dead_letters) {
            Some(reason) => self.give_up(from, to, owner, reason, time_ms, out),
            None => self.settle(from, to, owner.is_some(), why, out),
        }
    }

    /// Messages wait to be published elsewhere.
    fn give_up(
        &mut self,
        from: u64,
        to: u64,
        owner: Option<MessageOwner>,
        reason: DeathReason,
        time_ms: i64,
        out: &mut impl Touched,
    ) {
        let terms = Terms { owner: MessageOwner::DeadLetter(reason), timeout_ms: 0, token: 0 };
        let (_, busy) = self.parts();
        if !busy.attempts.is_empty() {
            busy.attempts.update(from, to, |_| None);
        }
        match owner {
            Some(_) => self.rehold(from, to, terms.from(time_ms), out),
            None => self.hold(from, to, terms.from(time_ms), out),
        }
    }

    /// The last messages that were published are given up at once: they are not for this queue's consumers.
    pub fn give_up_last(
        &mut self,
        messages: Range<u64>,
        why: Settlement,
        time_ms: i64,
        out: &mut impl Touched,
    ) {
        self.header_clean = false;
        let ready = self.count(MessageState::Ready, messages.clone());
        debug_assert_eq!(ready, messages.end - messages.start, "they have just been published");
        self.finish(messages.start, messages.end, None, why, time_ms, out);
    }

    pub(super) fn park(&mut self, from: u64, to: u64, until_ms: i64, out: &mut impl Touched) {
        self.set(from, to, MessageState::Parked);
        let resets = self.resets;
        let (_, busy) = self.parts();
        for offset in from..to {
            out.parked(offset, until_ms, resets, busy.attempts.get(offset).unwrap_or_default());
        }
        busy.attempts.update(from, to, |_| None);
    }

    pub(super) fn unpark(
        &mut self,
        offset: u64,
        resets: u32,
        attempts: Attempts,
        out: &mut impl Touched,
    ) -> u64 {
        if !self.is_due(offset, resets) {
            return 0;
        }
        let (_, busy) = self.parts();
        busy.attempts.update(offset, offset + 1, |_| Some(attempts));
        self.make_ready(offset, offset + 1, out);
        1
    }

    pub(super) fn make_ready(&mut self, from: u64, to: u64, out: &mut impl Touched) {
        self.set(from, to, MessageState::Ready);
        self.ready_from = self.ready_from.min(from);
        out.ready(from..to);
    }

    pub(super) fn settle(
        &mut self,
        from: u64,
        to: u64,
        in_flight: bool,
        why: Settlement,
        out: &mut impl Touched,
    ) {
        self.set(from, to, MessageState::Settled);
        let (states, busy) = self.parts();
        if in_flight {
            busy.owners.release(from, to);
        }
        if !busy.attempts.is_empty() {
            busy.attempts.settle(from, to);
            busy.attempts.drop_below(states.floor);
        }
        if !busy.sizes.is_empty() {
            busy.sizes.drop_below(states.floor);
        }
        if !busy.levels.is_empty() {
            busy.levels.drop_below(states.floor, states.end);
        }
        if !busy.expiries.is_empty() {
            busy.expiries.drop_below(states.floor);
        }
        out.settled(from..to, why);
    }
}
