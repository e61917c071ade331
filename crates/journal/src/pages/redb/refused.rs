//! Pages that could not be read. Each failure has the database opened anew, which all others wait for, and ends the transaction that is
//! open: so what is damaged is read again once in a while, and not beside a transaction.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::pages::PageError;

/// How often one page is read again, and how many failures there are in that time before none is.
const AGAIN: Duration = Duration::from_secs(1);
const AT_A_TIME: usize = 4;
/// Pages remembered at the most; where there are more, those that failed so long ago make room.
const REMEMBERED: usize = 1024;
const LONG_AGO: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Refused(Mutex<FxHashMap<Vec<u8>, (Instant, PageError)>>);

impl Refused {
    /// The error of a page that is not to be read again now.
    pub(super) fn error(&self, key: &[u8], in_transaction: bool, now: Instant) -> Option<PageError> {
        let refused = self.0.lock();
        let (at, error) = refused.get(key)?;
        let is_late = |at: &Instant| now.duration_since(*at) < AGAIN;
        let many = || refused.values().filter(|(at, _)| is_late(at)).count() >= AT_A_TIME;
        (in_transaction || is_late(at) || many()).then(|| error.clone())
    }

    /// A page could not be read.
    pub(super) fn note(&self, key: &[u8], error: &PageError, now: Instant) {
        let mut refused = self.0.lock();
        if refused.len() >= REMEMBERED {
            refused.retain(|_, (at, _)| now.duration_since(*at) < LONG_AGO);
        }
        if refused.len() < REMEMBERED || refused.contains_key(key) {
            refused.insert(key.to_vec(), (now, error.clone()));
        }
    }

    /// A page was read.
    pub(super) fn forget(&self, key: &[u8]) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error() -> PageError {
        PageError::InUse { path: "p".into() }
    }

    #[test]
    fn a_page_that_failed_is_read_again_once_a_second_and_not_beside_a_transaction() {
        let (refused, start) = (Refused::default(), Instant::now());
        refused.note(b"k", &error(), start);
        assert!(refused.error(b"other", true, start).is_none());
        assert!(refused.error(b"k", false, start + AGAIN / 2).is_some());
        assert!(refused.error(b"k", false, start + AGAIN).is_none());
        assert!(refused.error(b"k", true, start + AGAIN).is_some());
        refused.forget(b"k");
        assert!(refused.error(b"k", true, start).is_none());
    }

    #[test]
    fn of_many_that_failed_a_few_are_read_in_a_second_and_not_all_are_remembered() {
        let (refused, start) = (Refused::default(), Instant::now());
        (0..5000u32).for_each(|n| refused.note(&n.to_be_bytes(), &error(), start));
        assert_eq!(refused.0.lock().len(), REMEMBERED);
        let again = start + AGAIN;
        let read = (0..100u32).filter(|n| {
            let may = refused.error(&n.to_be_bytes(), false, again).is_none();
            if may {
                refused.note(&n.to_be_bytes(), &error(), again);
            }
            may
        });
        assert_eq!(read.count(), AT_A_TIME);
    }
}
