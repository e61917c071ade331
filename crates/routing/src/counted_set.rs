//! A set of numbers that counts how often each was put in. Most such sets hold one number, which costs no allocation.

use std::collections::BTreeMap;

#[derive(Debug, Default, Clone)]
pub(crate) enum CountedSet {
    #[default]
    None,
    One {
        value: u32,
        count: u32,
    },
    Several(Box<Several>),
}

/// Numbers, each with its count.
#[derive(Debug, Clone)]
pub(crate) enum Several {
    /// Sorted: quick to go through.
    Few(Vec<(u32, u32)>),
    /// Quick to change, however many there are.
    Many(BTreeMap<u32, u32>),
}

/// Numbers from which on the set is made to be changed.
const MANY: usize = 256;

impl CountedSet {
    /// Puts `value` in once more.
    pub(crate) fn insert(&mut self, value: u32) {
        match self {
            Self::None => *self = Self::One { value, count: 1 },
            Self::One { value: held, count } if *held == value => *count += 1,
            Self::One { value: held, count } => {
                let mut few = vec![(*held, *count), (value, 1)];
                few.sort_unstable();
                *self = Self::Several(Box::new(Several::Few(few)));
            }
            Self::Several(values) => values.insert(value),
        }
    }

    /// Takes `value` out once; whether it was there.
    pub(crate) fn remove(&mut self, value: u32) -> bool {
        let (found, empty) = match self {
            Self::None => (false, false),
            Self::One { value: held, count } => {
                let found = *held == value;
                *count -= u32::from(found);
                (found, *count == 0)
            }
            Self::Several(values) => (values.remove(value), values.is_empty()),
        };
        if empty {
            *self = Self::None;
        }
        found
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Appends every number, rising, once each.
    pub(crate) fn extend_into(&self, out: &mut Vec<u32>) {
        match self {
            Self::None => {}
            Self::One { value, .. } => out.push(*value),
            Self::Several(values) => match &**values {
                Several::Few(values) => out.extend(values.iter().map(|(value, _)| value)),
                Several::Many(values) => out.extend(values.keys()),
            },
        }
    }

    pub(crate) fn to_vec(&self) -> Vec<u32> {
        let mut out = Vec::new();
        self.extend_into(&mut out);
        out
    }
}

impl Several {
    fn insert(&mut self, value: u32) {
        match self {
            Self::Few(values) => {
                insert_into(values, value);
                if values.len() > MANY {
                    *self = Self::Many(values.drain(..).collect());
                }
            }
            Self::Many(values) => *values.entry(value).or_default() += 1,
        }
    }

    fn remove(&mut self, value: u32) -> bool {
        match self {
            Self::Few(values) => remove_from(values, value),
            Self::Many(values) => remove_from_many(values, value),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Few(values) => values.is_empty(),
            Self::Many(values) => values.is_empty(),
        }
    }
}

fn insert_into(values: &mut Vec<(u32, u32)>, value: u32) {
    match values.binary_search_by_key(&value, |(value, _)| *value) {
        Ok(at) => values[at].1 += 1,
        Err(at) => values.insert(at, (value, 1)),
    }
}

fn remove_from(values: &mut Vec<(u32, u32)>, value: u32) -> bool {
    let Ok(at) = values.binary_search_by_key(&value, |(value, _)| *value) else { return false };
    values[at].1 -= 1;
    if values[at].1 == 0 {
        values.remove(at);
    }
    true
}

fn remove_from_many(values: &mut BTreeMap<u32, u32>, value: u32) -> bool {
    let Some(count) = values.get_mut(&value) else { return false };
    *count -= 1;
    if *count == 0 {
        values.remove(&value);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_twice_stays_until_it_is_taken_out_twice() {
        let mut set = CountedSet::default();
        for value in [3, 1, 3, 2] {
            set.insert(value);
        }
        assert_eq!(set.to_vec(), [1, 2, 3]);
        assert!(set.remove(3) && set.remove(1) && !set.remove(1));
        assert_eq!(set.to_vec(), [2, 3]);
        assert!(set.remove(3) && set.remove(2) && set.is_empty() && !set.remove(2));
    }

    #[test]
    fn large_sets_are_as_small_ones() {
        let mut set = CountedSet::default();
        let numbers = || (0..4 * MANY as u32).map(|n| n * 7 % (2 * MANY as u32));
        numbers().for_each(|number| set.insert(number));
        assert_eq!(set.to_vec(), (0..2 * MANY as u32).collect::<Vec<_>>());
        assert!(numbers().all(|number| set.remove(number)) && set.is_empty());
    }
}
