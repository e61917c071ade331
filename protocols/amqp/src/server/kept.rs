//! What a connection's channels and consumers take of the node's memory, for as long as they are there.

use sabir_net::{FrameMemory, Grant, MemoryPart};

use crate::wire::{ConnectionException, ReplyCode};

/// Bytes that a channel takes, here and in the tables of the broker.
const CHANNEL: usize = 1024;
/// The same of a consumer without its tag, which is kept twice.
const CONSUMER: usize = 1024;
/// The same of each further place that it consumes from.
const FURTHER: usize = 512;
/// The same of a queue of which something may have been delivered on a channel.
const QUEUE: usize = 64;
/// What no connection is counted for.
const FREE: usize = 4 * CHANNEL;
/// What is granted at a time.
const PART: usize = 4 * 1024;
/// Up to so much a connection is granted out of what is there for little things, if there is no other memory.
const LITTLE: usize = 32 * 1024;

/// The memory that a connection has for its channels and consumers.
#[derive(Debug, Default)]
pub(super) struct KeptMemory {
    /// Bytes of consumers.
    consumers: usize,
    /// Queues that channels have.
    queues: usize,
    common: Option<Grant>,
    little: Option<Grant>,
}

/// Bytes that a consumer takes that consumes from so many places: one for a queue, one for each partition of a topic.
fn consumer(tag: &str, targets: usize) -> usize {
    CONSUMER + 2 * tag.len() + targets.saturating_sub(1) * FURTHER
}

impl KeptMemory {
    /// Sees to it that there is memory for another channel, of so many.
    ///
    /// # Errors
    /// There is none; so for the others.
    pub(super) fn admit_channel(
        &mut self,
        memory: &FrameMemory,
        channels: usize,
    ) -> Result<(), ConnectionException> {
        self.admit(memory, channels, CHANNEL, "a channel")
    }

    /// The same for a consumer, where the connection has so many channels.
    pub(super) fn admit_consumer(
        &mut self,
        memory: &FrameMemory,
        channels: usize,
        tag: &str,
        targets: usize,
    ) -> Result<(), ConnectionException> {
        self.admit(memory, channels, consumer(tag, targets) + targets * QUEUE, "a consumer")
    }

    /// The same for so many queues.
    pub(super) fn admit_queues(
        &mut self,
        memory: &FrameMemory,
        channels: usize,
        queues: usize,
    ) -> Result<(), ConnectionException> {
        self.admit(memory, channels, queues * QUEUE, "another queue")
    }

    pub(super) fn add_consumer(&mut self, tag: &str, targets: usize) {
        self.consumers += consumer(tag, targets);
    }

    pub(super) fn remove_consumer(&mut self, tag: &str, targets: usize) {
        self.consumers -= consumer(tag, targets);
    }

    /// The queues of a channel were so many, and are so many now.
    pub(super) fn change_queues(&mut self, before: usize, now: usize) {
        self.queues = self.queues + now - before;
    }

    /// Gives back what is not needed any more.
    pub(super) fn settle(&mut self, channels: usize) {
        let (wanted, granted) = (self.wanted(channels, 0), self.granted());
        if wanted == 0 {
            (self.common, self.little) = (None, None);
        } else if let Some(common) = &mut self.common
            && granted > 2 * wanted + PART
        {
            let little = self.little.as_ref().map_or(0, Grant::bytes);
            common.resize(wanted.next_multiple_of(PART).saturating_sub(little));
        }
    }

    fn admit(
        &mut self,
        memory: &FrameMemory,
        channels: usize,
        more: usize,
        what: &str,
    ) -> Result<(), ConnectionException> {
        let lacks = self.wanted(channels, more).saturating_sub(self.granted());
        if lacks == 0 || self.grow(memory, lacks.next_multiple_of(PART)) {
            return Ok(());
        }
        let text = format!("there is no memory left for {what} (net.frame_memory)");
        Err(ConnectionException::new(ReplyCode::ResourceError, text))
    }

    fn grow(&mut self, memory: &FrameMemory, bytes: usize) -> bool {
        if let Some(grant) = memory.try_take_of_plenty(bytes) {
            join(&mut self.common, grant);
            return true;
        }
        let little =
            (self.granted() + bytes <= LITTLE).then(|| memory.try_take_little(MemoryPart::Common, bytes));
        let granted = little.flatten();
        granted.map(|grant| join(&mut self.little, grant)).is_some()
    }

    fn wanted(&self, channels: usize, more: usize) -> usize {
        (channels * CHANNEL + self.consumers + self.queues * QUEUE + more).saturating_sub(FREE)
    }

    fn granted(&self) -> usize {
        [&self.common, &self.little].into_iter().flatten().map(Grant::bytes).sum()
    }
}

fn join(held: &mut Option<Grant>, grant: Grant) {
    match held {
        Some(held) => held.absorb(grant),
        None => *held = Some(grant),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_and_consumers_take_no_more_than_half_of_all_and_give_it_back() {
        let memory = FrameMemory::new(256 * 1024);
        let (mut first, mut second) = (KeptMemory::default(), KeptMemory::default());
        let fill = |kept: &mut KeptMemory| {
            (0..).take_while(|open| kept.admit_channel(&memory, *open).is_ok()).count()
        };
        assert_eq!(fill(&mut first), 4 + 128, "half of it");
        assert_eq!(fill(&mut second), 4 + 32, "one that has few has what is there for little things");
        assert!(first.admit_consumer(&memory, 132, "tag", 1).is_err());
        let refused = second.admit_consumer(&memory, 36, "tag", 1).unwrap_err();
        assert_eq!(refused.code, ReplyCode::ResourceError);
        first.settle(20);
        assert!(memory.granted() < 24 * 1024, "{}", memory.granted());
        second.admit_consumer(&memory, 36, "tag", 1).unwrap();
        second.add_consumer("tag", 1);
        second.remove_consumer("tag", 1);
        first.settle(4);
        second.settle(0);
        assert_eq!((memory.granted(), memory.granted_little()), (0, 0));
    }
}
