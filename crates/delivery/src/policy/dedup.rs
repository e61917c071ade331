//! Messages that come twice within a window are taken once.

use std::collections::{BTreeMap, VecDeque};

/// Ids of the messages that were published lately, as hashes of 128 bits, each with its offset.
///
/// What is forgotten is decided by the blocks' time and the number of ids, so that every replica forgets the same.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DedupWindow {
    offsets: BTreeMap<u128, u64>,
    /// In the order of their publishing.
    times: VecDeque<(i64, u128)>,
}

impl DedupWindow {
    /// The offset under which a message was published within the window.
    pub fn known(&self, id: u128) -> Option<u64> {
        self.offsets.get(&id).copied()
    }

    /// Remembers a message that was published at a block's time; ids must not be known.
    pub fn remember(&mut self, id: u128, offset: u64, time_ms: i64) {
        if self.offsets.insert(id, offset).is_none() {
            self.times.push_back((time_ms, id));
        }
    }

    /// Forgets what is older than the window, and the oldest beyond the most that are kept: to be called for each block before
    /// what it publishes is judged.
    pub fn forget(&mut self, time_ms: i64, window_ms: u32, most: usize) {
        while let Some((then, id)) = self.times.front() {
            let is_old = time_ms.saturating_sub(*then) >= window_ms.into();
            if !is_old && self.times.len() <= most {
                return;
            }
            self.offsets.remove(id);
            self.times.pop_front();
        }
    }

    /// All of it, the oldest first: time, id, offset. What was [remembered](Self::remember) in this order is equal to it.
    pub fn iter(&self) -> impl Iterator<Item = (i64, u128, u64)> {
        self.times.iter().map(|(time_ms, id)| (*time_ms, *id, self.offsets[id]))
    }

    /// How many ids are kept.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> DedupWindow {
        let mut window = DedupWindow::default();
        (0..10).for_each(|n| window.remember(u128::from(n), n, n as i64 * 10));
        window
    }

    #[test]
    fn an_id_is_known_for_the_length_of_the_window() {
        let mut window = window();
        window.forget(109, 100, 100);
        assert_eq!(window.known(1), Some(1));
        window.forget(110, 100, 100);
        assert_eq!((window.known(1), window.known(2)), (None, Some(2)));
    }

    #[test]
    fn the_oldest_beyond_the_most_are_forgotten() {
        let mut window = window();
        window.forget(90, 1_000, 3);
        assert_eq!(window.iter().map(|(_, id, _)| id).collect::<Vec<_>>(), [7, 8, 9]);
        window.forget(i64::MAX, 0, 3);
        assert!(window.is_empty());
    }

    #[test]
    fn a_window_is_made_again_from_what_it_tells() {
        let before = window();
        let mut again = DedupWindow::default();
        before.iter().for_each(|(time_ms, id, offset)| again.remember(id, offset, time_ms));
        assert_eq!(again, before);
        again.remember(3, 77, 500);
        assert_eq!(again.len(), 10, "an id is kept once");
    }
}
