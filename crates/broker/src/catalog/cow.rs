//! A map whose copies share what did not change: a copy costs some sixty pointers, and the first change of a copy as many again and the few
//! entries beside the one that changes, whether there are a thousand entries or a million.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use rustc_hash::{FxBuildHasher, FxHashMap};

/// Branches of a map, and leaves of a branch.
const WIDTH: usize = 64;
const WIDTH_BITS: u32 = WIDTH.trailing_zeros();

type Leaf<K, V> = FxHashMap<K, V>;

#[derive(Debug, Clone)]
pub(crate) struct CowMap<K, V> {
    /// None before the first entry.
    branches: Vec<Arc<Branch<K, V>>>,
    len: usize,
}

/// None before the first entry.
#[derive(Debug, Clone)]
struct Branch<K, V>(Vec<Arc<Leaf<K, V>>>);

impl<K, V> Default for CowMap<K, V> {
    fn default() -> Self {
        Self { branches: Vec::new(), len: 0 }
    }
}

impl<K, V> Default for Branch<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// The branch and the leaf of a key, by the top bits: the maps inside use the low ones.
fn place(key: &(impl Hash + ?Sized)) -> (usize, usize) {
    let hash = FxBuildHasher.hash_one(key);
    let branch = hash >> (u64::BITS - WIDTH_BITS);
    let leaf = hash >> (u64::BITS - 2 * WIDTH_BITS);
    (branch as usize % WIDTH, leaf as usize % WIDTH)
}

/// One of those, of which there are all or none.
fn grown<T: Default + Clone>(all: &mut Vec<Arc<T>>, at: usize) -> &mut T {
    if all.is_empty() {
        all.resize_with(WIDTH, Arc::default);
    }
    Arc::make_mut(&mut all[at])
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
        let (branch, leaf) = place(key);
        self.branches.get(branch)?.0.get(leaf)?.get(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        let (branch, leaf) = place(&key);
        if grown(&mut grown(&mut self.branches, branch).0, leaf).insert(key, value).is_none() {
            self.len += 1;
        }
    }

    pub(crate) fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.get(key)?;
        let (branch, leaf) = place(key);
        self.len -= 1;
        grown(&mut grown(&mut self.branches, branch).0, leaf).remove(key)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        let leaves = self.branches.iter().flat_map(|branch| &branch.0);
        leaves.flat_map(|leaf| leaf.values())
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

    #[test]
    fn a_change_of_a_copy_copies_little_of_a_large_map() {
        let mut map = CowMap::default();
        for i in 0..100_000u32 {
            map.insert(i, i);
        }
        let mut copy = map.clone();
        copy.insert(7, 70);
        let entries = |leaf: &Arc<Leaf<u32, u32>>| if Arc::strong_count(leaf) == 1 { leaf.len() } else { 0 };
        // Of a branch that is shared all leaves are.
        let own = copy.branches.iter().filter(|branch| Arc::strong_count(branch) == 1);
        let copied: usize = own.flat_map(|branch| &branch.0).map(entries).sum();
        assert!((1..200).contains(&copied), "{copied}");
        assert_eq!((map.get(&7), copy.get(&7)), (Some(&7), Some(&70)));
    }
}
