//! The connections of an I/O thread whose turn was over before they were done. They go on one after another, behind the tasks that have been woken
//! meanwhile. A request takes several wake-ups (its bytes, the disk's completion, its answer); if each waited for a turn of every
//! connection that has more to do, a few hundred of those would hold up all others for seconds.
//!
//! Those that have something to send of what others published wait in a line of their own: one publisher wakes as many of them as there are
//! consumers, all at once.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The longest that connections which wait go on before the sockets are looked at again.
const MOST: Duration = Duration::from_millis(20);

/// How much of each [`MOST`] turns for deliveries take at once, before they go behind all that is ready.
const AT_ONCE: Duration = Duration::from_millis(4);

thread_local! {
    static QUEUE: RefCell<Option<Queue>> = const { RefCell::new(None) };
}

/// What a connection waits for its turn with. The lines have a turn each, one after the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Line {
    /// What its client asked for.
    #[default]
    Requests,
    /// What others have for its client.
    Deliveries,
}

#[derive(Default)]
struct Waiting {
    /// None where one waits no longer.
    wakers: VecDeque<Option<Waker>>,
    /// How many have left it: the place of the first that waits.
    first: u64,
}

impl Waiting {
    fn pop(&mut self) -> Option<Waker> {
        while let Some(first) = self.wakers.pop_front() {
            self.first += 1;
            if first.is_some() {
                return first;
            }
        }
        None
    }

    /// The one at that place waits no longer, if it does.
    fn give_up(&mut self, place: u64) -> Option<Waker> {
        let at = usize::try_from(place.checked_sub(self.first)?).ok()?;
        self.wakers.get_mut(at)?.take()
    }
}

#[derive(Default)]
struct Queue {
    requests: Waiting,
    deliveries: Waiting,
    /// The line that had the last turn.
    last: Line,
    delivered: Delivered,
    /// The task that is woken when a connection waits.
    runner: Option<Waker>,
}

impl Queue {
    fn line(&mut self, line: Line) -> &mut Waiting {
        match line {
            Line::Requests => &mut self.requests,
            Line::Deliveries => &mut self.deliveries,
        }
    }

    fn push(&mut self, line: Line, waker: &Waker) -> u64 {
        if let Some(runner) = self.runner.take() {
            runner.wake();
        }
        let waiting = self.line(line);
        waiting.wakers.push_back(Some(waker.clone()));
        waiting.first + waiting.wakers.len() as u64 - 1
    }

    fn pop(&mut self) -> Option<Waker> {
        let order = match self.last {
            Line::Requests => [Line::Deliveries, Line::Requests],
            Line::Deliveries => [Line::Requests, Line::Deliveries],
        };
        order.into_iter().find_map(|line| {
            let waker = self.line(line).pop()?;
            self.last = line;
            Some(waker)
        })
    }

    fn is_empty(&self) -> bool {
        self.requests.wakers.is_empty() && self.deliveries.wakers.is_empty()
    }
}

/// What turns for deliveries have taken within [`MOST`].
#[derive(Debug, Default)]
struct Delivered {
    since: Option<Instant>,
    took: Duration,
}

impl Delivered {
    fn may_go_at_once(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= MOST) {
            *self = Self { since: Some(now), took: Duration::ZERO };
        }
        self.took < AT_ONCE
    }
}

/// Whether a turn for deliveries goes at once on this thread: not where such turns have taken much of it of late.
pub(crate) fn may_deliver_at_once() -> bool {
    QUEUE.with_borrow_mut(|queue| {
        queue.as_mut().is_none_or(|queue| queue.delivered.may_go_at_once(Instant::now()))
    })
}

/// Notes what a turn for deliveries took.
pub(crate) fn has_delivered(took: Duration) {
    QUEUE.with_borrow_mut(|queue| queue.iter_mut().for_each(|queue| queue.delivered.took += took));
}

/// Waits for a next turn, behind all that is ready now and those that wait in the same line already. On a thread that has no queue it is there
/// when the thread has looked at its sockets. It waits once.
#[derive(Debug)]
pub(crate) enum NextTurn {
    NotAsked(Line),
    At(Line, u64),
    Yielded,
}

