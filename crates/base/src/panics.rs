//! Panics that end what panicked and not the process.
//!
//! Each place that contains one says what becomes of what it may have left half changed; `docs/adr/0005-panics.md` lists them. The
//! panic hook has reported it by the time a containing call returns.

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// Does work; `None` if it panicked. The caller knows what to do with what the work was changing.
pub fn contain<T>(work: impl FnOnce() -> T) -> Option<T> {
    // What a panic carries is text, for the hook; it is not needed any more.
    catch_unwind(AssertUnwindSafe(work)).map_err(drop).ok()
}

thread_local! {
    static ON_DAMAGED_DATA: Cell<bool> = const { Cell::new(false) };
}

/// Does work of a library's on data that may be damaged, which it answers with a panic: `None` then. The hook is told that it is no
/// defect by [`is_on_damaged_data`].
pub fn contain_damage<T>(work: impl FnOnce() -> T) -> Option<T> {
    let before = ON_DAMAGED_DATA.replace(true);
    let done = contain(work);
    ON_DAMAGED_DATA.set(before);
    done
}

/// Whether what this thread does is done by [`contain_damage`].
pub fn is_on_damaged_data() -> bool {
    ON_DAMAGED_DATA.get()
}

/// Runs a future to its end; `None` if it panicked, after which it is not polled again.
pub async fn contain_task<T>(task: impl Future<Output = T>) -> Option<T> {
    let mut task = pin!(task);
    std::future::poll_fn(|cx| match contain(|| task.as_mut().poll(cx)) {
        Some(Poll::Pending) => Poll::Pending,
        Some(Poll::Ready(value)) => Poll::Ready(Some(value)),
        None => Poll::Ready(None),
    })
    .await
}

/// Ends the process if it is dropped by a panic: for threads without which the node would seem to live and do nothing.
#[derive(Debug)]
pub struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn a_panic_is_nothing_and_all_else_comes_through() {
        assert_eq!(contain(|| 7), Some(7));
        assert_eq!(contain(|| -> u8 { panic!("on purpose") }), None);
    }

    #[test]
    fn it_is_known_of_a_panic_that_damaged_data_causes_it() {
        assert_eq!(contain_damage(is_on_damaged_data), Some(true));
        assert_eq!(contain_damage(|| -> u8 { panic!("on purpose") }), None);
        assert!(!is_on_damaged_data());
    }

    #[test]
    fn a_task_that_panics_ends_at_that_poll() {
        let mut polls = 0;
        let task = std::future::poll_fn(|_| -> Poll<u8> {
            polls += 1;
            if polls == 2 { panic!("on purpose") } else { Poll::Pending }
        });
        let mut task = Box::pin(contain_task(task));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(task.as_mut().poll(&mut cx), Poll::Pending);
        assert_eq!(task.as_mut().poll(&mut cx), Poll::Ready(None));
    }
}
