//! Which work of what has begun goes on next.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use sabir_base::panics::contain;

use super::JobSize;
use super::askers::AddressUse;

/// Once smaller ones have worked so many times as long as a larger one did for its last piece, one of these has a turn again: so they get on beside
/// any number of small ones, and a small one waits for a piece of them and not for one between each few of its like.
const SMALLER: u32 = 3;

/// A number of turns: a thread that has one works, the others wait, the small before the large, and of a size those in line
/// whose address has had least.
#[derive(Debug)]
pub(super) struct Turns {
    state: Mutex<State>,
    /// What the address had that had the last turn, by size.
    had: [AtomicU64; JobSize::COUNT],
}

#[derive(Debug)]
struct State {
    /// No work waits while there is one.
    free: usize,
    waiting: [Vec<Waiting>; JobSize::COUNT],
    /// How long smaller ones may work until a larger one has a turn.
    left: Duration,
    /// The size that had the last such turn: the larger ones have them one after the other.
    last_larger: JobSize,
}

#[derive(Debug)]
struct Waiting {
    address: Arc<AddressUse>,
    told: SyncSender<()>,
}

/// Why a job ends before it is done.
#[derive(Debug)]
pub(super) struct Stops {
    /// The caller that asked for it has gone.
    pub(super) gone: Arc<AtomicBool>,
    /// The node stops.
    pub(super) stopped: Arc<AtomicBool>,
}

impl Stops {
    fn is_stopped(&self) -> bool {
        self.gone.load(Relaxed) || self.stopped.load(Relaxed)
    }
}

/// What a job unwinds with that is ended at a pause, through whatever codec it is in; the panic hook is not told of it.
enum Ended {
    Stopped,
    TooLong,
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

    /// The place of the one that is next of its size, and what its address had.
    fn next_of(&self, size: JobSize) -> Option<(usize, u64)> {
        let each = self.waiting[size as usize].iter().map(|waiting| waiting.address.of(size));
        each.enumerate().min_by_key(|(_, had)| *had)
    }

    fn take_next(&mut self, size: JobSize) -> Option<(Waiting, u64)> {
        let (at, had) = self.next_of(size)?;
        Some((self.waiting[size as usize].remove(at), had))
    }
}

impl Turns {
    pub(super) fn new(count: usize) -> Self {
        let (waiting, left, last_larger) = (Default::default(), Duration::ZERO, JobSize::Small);
        let state = Mutex::new(State { free: count, waiting, left, last_larger });
        Self { state, had: Default::default() }
    }

    /// A job is asked for from an address: what others have had is not caught up.
    pub(super) fn arrive(&self, address: &AddressUse, size: JobSize) {
        address.raise_to(size, self.had[size as usize].load(Relaxed));
    }

    /// An address has a turn that had so much before.
    fn has(&self, size: JobSize, had: u64) {
        self.had[size as usize].fetch_max(had, Relaxed);
    }

    /// Gives a turn to the one that is next of a size.
    fn give(&self, state: &mut State, to: JobSize) -> bool {
        let Some((next, had)) = state.take_next(to) else { return false };
        self.has(to, had);
        // One that waits does so until it is told.
        next.told.send(()).is_ok()
    }

    /// Waits for a turn.
    pub(super) fn take(&self, size: JobSize, address: Arc<AddressUse>, stops: Stops) -> Turn<'_> {
        let mut state = self.state.lock();
        if state.free > 0 {
            state.free -= 1;
            self.has(size, address.of(size));
        } else {
            let (told, turn) = sync_channel(1);
            state.waiting[size as usize].push(Waiting { address: address.clone(), told });
            drop(state);
            // The sender is dropped only once it has sent.
            let _ = turn.recv();
        }
        let (began, worked) = (Instant::now(), Duration::ZERO);
        Turn { turns: self, size, address, stops, began, worked, until: None }
    }

    fn give_back(&self, size: JobSize, took: Duration) {
        let mut state = self.state.lock();
        state.worked(size, took);
        match state.next(None) {
            Some(next) if self.give(&mut state, next) => {}
            _ => state.free += 1,
        }
    }
}

/// The right to work, until it is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    turns: &'a Turns,
    size: JobSize,
    address: Arc<AddressUse>,
    stops: Stops,
    began: Instant,
    worked: Duration,
    /// When it is ended as too long, by the thread's own time.
    until: Option<Duration>,
}

impl Turn<'_> {
    /// Does a job, unless it is stopped before or at a pause; `None` also if it panicked.
    pub(super) fn work<T>(mut self, job: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.stops.is_stopped() {
            return None;
        }
        contain(|| job(&mut self))
    }

    /// Does a part of a job that may take so much of the processor's time: `None` if it is ended at a pause, as too long.
    pub(super) fn within<T>(&mut self, most: Duration, part: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.until = Some(processor_time() + most);
        let done = catch_unwind(AssertUnwindSafe(|| part(self)));
        self.until = None;
        match done {
            Ok(done) => Some(done),
            Err(thrown) if matches!(thrown.downcast_ref(), Some(Ended::TooLong)) => None,
            Err(thrown) => resume_unwind(thrown),
        }
    }

    fn end_if_due(&self) {
        if self.stops.is_stopped() {
            resume_unwind(Box::new(Ended::Stopped));
        }
        if self.until.is_some_and(|until| processor_time() >= until) {
            resume_unwind(Box::new(Ended::TooLong));
        }
    }

    /// Lets others work if it is their turn, and waits for the next. Unwinds if the job is to end here.
    pub fn pause(&mut self) {
        self.end_if_due();
        self.let_others();
        self.end_if_due();
    }

    fn let_others(&mut self) {
        let took = self.began.elapsed();
        self.worked += took;
        self.began += took;
        self.address.add(self.size, took);
        let mut state = self.turns.state.lock();
        state.worked(self.size, took);
        let Some(next) = state.next(Some(self.size)) else { return };
        let own = self.address.of(self.size);
        if next == self.size && state.next_of(next).is_some_and(|(_, had)| own < had) {
            return;
        }
        let (told, turn) = sync_channel(1);
        self.turns.give(&mut state, next);
        state.waiting[self.size as usize].push(Waiting { address: self.address.clone(), told });
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
        let took = self.began.elapsed();
        self.address.add(self.size, took);
        self.turns.give_back(self.size, took);
    }
}

