//! Dead letters that go back to the queues that gave them up.

use std::sync::Arc;

use sabir_delivery::policy::DeathReason;
use sabir_model::FrontendNo;

use super::driver::Collecting;
use super::letters::{Group, LetterRecord};
use super::messages::{FoundRecord, WaitingMessage};
use super::target::{LetterTargets, Origin};
use super::waiting::Dropped;
use crate::caller::{Caller, is_routed_to};
use crate::catalog::Topic;
use crate::converter::RedrivenRecord;
use crate::definitions::Definitions;

/// The queue of that name that a dead letter goes back to, if there is one.
pub(super) fn origin_named(definitions: &Definitions, caller: &Caller, name: &str) -> Option<Arc<Topic>> {
    let view = definitions.view();
    let origin = view.topic_of(caller, name).filter(|topic| is_routed_to(topic))?;
    origin.config.queue().is_some_and(|queue| !queue.delays).then(|| origin.clone())
}

impl Collecting<'_> {
    /// Adds a message that goes back; one of which it is not known where to stays where it is.
    pub(super) fn send_back(&mut self, message: &WaitingMessage<'_>) {
        let (queue, offset) = (self.source.queue, message.offset);
        if self.known.relayed.take_staying(queue, offset) {
            return self.keep(offset);
        }
        let stored = match message.found {
            FoundRecord::Record(stored) => stored,
            // It goes nowhere, and is not counted as if it had.
            FoundRecord::Gone | FoundRecord::Unreadable => return self.keep(offset),
        };
        let topic = self.source.topic.clone();
        let Some((redrive, caller)) = self.driver.redriver(stored.origin, &topic) else {
            return self.keep(offset);
        };
        let mut is_added = false;
        redrive(&stored.record, &topic.name, &mut |record| {
            is_added = self.add_back(message, record, (&caller, stored.origin));
        });
        if !is_added {
            self.keep(offset);
        }
    }

    /// Tells whether its origin is there, and takes anything of that kind.
    fn add_back(
        &mut self,
        message: &WaitingMessage<'_>,
        record: &RedrivenRecord<'_>,
        (caller, number): (&Caller, FrontendNo),
    ) -> bool {
        let Some(origin) = origin_named(&self.driver.definitions, caller, record.origin) else {
            return false;
        };
        let of = Origin { shard: self.shard.id, front_end: number, hash: 0 };
        let mut targets = LetterTargets::default();
        if !targets.add(caller, &origin, of) {
            return false;
        }
        targets.leave_out(&self.known.relayed, self.source.queue, message.offset);
        let RedrivenRecord { facts, key, value, headers, .. } = record;
        let record = LetterRecord { key: *key, value: *value, headers, facts };
        let time_ms = self.driver.wall_ms();
        self.join(message, &record, targets, (caller, number), time_ms, Dropped::default());
        true
    }

    /// A message stays where it is, and is ready again.
    fn keep(&mut self, offset: u64) {
        self.close();
        self.letters.keep(self.source.queue, offset, DeathReason::Redriven);
    }

    /// Messages are published where they go elsewhere: what was not taken there stays.
    pub(super) fn close_redriven(&mut self, group: Group) {
        if !group.targets.here.is_empty() {
            return self.letters.publish(group);
        }
        for offset in group.first..group.end() {
            if self.known.relayed.take_staying(group.queue, offset) {
                self.letters.keep(group.queue, offset, group.reason);
            } else {
                self.letters.settle(group.queue, offset, 1, group.reason);
            }
        }
    }
}
