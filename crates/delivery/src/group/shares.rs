//! What many clients have of something that is bounded, by their addresses and connections: where it is full, the client that has most gives way.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::Text;

/// Shares that differ by less than so many bytes are as good as the same: of these the one with the oldest item gives way.
const UNIT: usize = 4 << 10;

/// Whose an item is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The client's address.
    pub host: Text,
    /// Its connection's number.
    pub connection: u64,
}

/// Items that clients have, with what each takes. Their numbers are in the order in which they came.
#[derive(Debug, Clone)]
pub struct Shares<T> {
    items: BTreeMap<u64, Item<T>>,
    hosts: Ranking<Text>,
    /// Of each host's connections.
    connections: BTreeMap<Text, Ranking<u64>>,
}

#[derive(Debug, Clone)]
struct Item<T> {
    holder: Holder,
    bytes: usize,
    value: T,
}

/// Shares by whose they are, the largest last.
#[derive(Debug, Clone)]
struct Ranking<K> {
    shares: BTreeMap<K, Share>,
    ranked: BTreeSet<(Rank, K)>,
}

/// How many units a share has, and which item is its oldest.
type Rank = (usize, Reverse<u64>);

#[derive(Debug, Clone, Default)]
struct Share {
    bytes: usize,
    numbers: BTreeSet<u64>,
}

impl Share {
    fn rank(&self) -> Option<Rank> {
        self.numbers.first().map(|oldest| (self.bytes.div_ceil(UNIT), Reverse(*oldest)))
    }
}

impl<K> Default for Ranking<K> {
    fn default() -> Self {
        Self { shares: BTreeMap::new(), ranked: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Ranking<K> {
    fn change(&mut self, of: &K, change: impl FnOnce(&mut Share)) {
        let share = self.shares.entry(of.clone()).or_default();
        if let Some(rank) = share.rank() {
            self.ranked.remove(&(rank, of.clone()));
        }
        change(share);
        match share.rank() {
            Some(rank) => drop(self.ranked.insert((rank, of.clone()))),
            None => drop(self.shares.remove(of)),
        }
    }

    fn largest(&self) -> Option<(Rank, &K)> {
        self.ranked.last().map(|(rank, of)| (*rank, of))
    }
}

impl<T> Default for Shares<T> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), hosts: Ranking::default(), connections: BTreeMap::new() }
    }
}

impl<T> Shares<T> {
    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds an item whose number is above all others'.
    pub fn push(&mut self, number: u64, holder: Holder, bytes: usize, value: T) {
        let add = |share: &mut Share| {
            share.bytes += bytes;
            share.numbers.insert(number);
        };
        self.hosts.change(&holder.host, add);
        self.connections.entry(holder.host.clone()).or_default().change(&holder.connection, add);
        self.items.insert(number, Item { holder, bytes, value });
    }

    /// Takes an item out.
    pub fn remove(&mut self, number: u64) -> Option<T> {
        let Item { holder: Holder { host, connection }, bytes, value } = self.items.remove(&number)?;
        let take = |share: &mut Share| {
            share.bytes -= bytes;
            share.numbers.remove(&number);
        };
        self.hosts.change(&host, take);
        if let Some(connections) = self.connections.get_mut(&host) {
            connections.change(&connection, take);
            if connections.shares.is_empty() {
                self.connections.remove(&host);
            }
        }
        Some(value)
    }

    /// The item that gives way first: the oldest of the connection that has most, of those from the address that has most.
    pub fn first_to_go(&self) -> Option<(u64, &T)> {
        let (_, host) = self.hosts.largest()?;
        let ((_, Reverse(oldest)), _) = self.connections.get(host)?.largest()?;
        self.items.get_key_value(&oldest).map(|(number, item)| (*number, &item.value))
    }

    /// How much the address has, in about bytes, whose item gives way first, and the number of the oldest that it has.
    pub fn largest(&self) -> Option<(usize, Reverse<u64>)> {
        self.hosts.largest().map(|(rank, _)| rank)
    }

    /// Keeps only what `keeps` says.
    pub fn retain(&mut self, keeps: impl Fn(&T) -> bool) {
        let gone = self.items.iter().filter(|(_, item)| !keeps(&item.value)).map(|(number, _)| *number);
        gone.collect::<Vec<_>>().into_iter().for_each(|number| drop(self.remove(number)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(host: &str, connection: u64) -> Holder {
        Holder { host: host.into(), connection }
    }

    fn go(shares: &mut Shares<&'static str>) -> Option<&'static str> {
        let (number, _) = shares.first_to_go()?;
        shares.remove(number)
    }

    #[test]
    fn the_oldest_of_whoever_has_most_goes_first() {
        let mut shares = Shares::default();
        shares.push(0, by("a", 1), 100, "honest");
        shares.push(1, by("b", 2), 3 * UNIT, "one");
        shares.push(2, by("b", 3), 4 * UNIT, "two");
        shares.push(3, by("b", 3), 4 * UNIT, "three");
        shares.push(4, by("c", 4), 100, "later");
        assert_eq!(shares.largest(), Some((11, Reverse(1))));
        let gone: Vec<_> = std::iter::from_fn(|| go(&mut shares)).collect();
        assert_eq!(gone, ["two", "three", "one", "honest", "later"]);
        assert!(shares.is_empty() && shares.hosts.shares.is_empty() && shares.connections.is_empty());
    }

    #[test]
    fn of_shares_that_hardly_differ_the_oldest_goes_first() {
        let mut shares = Shares::default();
        for (number, (host, bytes)) in [("a", 10), ("b", 300), ("c", 50)].into_iter().enumerate() {
            shares.push(number as u64, by(host, 7), bytes, host);
        }
        shares.push(3, by("d", 8), UNIT + 1, "d");
        assert_eq!(shares.remove(1), Some("b"));
        assert_eq!(shares.remove(1), None);
        let gone: Vec<_> = std::iter::from_fn(|| go(&mut shares)).collect();
        assert_eq!(gone, ["d", "a", "c"]);
    }

    #[test]
    fn what_is_not_kept_counts_no_more() {
        let mut shares = Shares::default();
        shares.push(0, by("a", 1), 2 * UNIT, "gone");
        shares.push(1, by("b", 1), UNIT, "kept");
        shares.retain(|value| *value == "kept");
        assert_eq!((shares.len(), shares.first_to_go()), (1, Some((1, &"kept"))));
    }
}
