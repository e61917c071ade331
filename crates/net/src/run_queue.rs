//! The connections of an I/O thread whose turn was over before they were done. They go on one after another, behind the tasks that have been woken
//! meanwhile. A request takes several wake-ups (its bytes, the disk's completion, its answer); if each waited for a turn of every
//! connection that has more to do, a few hundred of those would hold up all others for seconds.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The longest that connections which wait go on before the sockets are looked at again.
const MOST: Duration = Duration::from_millis(20);

thread_local! {
    static QUEUE: RefCell<Option<Queue>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waker>,
    /// How many have left it: the place of the first that waits.
    first: u64,
    /// The task that is woken when a connection waits.
    runner: Option<Waker>,
}

impl Queue {
    fn push(&mut self, waker: &Waker) -> u64 {
        self.waiting.push_back(waker.clone());
        if let Some(runner) = self.runner.take() {
            runner.wake();
        }
        self.first + self.waiting.len() as u64 - 1
    }

    fn pop(&mut self) -> Option<Waker> {
        let first = self.waiting.pop_front()?;
        self.first += 1;
        Some(first)
    }
}

/// Waits for a next turn, behind all that is ready now and those that wait already. On a thread that has no queue it is there when the
/// thread has looked at its sockets. It waits once.
#[derive(Debug, Default)]
pub(crate) enum NextTurn {
    #[default]
    NotAsked,
    At(u64),
    Yielded,
}

impl Future for NextTurn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match *self {
            Self::NotAsked => {
                let place = QUEUE.with_borrow_mut(|queue| queue.as_mut().map(|queue| queue.push(cx.waker())));
                *self = match place {
                    Some(place) => Self::At(place),
                    None => {
                        let pending = std::pin::pin!(tokio::task::yield_now()).poll(cx);
                        debug_assert!(pending.is_pending(), "it yields once");
                        Self::Yielded
                    }
                };
                Poll::Pending
            }
            // Woken by something else: its turn comes all the same.
            Self::At(place) if QUEUE.with_borrow(|q| q.as_ref().is_some_and(|q| q.first <= place)) => {
                Poll::Pending
            }
            Self::At(_) | Self::Yielded => Poll::Ready(()),
        }
    }
}

/// Gives turns to the connections that wait on this thread, for as long as it runs.
pub(crate) async fn run() {
    QUEUE.set(Some(Queue::default()));
    loop {
        poll_fn(somebody_waits).await;
        let began = Instant::now();
        // The sockets are looked at, and all that is ready then is done before this goes on.
        tokio::task::yield_now().await;
        behind_what_is_ready().await;
        let others = began.elapsed().min(MOST);
        let began = Instant::now();
        // Connections that have more to do may take as long as all others did, or those would keep them from it; one goes on in any case. It is
        // less where so many turns are short that the sockets are looked at in between.
        while let Some(next) = QUEUE.with_borrow_mut(|queue| queue.as_mut().and_then(Queue::pop)) {
            next.wake();
            behind_what_is_ready().await;
            if began.elapsed() >= others {
                break;
            }
        }
    }
}

fn somebody_waits(cx: &mut Context<'_>) -> Poll<()> {
    QUEUE.with_borrow_mut(|queue| {
        let queue = queue.get_or_insert_default();
        if queue.waiting.is_empty() {
            queue.runner = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    })
}

/// Goes on behind the tasks that are ready now, without a look at the sockets.
fn behind_what_is_ready() -> impl Future<Output = ()> {
    let mut woken = false;
    poll_fn(move |cx| {
        if std::mem::replace(&mut woken, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    fn on_a_thread(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("starts");
        LocalSet::new().block_on(&runtime, test);
        QUEUE.take();
    }

    fn work(time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time {
            std::hint::spin_loop();
        }
    }

    type Seen = Rc<RefCell<Vec<&'static str>>>;

    fn greedy(name: &'static str, seen: &Seen, each: Duration) {
        let seen = seen.clone();
        spawn_local(async move {
            loop {
                work(each);
                seen.borrow_mut().push(name);
                NextTurn::default().await;
            }
        });
    }

    #[test]
    fn each_step_of_others_waits_for_one_turn_and_not_for_all() {
        on_a_thread(async {
            spawn_local(run());
            let seen = Seen::default();
            (0..100).for_each(|_| greedy("greedy", &seen, Duration::from_millis(1)));
            while seen.borrow().len() < 110 {
                tokio::task::yield_now().await;
            }
            let before = seen.borrow().len();
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            let turns = seen.borrow().len() - before;
            // Each step gives them one turn, or as many as fit into the longest time; a thousand if it waited for all of them.
            assert!(
                (1..=10 * (1 + MOST.as_millis() as usize)).contains(&turns),
                "{turns} turns in ten steps"
            );
        });
    }

    #[test]
    fn turns_come_in_the_order_of_asking_whatever_else_wakes_who_waits() {
        on_a_thread(async {
            spawn_local(run());
            let seen = Seen::default();
            for name in ["a", "b", "c"] {
                let seen = seen.clone();
                spawn_local(async move {
                    for _ in 0..50 {
                        seen.borrow_mut().push(name);
                        let mut turn = NextTurn::default();
                        let woken = poll_fn(|cx| {
                            let polled = Pin::new(&mut turn).poll(cx);
                            if name == "a" && polled.is_pending() {
                                cx.waker().wake_by_ref();
                            }
                            polled
                        });
                        woken.await;
                    }
                });
            }
            while seen.borrow().len() < 150 {
                tokio::task::yield_now().await;
            }
            assert!(seen.borrow().chunks(3).all(|turns| turns == ["a", "b", "c"]));
        });
    }

    #[test]
    fn who_has_more_to_do_is_not_kept_from_it_by_many_others() {
        on_a_thread(async {
            spawn_local(run());
            let seen = Seen::default();
            (0..5).for_each(|_| greedy("greedy", &seen, Duration::from_millis(1)));
            for _ in 0..10 {
                let seen = seen.clone();
                spawn_local(async move {
                    loop {
                        work(Duration::from_millis(4));
                        seen.borrow_mut().push("other");
                        tokio::task::yield_now().await;
                    }
                });
            }
            let count = |name| seen.borrow().iter().filter(|seen| **seen == name).count();
            while count("other") < 100 {
                tokio::task::yield_now().await;
            }
            let greedy = count("greedy");
            // Ten rounds of others: if each let one of them go on there would be fifteen.
            assert!((20..600).contains(&greedy), "{greedy} turns of a millisecond where others had 400");
        });
    }

    #[test]
    fn a_thread_without_a_queue_yields() {
        on_a_thread(async {
            let seen = Seen::default();
            greedy("greedy", &seen, Duration::ZERO);
            while seen.borrow().len() < 10 {
                tokio::task::yield_now().await;
            }
        });
    }
}
