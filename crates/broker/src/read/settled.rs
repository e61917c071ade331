//! Which messages of a queue are done with: a reader by position sees gaps there.

use std::ops::Range;

use sabir_delivery::subscription::{MessageState, Subscription};
use sabir_model::Offset;

use super::types::ReadTarget;
use crate::broker::Broker;
use crate::state::subscription_of;

impl Broker {
    /// The ranges of `offsets` that a queue is done with although its log still has them, in order. Nothing for a topic that is no queue.
    ///
    /// What is settled later may stand among what was read before: ask after reading.
    pub fn settled(&self, target: ReadTarget, offsets: Range<Offset>) -> Vec<Range<Offset>> {
        let Some(shard) = self.shard(target.shard) else { return Vec::new() };
        let state = shard.state.read();
        let subscription = state.subscriptions.get(subscription_of(target.partition));
        subscription.map_or_else(Vec::new, |subscription| settled_in(subscription, offsets))
    }
}

fn settled_in(subscription: &Subscription, offsets: Range<Offset>) -> Vec<Range<Offset>> {
    let unsigned = |offset: Offset| u64::try_from(offset.0).unwrap_or(0);
    let signed = |offset: u64| Offset(i64::try_from(offset).unwrap_or(i64::MAX));
    let (mut at, end) = (unsigned(offsets.start), unsigned(offsets.end).min(subscription.end()));
    let mut settled: Vec<Range<Offset>> = Vec::new();
    while at < end {
        let (state, next) = subscription.run(at);
        let next = next.clamp(at + 1, end);
        match settled.last_mut() {
            _ if state != MessageState::Settled => {}
            Some(last) if last.end == signed(at) => last.end = signed(next),
            _ => settled.push(signed(at)..signed(next)),
        }
        at = next;
    }
    settled
}
