//! What the leader is told of what `apply` did.

use std::collections::BTreeMap;
use std::ops::Range;

use sabir_base::wake::WakeBatch;
use sabir_delivery::subscription::{MessageOwner, Settlement, SubscriptionNo, Touched};

use super::QueueError;
use super::leader::{Asked, QueueLeader, QueueRequest};
use super::member::{Dealt, Member};
use crate::push::CancelReason;
use crate::state::TouchedMessages;

impl QueueLeader {
    /// Takes in what a block did, once, in the journal's order; sends what waited for it.
    pub(super) fn tell(&mut self, events: &[TouchedMessages], wakes: &mut WakeBatch) {
        for event in events {
            if !self.expiring.is_empty() {
                self.expiring.touched(event.subscription());
            }
            match event {
                TouchedMessages::Expiring { subscription } => self.expiring.watch(*subscription),
                TouchedMessages::Ready { subscription, messages } => {
                    self.touch(*subscription, |dispatcher| dispatcher.ready(messages.clone()));
                }
                TouchedMessages::Acquired { subscription, messages, owner, deadline_ms } => {
                    let (to, by) = (*owner, *deadline_ms);
                    self.touch(*subscription, |dispatcher| dispatcher.acquired(messages.clone(), to, by));
                    self.acquired(*subscription, messages, to, wakes);
                }
                TouchedMessages::Settled { subscription, messages, why } => {
                    self.settled(*subscription, messages.clone(), *why);
                }
                TouchedMessages::Parked { .. } | TouchedMessages::Sealed { .. } => {}
                TouchedMessages::Reset { subscription } => self.touch(*subscription, Touched::reset),
                TouchedMessages::Named { subscription, messages } => {
                    self.decided(*subscription, messages.clone());
                }
                TouchedMessages::Gone { subscription } => {
                    self.expiring.forget(*subscription);
                    self.forget_closing(*subscription);
                    self.end_queue(*subscription, CancelReason::Deleted, QueueError::Unknown, wakes);
                }
            }
        }
    }

    fn touch(&mut self, queue: SubscriptionNo, told: impl FnOnce(&mut sabir_delivery::dispatch::Dispatcher)) {
        if let Some(led) = self.queues.get_mut(&queue) {
            told(&mut led.dispatcher);
            self.look_at(queue);
        }
    }

    fn settled(&mut self, queue: SubscriptionNo, messages: Range<u64>, why: Settlement) {
        self.touch(queue, |dispatcher| dispatcher.settled(messages, why));
    }

    /// What waited for being acquired is sent.
    fn acquired(
        &mut self,
        queue: SubscriptionNo,
        messages: &Range<u64>,
        owner: MessageOwner,
        wakes: &mut WakeBatch,
    ) {
        let Some(led) = self.queues.get_mut(&queue) else { return };
        if led.waiting.is_empty() {
            return;
        }
        for dealt in take_waiting(&mut led.waiting, messages, |dealt| dealt.owner == owner) {
            self.send(&dealt, wakes);
        }
    }

    /// A proposal about these messages is decided. What still waits for it is not to be had.
    fn decided(&mut self, queue: SubscriptionNo, messages: Range<u64>) {
        let Some(led) = self.queues.get_mut(&queue) else { return };
        led.dispatcher.decided(messages.clone());
        self.forget_waiting(queue, messages);
        self.tidy(queue);
    }

    /// Messages that waited for being acquired are not sent.
    pub(super) fn forget_waiting(&mut self, queue: SubscriptionNo, messages: Range<u64>) {
        let Some(led) = self.queues.get_mut(&queue).filter(|led| !led.waiting.is_empty()) else { return };
        let (policy, target) = (led.policy, led.target);
        for dealt in take_waiting(&mut led.waiting, &messages, |_| true) {
            self.refund(&dealt);
            let Some(member) = self.members.get_mut(&dealt.member) else { continue };
            member.waiting = member.waiting.saturating_sub(dealt.messages());
            let (owner, settles) = (member.owner, member.settles);
            if member.demand.is_none() {
                let gone = self.members.remove(&dealt.member).and_then(Member::into_getter);
                let again = gone.map(|replier| QueueRequest::Get { target, policy, owner, settles, replier });
                self.asked.extend(again.map(|ask| Asked { ask, is_behind: true }));
            }
        }
    }
}

/// Takes out what waits of these messages; runs that reach beyond them are cut.
fn take_waiting(
    waiting: &mut BTreeMap<u64, Dealt>,
    messages: &Range<u64>,
    wanted: impl Fn(&Dealt) -> bool,
) -> Vec<Dealt> {
    let before = waiting.range(..messages.start).next_back();
    let from =
        before.filter(|(_, dealt)| dealt.offsets.end > messages.start).map_or(messages.start, |(at, _)| *at);
    let found = waiting.range(from..messages.end).filter(|(_, dealt)| wanted(dealt));
    let found: Vec<u64> = found.map(|(at, _)| *at).collect();
    let mut taken = Vec::with_capacity(found.len());
    for at in found {
        let Some(dealt) = waiting.remove(&at) else { continue };
        let Range { start, end } = dealt.offsets;
        let (cut_from, cut_to) = (start.max(messages.start), end.min(messages.end));
        for rest in [start..cut_from, cut_to..end].into_iter().filter(|rest| !rest.is_empty()) {
            waiting.insert(rest.start, dealt.part(rest));
        }
        taken.push(dealt.part(cut_from..cut_to));
    }
    taken
}
