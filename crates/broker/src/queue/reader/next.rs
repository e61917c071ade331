//! The next message of a queue that can be read.

use std::time::{Duration, Instant};

use sabir_model::{ErrorAbout, ReadError};

use super::put_off::UnreadableMessages;
use super::{Found, QueueReader, StoredMessage, Unpack};
use crate::broker::Broker;
use crate::caller::Caller;
use crate::queue::{GotMessage, QueueError, QueueOwner, QueueTarget};

/// Messages that one request passes over since they cannot be read. Behind so many it finds none, and the next request goes on.
const MOST_PASSED: u64 = 4096;
/// The same of the time that this takes: each is taken by an entry.
const LONGEST: Duration = Duration::from_secs(2);

/// What was got of a queue.
#[derive(Debug)]
pub struct NextMessage {
    /// The message; none where no other is ready.
    pub read: Option<ReadMessage>,
    /// What could not be read before it: the owner has these, too.
    pub unreadable: Vec<UnreadableMessages>,
}

/// A message that was got and read.
#[derive(Debug)]
pub struct ReadMessage {
    /// Which it is.
    pub got: GotMessage,
    reader: QueueReader,
}

/// Why none was got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NextError {
    /// The queue is not used.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// None of its messages can be read. The owner has the one that was got.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl ReadMessage {
    /// The message.
    pub fn stored(&self) -> StoredMessage<'_> {
        self.reader.last_found()
    }
}

/// What could not be read so far.
#[derive(Default)]
struct Passed {
    count: u64,
    /// Up to where none can be read, from the last that was tried on.
    until: u64,
    unreadable: Vec<UnreadableMessages>,
}

impl Passed {
    fn add(&mut self, target: QueueTarget, owner: QueueOwner, offset: u64) {
        self.count += 1;
        let message = UnreadableMessages { target, owner, offsets: offset..offset + 1 };
        if !self.unreadable.last_mut().is_some_and(|last| last.join(&message)) {
            self.unreadable.push(message);
        }
    }

    /// Whether it is known of an offset that it cannot be read.
    fn knows(&self, offset: u64) -> bool {
        let behind = self.unreadable.last().map(|last| last.offsets.end);
        behind.is_some_and(|behind| (behind..self.until).contains(&offset))
    }
}

impl Broker {
    /// Gets and reads the first message of a queue that is ready and can be read, if there is one, as of now. The owner has it, and what could not be read
    /// before it: it settles them or gives them back. What was settled by the time that it was read is passed over.
    ///
    /// # Errors
    /// The queue is not used, or nothing of it can be read.
    pub async fn next_message(
        &self,
        caller: &Caller,
        target: QueueTarget,
        owner: QueueOwner,
        unpack: &(dyn Unpack + Sync),
    ) -> Result<NextMessage, ErrorAbout<NextError>> {
        let refused = |error: NextError| self.queues().about(target, error);
        let (mut passed, began) = (Passed::default(), Instant::now());
        let mut reader = QueueReader::new(target);
        while passed.count < MOST_PASSED && began.elapsed() < LONGEST {
            // What is settled is not read any more: that comes last.
            let getting = self.queues().get_of(caller, target, owner, false);
            self.flush();
            let Some(got) = getting.await.map_err(|error| refused(error.into()))? else { break };
            let offset = got.offset;
            if passed.knows(offset) {
                passed.add(target, owner, offset);
                continue;
            }
            match reader.read_one(self, unpack, offset).await.map_err(|error| refused(error.into()))? {
                Found::Message(_) => {
                    let read = Some(ReadMessage { got, reader });
                    return Ok(NextMessage { read, unreadable: passed.unreadable });
                }
                // The next one may be whole.
                Found::Unreadable { end, .. } => {
                    passed.until = end;
                    passed.add(target, owner, offset);
                }
                Found::Unread => passed.add(target, owner, offset),
                Found::Gone => {
                    self.queues().settle(target, owner, std::iter::once(offset..offset + 1));
                }
            }
        }
        Ok(NextMessage { read: None, unreadable: passed.unreadable })
    }
}