impl NextTurn {
    /// Its turn is not waited for: who goes on before it comes has no second one by that.
    pub(crate) fn give_up(self) {
        if let Self::At(line, place) = self {
            // Dropped where the queue is not borrowed: it may be the last of its task.
            drop(QUEUE.with_borrow_mut(|queue| queue.as_mut()?.line(line).give_up(place)));
        }
    }
}

impl Future for NextTurn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match *self {
            Self::NotAsked(line) => {
                let place =
                    QUEUE.with_borrow_mut(|queue| queue.as_mut().map(|queue| queue.push(line, cx.waker())));
                *self = match place {
                    Some(place) => Self::At(line, place),
                    None => {
                        let pending = std::pin::pin!(tokio::task::yield_now()).poll(cx);
                        debug_assert!(pending.is_pending(), "it yields once");
                        Self::Yielded
                    }
                };
                Poll::Pending
            }
            // Woken by something else: its turn comes all the same.
            Self::At(line, place)
                if QUEUE.with_borrow_mut(|q| q.as_mut().is_some_and(|q| q.line(line).first <= place)) =>
            {
                Poll::Pending
            }
            Self::At(..) | Self::Yielded => Poll::Ready(()),
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
        if queue.is_empty() {
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
                NextTurn::NotAsked(Line::Requests).await;
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
                        let mut turn = NextTurn::NotAsked(Line::Requests);
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
    fn the_lines_have_a_turn_each_however_many_wait_in_one() {
        on_a_thread(async {
            spawn_local(run());
            let seen = Seen::default();
            let waits = |line, name: &'static str| {
                let seen = seen.clone();
                spawn_local(async move {
                    NextTurn::NotAsked(line).await;
                    seen.borrow_mut().push(name);
                });
            };
            (0..100).for_each(|_| waits(Line::Deliveries, "delivery"));
            (0..3).for_each(|_| waits(Line::Requests, "request"));
            while seen.borrow().len() < 103 {
                tokio::task::yield_now().await;
            }
            let (seen, alternating) = (seen.borrow(), ["delivery", "request"].repeat(3));
            assert_eq!(seen[..6], alternating);
            assert!(seen[6..].iter().all(|name| *name == "delivery"));
        });
    }

    #[test]
    fn who_goes_on_before_its_turn_has_no_second_one() {
        on_a_thread(async {
            spawn_local(run());
            let seen = Seen::default();
            for name in ["a", "b", "c", "d"] {
                let seen = seen.clone();
                spawn_local(async move {
                    let mut turn = NextTurn::NotAsked(Line::Deliveries);
                    let mut polls = 0;
                    if name < "c" {
                        poll_fn(|cx| Poll::Ready(Pin::new(&mut turn).poll(cx).is_pending())).await;
                        turn.give_up();
                        turn = NextTurn::NotAsked(Line::Deliveries);
                    }
                    let waits = poll_fn(|cx| {
                        polls += 1;
                        Pin::new(&mut turn).poll(cx)
                    });
                    waits.await;
                    seen.borrow_mut().push(name);
                    assert_eq!(polls, 2, "{name} is woken once, for its turn");
                    turn.give_up();
                });
            }
            while seen.borrow().len() < 4 {
                tokio::task::yield_now().await;
            }
            assert_eq!(*seen.borrow(), ["a", "b", "c", "d"]);
            assert!(QUEUE.with_borrow(|queue| queue.as_ref().is_some_and(Queue::is_empty)));
        });
    }

    #[test]
    fn turns_for_deliveries_go_at_once_until_they_have_taken_much_of_the_time() {
        let (mut delivered, began) = (Delivered::default(), Instant::now());
        let mut turns = 0;
        while delivered.may_go_at_once(began + turns * Duration::from_millis(1)) {
            delivered.took += Duration::from_millis(1);
            turns += 1;
        }
        assert_eq!(turns, 4);
        assert!(!delivered.may_go_at_once(began + MOST - Duration::from_millis(1)));
        assert!(delivered.may_go_at_once(began + MOST));
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
