//! A map whose copies share what did not change: a copy of a hundred thousand entries costs a few hundred pointers.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use rustc_hash::{FxBuildHasher, FxHashMap};

const BUCKETS: usize = 256;

#[derive(Debug, Clone)]
pub(crate) struct CowMap<K, V> {
    buckets: Vec<Arc<FxHashMap<K, V>>>,
    len: usize,
}

impl<K, V> Default for CowMap<K, V> {
    fn default() -> Self {
        Self { buckets: Vec::new(), len: 0 }
    }
}

/// The top bits: the maps inside use the low ones.
fn bucket(key: &(impl Hash + ?Sized)) -> usize {
    (FxBuildHasher.hash_one(key) >> 56) as usize % BUCKETS
}

impl<K: Hash + Eq + Clone, V: Clone> CowMap<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.buckets.get(bucket(key)).and_then(|bucket| bucket.get(key))
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.buckets.is_empty() {
            self.buckets.resize_with(BUCKETS, Arc::default);
        }
        let bucket = Arc::make_mut(&mut self.buckets[bucket(&key)]);
        if bucket.insert(key, value).is_none() {
            self.len += 1;
        }
    }

    pub(crate) fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let bucket = self.buckets.get_mut(bucket(key)).filter(|bucket| bucket.contains_key(key))?;
        self.len -= 1;
        Arc::make_mut(bucket).remove(key)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.buckets.iter().flat_map(|bucket| bucket.values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_does_not_see_later_changes() {
        let mut map = CowMap::default();
        for i in 0..1000u32 {
            map.insert(i.to_string(), i);
        }
        let before = map.clone();
        assert_eq!(map.remove("7"), Some(7));
        assert_eq!(map.remove("7"), None);
        map.insert("8".to_owned(), 80);
        assert_eq!((map.len(), before.len()), (999, 1000));
        assert_eq!((map.get("7"), map.get("8")), (None, Some(&80)));
        assert_eq!((before.get("7"), before.get("8")), (Some(&7), Some(&8)));
        assert_eq!(before.values().count(), 1000);
    }
}
