//! Keys in rising order, of which only those are sorted that are wanted next: a caller that waits for one does not wait for all of them to be sorted.

/// How many are sorted at a time.
const RUN: usize = 512;

/// Keys that are taken in rising order.
#[derive(Debug)]
pub struct Rising<K> {
    keys: Vec<K>,
    /// How many were taken, and how many stand at their place: the first ones.
    taken: usize,
    sorted: usize,
    /// Ends of parts behind those, the last one first: none has a key that is larger than one behind it.
    parts: Vec<usize>,
}

impl<K> Default for Rising<K> {
    fn default() -> Self {
        Self { keys: Vec::new(), taken: 0, sorted: 0, parts: Vec::new() }
    }
}

impl<K: Ord> Rising<K> {
    /// These keys.
    pub fn new(keys: Vec<K>) -> Self {
        let sorted = if keys.is_sorted() { keys.len() } else { 0 };
        Self { keys, taken: 0, sorted, parts: Vec::new() }
    }

    /// How many are left to be taken.
    pub fn left(&self) -> usize {
        self.keys.len() - self.taken
    }

    /// Takes the next one. It is kept, too.
    pub fn take(&mut self) -> Option<&K> {
        if self.taken == self.sorted {
            self.sort_some();
        }
        let key = self.keys.get(self.taken)?;
        self.taken += 1;
        Some(key)
    }

    fn sort_some(&mut self) {
        let from = self.sorted;
        let mut end = self.parts.pop().unwrap_or(self.keys.len());
        while end - from > RUN {
            let half = (end - from) / 2;
            self.keys[from..end].select_nth_unstable(half);
            self.parts.push(end);
            end = from + half;
        }
        self.keys[from..end].sort_unstable();
        self.sorted = end;
    }

    /// All of them, taken or not, in no order.
    pub fn into_all(self) -> Vec<K> {
        self.keys
    }

    /// Those that were not taken, in no order.
    pub fn into_left(mut self) -> Vec<K> {
        self.keys.split_off(self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_in_rising_order_whatever_theirs_was() {
        for count in [0, 1, 2, RUN, RUN + 1, 3 * RUN, 10_007] {
            let rising: Vec<usize> = (0..count).collect();
            let falling: Vec<usize> = (0..count).rev().collect();
            let mixed: Vec<usize> = (0..count).map(|i| i * 7919 % count).collect();
            let same: Vec<usize> = (0..count).map(|i| i % 3).collect();
            for keys in [rising, falling, mixed, same] {
                let (mut taken, mut all) = (Rising::new(keys.clone()), Vec::new());
                while let Some(key) = taken.take() {
                    all.push(*key);
                    assert_eq!(taken.left(), count - all.len());
                }
                assert!(all.is_sorted() && all.len() == count);
                let (mut kept, mut keys) = (taken.into_all(), keys);
                kept.sort_unstable();
                keys.sort_unstable();
                assert_eq!((&all, &kept), (&keys, &keys));
            }
        }
    }

    #[test]
    fn what_was_not_taken_is_left() {
        let mut keys = Rising::new((0..5 * RUN).rev().collect());
        (0..RUN + 7).for_each(|key| assert_eq!(keys.take(), Some(&key)));
        let mut left = keys.into_left();
        left.sort_unstable();
        assert!(left.into_iter().eq(RUN + 7..5 * RUN));
    }
}
