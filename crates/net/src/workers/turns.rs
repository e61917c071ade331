//! Who of those that have begun works next.

use std::collections::VecDeque;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::JobSize;

/// Every so many turns the largest that waits has one, so that it gets on beside any number of small ones.
const LARGEST_EVERY: usize = 4;

/// A number of turns: a thread that has one works, the others wait, the small before the large and each in line.
#[derive(Debug)]
pub(super) struct Turns(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Nobody waits while there is one.
    free: usize,
    waiting: [VecDeque<SyncSender<()>>; JobSize::COUNT],
    given: usize,
}

impl State {
    /// Whose turn is next, `own` being there to go on.
    fn next(&mut self, own: Option<JobSize>) -> Option<JobSize> {
        let waits = |size: &JobSize| !self.waiting[*size as usize].is_empty();
        let smallest = JobSize::ALL.into_iter().find(waits)?;
        let largest = JobSize::ALL.into_iter().rev().find(waits)?;
        self.given += 1;
        match own {
            _ if self.given.is_multiple_of(LARGEST_EVERY) => Some(largest),
            Some(own) if (own as usize) < smallest as usize => None,
            _ => Some(smallest),
        }
    }

    fn give(&mut self, to: JobSize) -> bool {
        // One that waits does so until it is told.
        self.waiting[to as usize].pop_front().is_some_and(|waiter| waiter.send(()).is_ok())
    }
}

impl Turns {
    pub(super) fn new(count: usize) -> Self {
        Self(Mutex::new(State { free: count, waiting: Default::default(), given: 0 }))
    }

    /// Waits for a turn.
    pub(super) fn take(&self, size: JobSize) -> Turn<'_> {
        let mut state = self.0.lock();
        if state.free > 0 {
            state.free -= 1;
        } else {
            let (told, turn) = sync_channel(1);
            state.waiting[size as usize].push_back(told);
            drop(state);
            // The sender is dropped only once it has sent.
            let _ = turn.recv();
        }
        Turn { turns: self, size, began: Instant::now(), worked: Duration::ZERO }
    }

    fn give_back(&self) {
        let mut state = self.0.lock();
        match state.next(None) {
            Some(next) if state.give(next) => {}
            _ => state.free += 1,
        }
    }
}

/// The right to work, until it is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    turns: &'a Turns,
    size: JobSize,
    began: Instant,
    worked: Duration,
}

impl Turn<'_> {
    /// Lets others work if it is their turn, and waits for the next.
    pub fn pause(&mut self) {
        let mut state = self.turns.0.lock();
        let Some(next) = state.next(Some(self.size)) else { return };
        self.worked += self.began.elapsed();
        let (told, turn) = sync_channel(1);
        state.give(next);
        state.waiting[self.size as usize].push_back(told);
        drop(state);
        // The sender is dropped only once it has sent.
        let _ = turn.recv();
        self.began = Instant::now();
    }

    /// For how long it has worked.
    pub fn worked(&self) -> Duration {
        self.worked + self.began.elapsed()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.give_back();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_small_go_first_and_the_largest_gets_on_beside_them() {
        let turns = Arc::new(Turns::new(1));
        let done = Arc::new(Mutex::new(Vec::new()));
        let first = turns.take(JobSize::Small);
        let mut threads = Vec::new();
        for size in
            [JobSize::Slow, JobSize::Large, JobSize::Small, JobSize::Small, JobSize::Small, JobSize::Small]
        {
            let (turns, done) = (turns.clone(), done.clone());
            let waiting = turns.0.lock().waiting.iter().map(VecDeque::len).sum::<usize>();
            let other = turns.clone();
            threads.push(std::thread::spawn(move || {
                let _turn = other.take(size);
                done.lock().push(size);
            }));
            while turns.0.lock().waiting.iter().map(VecDeque::len).sum::<usize>() == waiting {
                std::thread::yield_now();
            }
        }
        drop(first);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let expected =
            [JobSize::Small, JobSize::Small, JobSize::Small, JobSize::Slow, JobSize::Small, JobSize::Large];
        assert_eq!(*done.lock(), expected);
        assert_eq!(turns.0.lock().free, 1);
    }

    #[test]
    fn a_small_one_keeps_its_turn_before_larger_ones_but_for_some_of_them() {
        let turns = Turns::new(1);
        let mut small = turns.take(JobSize::Small);
        std::thread::scope(|scope| {
            let large = scope.spawn(|| drop(turns.take(JobSize::Large)));
            while turns.0.lock().waiting[JobSize::Large as usize].is_empty() {
                std::thread::yield_now();
            }
            for _ in 1..LARGEST_EVERY {
                assert!(!large.is_finished());
                small.pause();
            }
            assert!(!large.is_finished());
            small.pause();
            large.join().unwrap();
        });
    }
}