/// What the calling thread has had of the processors.
pub(super) fn processor_time() -> Duration {
    // It counts from the thread's beginning.
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
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
            Self { state: Turns::new(0).state.into_inner(), working: None }
        }

        fn wait(&mut self, size: JobSize) {
            self.wait_from(size, &Arc::default());
        }

        fn wait_from(&mut self, size: JobSize, address: &Arc<AddressUse>) {
            let waiting = Waiting { address: address.clone(), told: sync_channel(1).0 };
            self.state.waiting[size as usize].push(waiting);
        }

        /// A piece of what works has taken so long; which works next. What is to go on waits for it.
        fn worked(&mut self, took: Duration, goes_on: bool) -> Option<JobSize> {
            let size = self.working.take();
            size.into_iter().for_each(|size| self.state.worked(size, took));
            let own = size.filter(|_| goes_on);
            let next = self.state.next(own);
            match next {
                Some(next) => {
                    self.state.take_next(next).unwrap();
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
        for large in [JobSize::Modest, JobSize::Medium, JobSize::Large, JobSize::Slow] {
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
        let first = take(&turns, JobSize::Small);
        turns.state.lock().left = Duration::MAX;
        std::thread::scope(|scope| {
            for size in [JobSize::Slow, JobSize::Large, JobSize::Small, JobSize::Small] {
                let waiting = || turns.state.lock().waiting.iter().map(Vec::len).sum::<usize>();
                let (before, turns, done) = (waiting(), &turns, &done);
                scope.spawn(move || {
                    let _turn = take(turns, size);
                    done.lock().push(size);
                });
                while waiting() == before {
                    std::thread::yield_now();
                }
            }
            drop(first);
        });
        assert_eq!(done.into_inner(), [JobSize::Small, JobSize::Small, JobSize::Large, JobSize::Slow]);
        assert_eq!(turns.state.lock().free, 1);
    }

    fn take(turns: &Turns, size: JobSize) -> Turn<'_> {
        turns.take(size, Arc::default(), Stops { gone: Arc::default(), stopped: Arc::default() })
    }

    #[test]
    fn of_a_size_the_address_that_had_least_goes_first_however_many_jobs_another_has() {
        let mut model = Model::new();
        let (many, one) = (Arc::default(), Arc::<AddressUse>::default());
        (0..300).for_each(|_| model.wait_from(JobSize::Medium, &many));
        many.add(JobSize::Medium, MS);
        model.wait_from(JobSize::Medium, &one);
        let (next, _) = model.state.take_next(JobSize::Medium).unwrap();
        assert!(Arc::ptr_eq(&next.address, &one));
        one.add(JobSize::Medium, 2 * MS);
        model.wait_from(JobSize::Medium, &one);
        let (next, had) = model.state.take_next(JobSize::Medium).unwrap();
        assert!(Arc::ptr_eq(&next.address, &many), "it has had less now");
        let turns = Turns::new(1);
        let stops = Stops { gone: Arc::default(), stopped: Arc::default() };
        drop(turns.take(JobSize::Medium, many, stops));
        let new = AddressUse::default();
        turns.arrive(&new, JobSize::Medium);
        assert_eq!(new.of(JobSize::Medium), had, "it catches nothing up");
    }

    #[test]
    fn a_part_that_takes_too_much_ends_at_its_next_pause_and_the_job_goes_on() {
        let turns = Turns::new(1);
        let mut turn = take(&turns, JobSize::Small);
        let mut pieces = 0;
        let too_long = turn.within(Duration::ZERO, |turn| {
            pieces += 1;
            turn.pause();
            pieces += 1;
        });
        assert_eq!((too_long, pieces), (None, 1));
        assert_eq!(turn.within(Duration::MAX / 2, |turn| turn.pause()), Some(()));
        assert_eq!(turn.work(|turn| turn.pause()), Some(()));
    }

    #[test]
    fn what_nobody_waits_for_is_not_begun_and_ends_at_its_next_pause() {
        let turns = Turns::new(1);
        let stops = |end: &Arc<AtomicBool>| {
            let end = || end.clone();
            [Stops { gone: end(), stopped: Arc::default() }, Stops { gone: Arc::default(), stopped: end() }]
        };
        for which in 0..2 {
            let end = Arc::new(AtomicBool::new(true));
            let take = || {
                let stops = stops(&end).into_iter().nth(which).unwrap();
                turns.take(JobSize::Slow, Arc::default(), stops)
            };
            let mut pieces = 0;
            assert_eq!((take().work(|_| pieces += 1), pieces), (None, 0));
            end.store(false, Relaxed);
            let ended = take().work(|turn| {
                for _ in 0..10 {
                    pieces += 1;
                    end.store(pieces == 3, Relaxed);
                    turn.pause();
                }
            });
            assert_eq!((ended, pieces), (None, 3));
            assert_eq!(turns.state.lock().free, 1, "its turn is given back");
        }
    }
}
