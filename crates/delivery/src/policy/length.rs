//! How long a queue may be.

pub use sabir_model::Overflow;

/// The ready messages of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// How many.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A queue's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthLimit {
    /// The most ready messages.
    pub messages: Option<u64>,
    /// Their most bytes.
    pub bytes: Option<u64>,
    /// What is done about one too many.
    pub overflow: Overflow,
}

/// Whether a message is taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is.
    Admitted,
    /// It is not.
    Refused {
        /// Whether it is dead-lettered.
        dead_letter: bool,
    },
}

impl LengthLimit {
    /// Whether it is more than there may be.
    pub fn is_exceeded(&self, backlog: Backlog) -> bool {
        self.messages.is_some_and(|most| backlog.messages > most)
            || self.bytes.is_some_and(|most| backlog.bytes > most)
    }

    /// Judges a message where it would be published.
    pub fn judge(&self, backlog: Backlog, bytes: u32) -> Admission {
        let with = Backlog {
            messages: backlog.messages.saturating_add(1),
            bytes: backlog.bytes.saturating_add(bytes.into()),
        };
        match self.overflow {
            Overflow::Reject if self.is_exceeded(with) => Admission::Refused { dead_letter: false },
            Overflow::RejectAndDeadLetter if self.is_exceeded(with) => {
                Admission::Refused { dead_letter: true }
            }
            _ => Admission::Admitted,
        }
    }

    /// How many messages of one size would have to go for the others to be within the limit.
    pub fn overrun(&self, backlog: Backlog, size: u32) -> u64 {
        let by_count = self.messages.map_or(0, |most| backlog.messages.saturating_sub(most));
        let bytes = self.bytes.map_or(0, |most| backlog.bytes.saturating_sub(most));
        let by_bytes = match (bytes, size) {
            (0, _) => 0,
            (_, 0) => u64::MAX,
            (bytes, size) => bytes.div_ceil(size.into()),
        };
        by_count.max(by_bytes)
    }

    /// How many of the oldest ready messages are to go, given their sizes from the oldest on.
    pub fn excess(&self, mut backlog: Backlog, sizes: impl IntoIterator<Item = u32>) -> u64 {
        if self.overflow != Overflow::DropHead {
            return 0;
        }
        let mut dropped = 0;
        for bytes in sizes {
            if !self.is_exceeded(backlog) {
                break;
            }
            backlog.messages = backlog.messages.saturating_sub(1);
            backlog.bytes = backlog.bytes.saturating_sub(bytes.into());
            dropped += 1;
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(messages: Option<u64>, bytes: Option<u64>, overflow: Overflow) -> LengthLimit {
        LengthLimit { messages, bytes, overflow }
    }

    #[test]
    fn a_full_queue_refuses_by_count_and_by_bytes() {
        let full = Backlog { messages: 2, bytes: 90 };
        let refused = Admission::Refused { dead_letter: false };
        assert_eq!(limit(Some(2), None, Overflow::Reject).judge(full, 1), refused);
        assert_eq!(limit(Some(3), None, Overflow::Reject).judge(full, 1), Admission::Admitted);
        assert_eq!(limit(None, Some(100), Overflow::Reject).judge(full, 11), refused);
        assert_eq!(limit(None, Some(100), Overflow::Reject).judge(full, 10), Admission::Admitted);
        let dead = Admission::Refused { dead_letter: true };
        assert_eq!(limit(Some(0), None, Overflow::RejectAndDeadLetter).judge(Backlog::default(), 0), dead);
        assert_eq!(limit(None, None, Overflow::Reject).judge(full, u32::MAX), Admission::Admitted);
    }

    #[test]
    fn the_oldest_go_until_what_is_left_fits() {
        let backlog = Backlog { messages: 4, bytes: 100 };
        let sizes = [10, 20, 30, 40];
        assert_eq!(limit(Some(2), None, Overflow::DropHead).excess(backlog, sizes), 2);
        assert_eq!(limit(None, Some(70), Overflow::DropHead).excess(backlog, sizes), 2);
        assert_eq!(limit(Some(3), Some(40), Overflow::DropHead).excess(backlog, sizes), 3);
        assert_eq!(limit(Some(4), Some(100), Overflow::DropHead).excess(backlog, sizes), 0);
        assert_eq!(limit(Some(0), None, Overflow::Reject).excess(backlog, sizes), 0);
        let newcomer = limit(Some(1), None, Overflow::DropHead).judge(backlog, 5);
        assert_eq!(newcomer, Admission::Admitted, "it is the oldest that go");
    }
}
