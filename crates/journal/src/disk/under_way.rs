//! Since when a disk has been at what it has not finished: one that hangs says nothing by itself.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What is under way, of many threads; few at a time.
#[derive(Debug, Default)]
pub struct UnderWay(Mutex<Operations>);

#[derive(Debug, Default)]
struct Operations {
    /// The numbers of those that were begun, and when.
    begun: Vec<(Operation, Instant)>,
    calls: u64,
    /// When a change was last begun or done.
    changed: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Submitted(u64),
    Call(u64),
}

/// Ends its operation when it is dropped, however that comes.
struct Call<'a> {
    under_way: &'a UnderWay,
    number: u64,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.under_way.0.lock().end(Operation::Call(self.number));
    }
}

impl Operations {
    fn end(&mut self, operation: Operation) {
        if let Some(at) = self.begun.iter().position(|(begun, _)| *begun == operation) {
            self.begun.swap_remove(at);
        }
    }
}

impl UnderWay {
    /// Does something that blocks.
    pub fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut operations = self.0.lock();
        operations.calls += 1;
        let number = operations.calls;
        operations.begun.push((Operation::Call(number), Instant::now()));
        drop(operations);
        let _call = Call { under_way: self, number };
        work()
    }

    /// Does something that blocks and changes what the disk has.
    pub(super) fn changing<T>(&self, work: impl FnOnce() -> T) -> T {
        let changed = || self.0.lock().changed = Some(Instant::now());
        changed();
        let done = self.during(work);
        changed();
        done
    }

    /// A change was submitted, or is about to be.
    pub(super) fn submitted(&self, token: u64) {
        let now = Instant::now();
        let mut operations = self.0.lock();
        operations.begun.push((Operation::Submitted(token), now));
        operations.changed = Some(now);
    }

    /// What was submitted under these tokens is done.
    pub(super) fn done(&self, tokens: impl Iterator<Item = u64>) {
        let mut operations = self.0.lock();
        operations.changed = Some(Instant::now());
        tokens.for_each(|token| operations.end(Operation::Submitted(token)));
    }

    /// How long the oldest has been under way; zero if there is none.
    pub fn age(&self) -> Duration {
        self.oldest(|_| true)
    }

    /// The same of those that a thread waits for itself.
    pub(super) fn age_of_calls(&self) -> Duration {
        self.oldest(|operation| matches!(operation, Operation::Call(_)))
    }

    fn oldest(&self, counts: impl Fn(Operation) -> bool) -> Duration {
        let operations = self.0.lock();
        let oldest = operations.begun.iter().filter(|(of, _)| counts(*of)).map(|(_, at)| *at).min();
        oldest.map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// Since when no change has been begun or done, if one ever was.
    pub(super) fn unchanged(&self) -> Option<Duration> {
        self.0.lock().changed.map(|at| at.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_is_not_done_counts() {
        let under_way = UnderWay::default();
        let pause = Duration::from_millis(20);
        assert_eq!(under_way.age(), Duration::ZERO);
        under_way.submitted(1);
        std::thread::sleep(pause);
        let second = Instant::now();
        under_way.submitted(2);
        assert!(under_way.age() >= pause);
        under_way.done([1].into_iter());
        let age = under_way.age();
        assert!(age <= second.elapsed(), "{age:?}");
        under_way.done([2, 3].into_iter());
        assert_eq!(under_way.age(), Duration::ZERO);
        let within = under_way.during(|| {
            std::thread::sleep(pause);
            under_way.age()
        });
        assert!(within >= pause && under_way.age() == Duration::ZERO);
    }

    #[test]
    fn a_call_that_panics_is_over() {
        let under_way = UnderWay::default();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            under_way.during(|| panic!("on purpose"));
        }));
        assert!(panicked.is_err());
        assert_eq!(under_way.age(), Duration::ZERO);
    }
}
