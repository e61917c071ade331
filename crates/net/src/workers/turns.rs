//! Who of those that have begun works next.

use std::collections::VecDeque;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::JobSize;

/// Once smaller ones have worked so many times as long as a larger one did for its last piece, one of these has a turn again: so they get on beside
/// any number of small ones, and a small one waits for a piece of them and not for one between each few of its like.
const SMALLER: u32 = 3;

/// A number of turns: a thread that has one works, the others wait, the small before the large and each in line.
#[derive(Debug)]
pub(super) struct Turns(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Nobody waits while there is one.
    free: usize,
    waiting: [VecDeque<SyncSender<()>>; JobSize::COUNT],
    /// How long smaller ones may work until a larger one has a turn.
    left: Duration,
    /// The size that had the last such turn: the larger ones have them one after the other.
    last_larger: JobSize,
}

impl State {
    /// Whose turn is next, `own` being there to go on.
    fn next(&mut self, own: Option<JobSize>) -> Option<JobSize> {
        let waits = |size: &JobSize| !self.waiting[*size as usize].is_empty();
        let smallest = JobSize::ALL.into_iter().find(waits)?;
        let least = own.map_or(smallest, |own| own.min(smallest));
        let mut larger = JobSize::ALL.into_iter().filter(|size| *size > least && waits(size));
        if self.left.is_zero()
            && let Some(next) = larger.clone().find(|size| *size > self.last_larger).or_else(|| larger.next())
        {
            self.last_larger = next;
            return Some(next);
        }
        (smallest == least).then_some(smallest)
    }

    /// A piece of a job has taken so long.
    fn worked(&mut self, size: JobSize, took: Duration) {
        let smaller_waits = self.waiting[..size as usize].iter().any(|waiting| !waiting.is_empty());
        self.left =
            if smaller_waits { self.left.max(SMALLER * took) } else { self.left.saturating_sub(took) };
    }

    fn give(&mut self, to: JobSize) -> bool {
        // One that waits does so until it is told.
        self.waiting[to as usize].pop_front().is_some_and(|waiter| waiter.send(()).is_ok())
    }
}

impl Turns {
    pub(super) fn new(count: usize) -> Self {
        let (waiting, left, last_larger) = (Default::default(), Duration::ZERO, JobSize::Small);
        Self(Mutex::new(State { free: count, waiting, left, last_larger }))
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

    fn give_back(&self, size: JobSize, took: Duration) {
        let mut state = self.0.lock();
        state.worked(size, took);
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
        let took = self.began.elapsed();
        self.worked += took;
        self.began += took;
        let mut state = self.turns.0.lock();
        state.worked(self.size, took);
        let Some(next) = state.next(Some(self.size)) else { return };
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
        self.turns.give_back(self.size, self.began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// One turn, and those that take it, by a clock that is theirs alone.
    struct Model {
        state: State,
        /// The size that works, if one does.
        working: Option<JobSize>,
    }

    impl Model {
        fn new() -> Self {
            Self { state: Turns::new(0).0.into_inner(), working: None }
        }

        fn wait(&mut self, size: JobSize) {
            self.state.waiting[size as usize].push_back(sync_channel(1).0);
        }

        /// A piece of what works has taken so long; who works next. What is to go on waits for it.
        fn worked(&mut self, took: Duration, goes_on: bool) -> Option<JobSize> {
            let size = self.working.take();
            size.into_iter().for_each(|size| self.state.worked(size, took));
            let own = size.filter(|_| goes_on);
            let next = self.state.next(own);
            match next {
                Some(next) => {
                    self.state.waiting[next as usize].pop_front().unwrap();
                    own.into_iter().for_each(|own| self.wait(own));
                    self.working = Some(next);
                }
                None => self.working = own,
            }
            self.working
        }
    }

    #[test]
    fn a_small_one_waits_for_one_piece_of_a_large_one_however_many_go_before_it() {
        let piece = 400 * MS;
        for large in [JobSize::Medium, JobSize::Large, JobSize::Slow] {
            let mut model = Model::new();
            (0..60).for_each(|_| model.wait(large));
            assert_eq!(model.worked(MS, false), Some(large));
            // They come while it works at its first piece; the last of them is the one that is looked at.
            (0..200).for_each(|_| model.wait(JobSize::Small));
            let (mut next, mut pieces) = (model.worked(piece, true), 1);
            while !model.state.waiting[JobSize::Small as usize].is_empty() {
                pieces += usize::from(next == Some(large));
                let took = if next == Some(large) { piece } else { MS };
                next = model.worked(took, next == Some(large));
            }
            assert_eq!((next, pieces), (Some(JobSize::Small), 1), "{large:?}");
        }
    }

    #[test]
    fn each_larger_size_gets_on_beside_any_number_of_small_ones() {
        let larger = [JobSize::Medium, JobSize::Large, JobSize::Slow];
        let mut model = Model::new();
        larger.iter().for_each(|size| model.wait(*size));
        let mut pieces = Vec::new();
        for _ in 0..1000 {
            model.wait(JobSize::Small);
            let is_small = model.working == Some(JobSize::Small);
            let next = model.worked(if is_small { MS } else { 20 * MS }, !is_small).unwrap();
            pieces.extend((next != JobSize::Small).then_some(next));
        }
        let few = 1000 / (20 * SMALLER as usize + 1);
        assert!(
            (few - 1..=few + 1).contains(&pieces.len()),
            "{}: a piece for so many small ones",
            pieces.len()
        );
        assert!(pieces.chunks(3).all(|one| *one == larger[..one.len()]), "{pieces:?}");
    }

    #[test]
    fn who_works_goes_on_before_larger_ones_until_they_are_due_and_those_of_a_size_alternate() {
        let mut model = Model::new();
        model.working = Some(JobSize::Small);
        model.wait(JobSize::Large);
        model.state.left = 3 * MS;
        assert_eq!(model.worked(MS, true), Some(JobSize::Small));
        assert_eq!(model.worked(MS, true), Some(JobSize::Small));
        assert_eq!(model.worked(MS, true), Some(JobSize::Large));
        assert_eq!(model.worked(MS, true), Some(JobSize::Small), "it waited for it");
        let mut model = Model::new();
        model.working = Some(JobSize::Large);
        model.wait(JobSize::Large);
        assert_eq!(model.worked(MS, true), Some(JobSize::Large));
        assert_eq!(model.state.waiting[JobSize::Large as usize].len(), 1);
    }

    #[test]
    fn the_small_go_first_and_each_in_line() {
        let turns = Turns::new(1);
        let done = Mutex::new(Vec::new());
        let first = turns.take(JobSize::Small);
        turns.0.lock().left = Duration::MAX;
        std::thread::scope(|scope| {
            for size in [JobSize::Slow, JobSize::Large, JobSize::Small, JobSize::Small] {
                let waiting = || turns.0.lock().waiting.iter().map(VecDeque::len).sum::<usize>();
                let (before, turns, done) = (waiting(), &turns, &done);
                scope.spawn(move || {
                    let _turn = turns.take(size);
                    done.lock().push(size);
                });
                while waiting() == before {
                    std::thread::yield_now();
                }
            }
            drop(first);
        });
        assert_eq!(done.into_inner(), [JobSize::Small, JobSize::Small, JobSize::Large, JobSize::Slow]);
        assert_eq!(turns.0.lock().free, 1);
    }
}
