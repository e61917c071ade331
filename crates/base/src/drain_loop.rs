//! Work that one thread at a time does, and no other waits for.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// A thread that asks while another is at work leaves it the work: the other one goes round again. So no call is lost, none
/// waits, and a call from inside the work itself (a completion that arrives at once) does no harm.
#[derive(Debug, Default)]
pub struct DrainLoop(AtomicUsize);

impl DrainLoop {
    /// Does `work`, at least once after this call began, here or on the thread that is at it.
    pub fn run(&self, mut work: impl FnMut()) {
        self.run_in_turns(|| {
            work();
            true
        });
    }

    /// The same with work that says whether this thread goes on with what others ask for meanwhile. If it does not, no thread is at it any
    /// more, and the caller has it run again elsewhere or later: then it gives `false`.
    pub fn run_in_turns(&self, mut work: impl FnMut() -> bool) -> bool {
        if self.0.fetch_add(1, SeqCst) != 0 {
            return true;
        }
        let mut asked = 1;
        loop {
            if !work() {
                self.0.store(0, SeqCst);
                return false;
            }
            match self.0.compare_exchange(asked, 0, SeqCst, SeqCst) {
                Ok(_) => return true,
                Err(more) => asked = more,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn a_call_from_inside_goes_round_again() {
        let drain = DrainLoop::default();
        let mut rounds = 0;
        drain.run(|| {
            rounds += 1;
            if rounds < 3 {
                drain.run(|| panic!("it is this thread's turn already"));
            }
        });
        assert_eq!(rounds, 3);
    }

    #[test]
    fn a_turn_that_is_over_leaves_the_work_to_the_next_call() {
        let drain = DrainLoop::default();
        let mut rounds = 0;
        let goes_on = drain.run_in_turns(|| {
            rounds += 1;
            drain.run(|| panic!("it is this thread's turn"));
            false
        });
        assert_eq!((goes_on, rounds), (false, 1), "what was asked for meanwhile is left");
        assert!(drain.run_in_turns(|| {
            rounds += 1;
            true
        }));
        assert_eq!(rounds, 2);
    }

    #[test]
    fn no_call_is_lost_between_threads() {
        let (drain, asked, seen) = (DrainLoop::default(), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        asked.fetch_add(1, SeqCst);
                        drain.run(|| seen.store(asked.load(SeqCst), SeqCst));
                    }
                });
            }
        });
        assert_eq!(seen.into_inner(), 40_000);
    }
}
