//! Index pages that were read lately.

use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::partition::{Runs, SpillKey};

/// Pages kept: 256 of 256 runs of 48 bytes are 3 MiB; details take as much again at the most.
const PAGES: usize = 256;

/// The decoded pages looked up last, least recently used ones dropped.
#[derive(Debug, Default)]
pub(crate) struct PageCache(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    pages: FxHashMap<SpillKey, (u64, Arc<Runs>)>,
    uses: u64,
}

impl PageCache {
    pub(crate) fn get(&self, key: &SpillKey) -> Option<Arc<Runs>> {
        let mut pages = self.0.lock();
        pages.uses += 1;
        let now = pages.uses;
        let (used, runs) = pages.pages.get_mut(key)?;
        *used = now;
        Some(runs.clone())
    }

    pub(crate) fn put(&self, key: SpillKey, runs: Arc<Runs>) {
        let mut pages = self.0.lock();
        pages.uses += 1;
        let now = pages.uses;
        pages.pages.insert(key, (now, runs));
        if pages.pages.len() > PAGES {
            let oldest = pages.pages.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key);
            oldest.and_then(|key| pages.pages.remove(&key));
        }
    }
}

#[cfg(test)]
mod tests {
    use sabir_model::{Offset, PartitionId};

    use super::*;

    #[test]
    fn drops_what_was_not_used_longest() {
        let cache = PageCache::default();
        let key = |n: i64| SpillKey::index(PartitionId(1), Offset(n));
        for n in 0..PAGES as i64 {
            cache.put(key(n), Arc::default());
        }
        assert!(cache.get(&key(0)).is_some());
        cache.put(key(-1), Arc::default());
        assert!(cache.get(&key(0)).is_some());
        assert!(cache.get(&key(1)).is_none());
    }
}
