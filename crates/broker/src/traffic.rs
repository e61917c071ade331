//! Bytes in and out by topic, counted where a batch is answered: one addition, without a lock.
//!
//! So many topics at most have counters of their own, those that had traffic first; the others share those of the [rest](OTHER).
//! A topic keeps what it has until it is deleted, so that no counter ever falls.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// What the topics that are not counted by themselves are shown as. A topic of this name is one of them.
pub const OTHER: &str = "other";

/// Bytes of batches since the start of the process.
#[derive(Debug, Default)]
pub struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Traffic {
    /// Bytes of batches that were appended, as producers sent them.
    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// Bytes of batches that consumers were answered with.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }
}

/// Which topics have counters of their own.
#[derive(Debug)]
pub(crate) struct TrafficBook {
    /// How many topics may have.
    pub(crate) most: usize,
    counted: AtomicUsize,
    pub(crate) other: Arc<Traffic>,
}

impl TrafficBook {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, counted: AtomicUsize::new(0), other: Arc::default() })
    }

    fn open(&self) -> Arc<Traffic> {
        let admitted = self.counted.fetch_update(Relaxed, Relaxed, |n| (n < self.most).then_some(n + 1));
        admitted.map_or_else(|_| self.other.clone(), |_| Arc::default())
    }
}

/// Counts the bytes of one topic, or has them counted with the rest. It is no part of what the topic is: all are equal.
#[derive(Debug, Default)]
pub struct TopicTraffic {
    /// Not there before the topic is shown for the first time.
    book: OnceLock<Arc<TrafficBook>>,
    /// Not there before the first bytes.
    counters: OnceLock<Arc<Traffic>>,
}

impl TopicTraffic {
    /// Has the topic of this name counted in a book, from now on.
    pub(crate) fn enter(&self, book: &Arc<TrafficBook>, name: &str) {
        if self.book.set(book.clone()).is_ok() && name == OTHER {
            let _ = self.counters.set(book.other.clone());
        }
    }

    fn counters(&self) -> &Traffic {
        self.counters.get_or_init(|| self.book.get().map_or_else(Arc::default, |book| book.open()))
    }

    /// Counts a batch that was appended.
    pub(crate) fn receive(&self, bytes: usize) {
        self.counters().received.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts batches that a consumer is answered with. A front end calls it once for each answer, not for what it reads and drops.
    pub fn send(&self, bytes: usize) {
        self.counters().sent.fetch_add(bytes as u64, Relaxed);
    }

    /// The topic's own counters, if it has any.
    pub fn own(&self) -> Option<&Traffic> {
        let counters = self.counters.get()?;
        let shared = self.book.get().is_some_and(|book| Arc::ptr_eq(&book.other, counters));
        (!shared).then_some(counters)
    }
}

impl Drop for TopicTraffic {
    fn drop(&mut self) {
        if let (true, Some(book)) = (self.own().is_some(), self.book.get()) {
            book.counted.fetch_sub(1, Relaxed);
        }
    }
}

impl PartialEq for TopicTraffic {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for TopicTraffic {}

#[cfg(test)]
mod tests {
    use super::*;

    fn entered(book: &Arc<TrafficBook>, name: &str) -> TopicTraffic {
        let traffic = TopicTraffic::default();
        traffic.enter(book, name);
        traffic
    }

    #[test]
    fn topics_beyond_the_limit_are_counted_together_and_a_deleted_one_makes_room() {
        let book = TrafficBook::new(1);
        let (a, b) = (entered(&book, "a"), entered(&book, "b"));
        assert!(a.own().is_none(), "nothing has come yet");
        a.receive(10);
        b.receive(5);
        b.send(7);
        let both = |traffic: &Traffic| (traffic.received(), traffic.sent());
        assert_eq!(a.own().map(both), Some((10, 0)));
        assert!(b.own().is_none());
        assert_eq!(both(&book.other), (5, 7));
        drop(a);
        let c = entered(&book, "c");
        c.send(3);
        b.send(1);
        assert_eq!(c.own().map(both), Some((0, 3)));
        assert_eq!(both(&book.other), (5, 8), "who is counted with the rest stays there");
    }

    #[test]
    fn a_topic_with_the_name_of_the_rest_is_one_of_them() {
        let book = TrafficBook::new(9);
        let other = entered(&book, OTHER);
        other.receive(4);
        assert!(other.own().is_none());
        assert_eq!((book.other.received(), book.counted.load(Relaxed)), (4, 0));
        drop(other);
        assert_eq!(book.counted.load(Relaxed), 0);
    }
}
