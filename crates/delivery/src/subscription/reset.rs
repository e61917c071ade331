//! A position that is moved.

use super::machine::Subscription;
use super::{MessageState, Touched};

impl Subscription {
    pub(super) fn reset(&mut self, to: u64, everything: bool, out: &mut impl Touched) -> u64 {
        let to = to.min(self.states.end);
        let seen = self.claim.min(self.states.end).max(self.states.last_unready_end());
        self.suspect = self.suspect.max(seen).max(self.busy.as_ref().map_or(0, |busy| busy.attempts.end()));
        let idle = self.busy.as_ref().is_none_or(|busy| busy.owners.is_empty());
        let all = self.states.floor..self.states.end;
        if everything || idle && self.count(MessageState::Parked, all) == 0 {
            self.reset_all(to);
        } else {
            self.reset_around(to);
        }
        self.ready_from = self.states.floor;
        out.reset();
        1
    }

    fn reset_all(&mut self, to: u64) {
        self.resets += 1;
        let (states, busy) = self.parts();
        states.restart_at(to, &mut |block| {
            busy.dirty_containers.insert(block);
        });
        busy.owners.clear();
        busy.attempts.clear();
        self.recount();
    }

    /// In flight and parked messages stay so.
    fn reset_around(&mut self, to: u64) {
        let (states, busy) = self.parts();
        states.lower_floor(to, &mut |block| {
            busy.dirty_containers.insert(block);
        });
        // In this order, or the floor would move on over what is to be ready again.
        self.turn(to, self.states.end, MessageState::Settled, MessageState::Ready);
        self.turn(self.states.floor, to, MessageState::Ready, MessageState::Settled);
    }

    fn turn(&mut self, from: u64, to: u64, old: MessageState, new: MessageState) {
        let mut at = from;
        while at < to {
            let (state, end) = self.states.run(at);
            let end = end.min(to);
            if state == old {
                self.set(at, end, new);
                let (_, busy) = self.parts();
                busy.attempts.update(at, end, |_| None);
            }
            at = end;
        }
    }
}
