//! Messages that go to a session as they are published and stand in no queue: at most once, in no journal, and bounded by what waits for their
//! consumer. A front end says what they are and which sessions they are for.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use sabir_base::wake::WakeBatch;

use crate::push::{Push, PushSeat};

/// A message in its front end's own form; one for all consumers that it is for.
pub type LiveMessage = Arc<dyn Any + Send + Sync>;

/// Where a session's consumer is left messages, from any thread.
#[derive(Debug, Clone)]
pub struct LiveConsumer {
    seat: PushSeat,
    consumer: u64,
    waiting: Arc<AtomicUsize>,
    most: usize,
}

/// Why a message was not left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotLeft {
    /// The consumer's connection has ended.
    #[error("the connection has ended")]
    Ended,
    /// With it, more bytes would wait than may.
    #[error("too much waits for the consumer")]
    Full,
}

impl LiveConsumer {
    /// The consumer to which a session gave that number. So many bytes wait for it at the most; a message that is larger is left where nothing
    /// waits.
    pub fn new(seat: PushSeat, consumer: u64, most: usize) -> Self {
        Self { seat, consumer, waiting: Arc::default(), most }
    }

    /// Leaves a message that takes so many bytes for as long as it waits. What wakes the session is gathered in `wakes`.
    ///
    /// # Errors
    /// It is not left.
    pub fn leave(&self, message: LiveMessage, bytes: usize, wakes: &mut WakeBatch) -> Result<(), NotLeft> {
        let fits = |waiting: usize| (waiting == 0 || waiting + bytes <= self.most).then_some(waiting + bytes);
        self.waiting.fetch_update(Relaxed, Relaxed, fits).map_err(|_| NotLeft::Full)?;
        let counted = WaitingBytes { bytes, waiting: self.waiting.clone() };
        let delivery = LiveDelivery { consumer: self.consumer, message, counted };
        self.seat.push(Push::Live(delivery), wakes).map_err(|_| NotLeft::Ended)
    }
}

/// A message for a session's consumer.
pub struct LiveDelivery {
    /// The number that the session gave the consumer, which may have ended since.
    pub consumer: u64,
    /// The message.
    pub message: LiveMessage,
    counted: WaitingBytes,
}

impl fmt::Debug for LiveDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveDelivery")
            .field("consumer", &self.consumer)
            .field("bytes", &self.counted.bytes)
            .finish_non_exhaustive()
    }
}

/// What a message takes of what may wait.
struct WaitingBytes {
    bytes: usize,
    waiting: Arc<AtomicUsize>,
}

impl Drop for WaitingBytes {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use sabir_base::outbox::Outbox;

    use super::*;

    #[test]
    fn what_waits_is_bounded_by_its_bytes_and_comes_in_order() {
        let outbox = Outbox::<Push>::new();
        let (consumer, mut wakes) = (LiveConsumer::new(outbox.seat(), 7, 100), WakeBatch::default());
        let mut leave = |number: u32, bytes| consumer.leave(Arc::new(number), bytes, &mut wakes);
        assert_eq!(leave(0, 1000), Ok(()), "one that is larger, where nothing waits");
        assert_eq!(leave(1, 1), Err(NotLeft::Full));
        let mut taken = VecDeque::new();
        outbox.take(&mut taken);
        assert_eq!(leave(1, 1), Err(NotLeft::Full), "the session has it still");
        taken.clear();
        assert_eq!((leave(1, 60), leave(2, 41), leave(3, 40)), (Ok(()), Err(NotLeft::Full), Ok(())));
        outbox.take(&mut taken);
        let numbers = taken.iter().map(|push| match push {
            Push::Live(delivery) => (delivery.consumer, *delivery.message.downcast_ref::<u32>().unwrap()),
            other => panic!("{other:?}"),
        });
        assert_eq!(numbers.collect::<Vec<_>>(), [(7, 1), (7, 3)]);
        taken.clear();
        outbox.end();
        assert_eq!(
            (leave(4, 1), leave(5, 100)),
            (Err(NotLeft::Ended), Err(NotLeft::Ended)),
            "and no room is lost with it"
        );
    }
}
