//! What the bindings of a headers exchange ask of a message. A header is asked for a value once a message, however many bindings do.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::argument::{Argument, ArgumentValue, Arguments};
use crate::binding::BindingNo;
use crate::publication::Attributes;

/// The argument that says how the others are taken.
const MATCH: &[u8] = b"x-match";

/// Conditions up to which the list of what is known of them is kept for the next message.
const KEPT: usize = 4096;

/// The bindings of a headers exchange.
#[derive(Debug, Default)]
pub(crate) struct HeaderRules {
    rules: BTreeMap<BindingNo, HeaderRule>,
    /// What they ask, each once.
    conditions: Vec<Condition>,
    /// Places of conditions that no binding has any more.
    free: Vec<u32>,
    by_argument: HashTable<u32>,
    hasher: RandomState,
}

/// What a binding asks of a message.
#[derive(Debug)]
struct HeaderRule {
    /// One of the headers suffices.
    any: bool,
    /// Conditions by their places, those first that the fewest bindings had when it came.
    wanted: Box<[u32]>,
    to: u32,
}

/// A header and the value that it shall have.
#[derive(Debug)]
struct Condition {
    argument: Argument,
    /// Bindings that ask for it.
    uses: u32,
}

/// What is known of a condition while a message is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    NotYet,
    Met,
    NotMet,
}

/// The binding says `x-match` of a value that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnknownMatch;

/// How a binding takes its arguments: whether one of the headers suffices, and whether names that begin with `x-` count.
///
/// # Errors
/// It says `x-match` of a value that is not known.
pub(crate) fn mode_of(arguments: &Arguments) -> Result<(bool, bool), UnknownMatch> {
    match arguments.get(MATCH) {
        None => Ok((false, false)),
        Some(ArgumentValue::Text(text)) => mode(text),
        Some(_) => Err(UnknownMatch),
    }
}

impl HeaderRules {
    /// Adds a binding whose arguments [`mode_of`] let pass. Those whose names begin with `x-` count only where `x-match` says `with-x`.
    pub(crate) fn insert(&mut self, number: BindingNo, arguments: &Arguments, to: u32) {
        let Ok((any, with_x)) = mode_of(arguments) else { return };
        let counts = |argument: &&Argument| match with_x {
            true => *argument.name != *MATCH,
            false => !argument.name.starts_with(b"x-"),
        };
        let mut wanted: Vec<u32> =
            arguments.iter().filter(counts).map(|argument| self.condition(argument)).collect();
        wanted.sort_by_key(|&at| self.conditions[at as usize].uses);
        self.rules.insert(number, HeaderRule { any, wanted: wanted.into(), to });
    }

    pub(crate) fn remove(&mut self, number: BindingNo) {
        let Some(rule) = self.rules.remove(&number) else { return };
        rule.wanted.iter().for_each(|&at| self.release(at));
    }

    /// Appends the destinations of a message; `asked` is for use again. A rule that wants nothing means every message, but none if any header is to suffice.
    pub(crate) fn matches(&self, attributes: &dyn Attributes, asked: &mut Vec<Asked>, out: &mut Vec<u32>) {
        asked.clear();
        asked.resize(self.conditions.len(), Asked::NotYet);
        let mut has = |at: &u32| {
            let (known, condition) = (&mut asked[*at as usize], &self.conditions[*at as usize]);
            if *known == Asked::NotYet {
                *known = if is_met(&condition.argument, attributes) { Asked::Met } else { Asked::NotMet };
            }
            *known == Asked::Met
        };
        for rule in self.rules.values() {
            let met =
                if rule.any { rule.wanted.iter().any(&mut has) } else { rule.wanted.iter().all(&mut has) };
            if met {
                out.push(rule.to);
            }
        }
        // Each connection has such a list: none keeps a long one.
        if asked.capacity() > KEPT {
            *asked = Vec::new();
        }
    }

    /// The place of what an argument asks, which one more binding has.
    fn condition(&mut self, argument: &Argument) -> u32 {
        let Self { conditions, free, by_argument, hasher, .. } = self;
        let hash = hash_of(hasher, argument);
        let same = |at: &u32| conditions[*at as usize].argument == *argument;
        let rehash = |at: &u32| hash_of(hasher, &conditions[*at as usize].argument);
        let entry = match by_argument.entry(hash, same, rehash) {
            Entry::Occupied(found) => {
                let at = *found.get();
                conditions[at as usize].uses += 1;
                return at;
            }
            Entry::Vacant(entry) => entry,
        };
        let next = u32::try_from(conditions.len()).expect("fewer than 2^32 conditions fit into memory");
        let at = free.pop().unwrap_or(next);
        entry.insert(at);
        let condition = Condition { argument: argument.clone(), uses: 1 };
        match conditions.get_mut(at as usize) {
            Some(place) => *place = condition,
            None => conditions.push(condition),
        }
        at
    }

    fn release(&mut self, at: u32) {
        let condition = &mut self.conditions[at as usize];
        condition.uses -= 1;
        if condition.uses > 0 {
            return;
        }
        let hash = hash_of(&self.hasher, &condition.argument);
        if let Ok(found) = self.by_argument.find_entry(hash, |&other| other == at) {
            found.remove();
        }
        // It holds no memory until it is another one.
        self.conditions[at as usize].argument =
            Argument { name: [].into(), tag: 0, value: ArgumentValue::Null };
        self.free.push(at);
    }
}

/// Arguments that are one have one hash.
fn hash_of(hasher: &RandomState, argument: &Argument) -> u64 {
    let (mut hash, mut value) = (hasher.build_hasher(), Vec::new());
    argument.value.as_ref().put(&mut value);
    hash.write(&argument.name);
    hash.write_u8(argument.tag);
    hash.write(&value);
    hash.finish()
}

fn mode(text: &[u8]) -> Result<(bool, bool), UnknownMatch> {
    match text {
        b"all" => Ok((false, false)),
        b"any" => Ok((true, false)),
        b"all-with-x" => Ok((false, true)),
        b"any-with-x" => Ok((true, true)),
        _ => Err(UnknownMatch),
    }
}

fn is_met(argument: &Argument, attributes: &dyn Attributes) -> bool {
    attributes
        .header(&argument.name)
        .is_some_and(|value| argument.value == ArgumentValue::Null || argument.value.as_ref() == value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::argument::ArgumentRef;
    use crate::publication::HashedProperty;

    /// Counts how often it is asked.
    struct Message(Vec<(&'static str, &'static str)>, std::cell::Cell<u32>);

    impl Attributes for Message {
        fn header(&self, name: &[u8]) -> Option<ArgumentRef<'_>> {
            self.1.set(self.1.get() + 1);
            let found = self.0.iter().find(|(of, _)| of.as_bytes() == name)?;
            Some(ArgumentRef::Text(found.1.as_bytes()))
        }

        fn property(&self, _: HashedProperty) -> Option<ArgumentRef<'_>> {
            None
        }
    }

    fn text(name: &str, value: &str) -> Argument {
        Argument {
            name: name.as_bytes().into(),
            tag: b'S',
            value: ArgumentValue::Text(value.as_bytes().into()),
        }
    }

    #[test]
    fn a_header_is_asked_for_once_however_many_bindings_want_it() {
        let mut rules = HeaderRules::default();
        for i in 0..1000_u32 {
            let own = text("own", &i.to_string());
            let arguments = (0..40).map(|j| text(&format!("h{j}"), "v")).chain([own]).collect();
            rules.insert(i, &Arguments::new(arguments), i);
        }
        assert_eq!(rules.conditions.len(), 1040);
        let (mut asked, mut out) = (Vec::new(), Vec::new());
        let headers = ["h0", "h1", "h2"].map(|name| (name, "v")).to_vec();
        let message = Message(headers, Default::default());
        rules.matches(&message, &mut asked, &mut out);
        assert!(out.is_empty());
        assert!(message.1.get() <= 1040, "{} questions", message.1.get());
        (0..1000).for_each(|i| rules.remove(i));
        assert!(rules.by_argument.is_empty() && rules.free.len() == 1040);
    }

    #[test]
    fn what_one_binding_asks_is_left_when_another_one_that_asks_it_goes() {
        let mut rules = HeaderRules::default();
        rules.insert(1, &Arguments::new(vec![text("a", "1"), text("b", "1")]), 1);
        rules.insert(2, &Arguments::new(vec![text("a", "1"), text("x-match", "any"), text("c", "2")]), 2);
        rules.insert(3, &Arguments::new(vec![text("x-match", "any")]), 3);
        let routed = |rules: &HeaderRules, headers: &[(&'static str, &'static str)]| {
            let (mut asked, mut out) = (Vec::new(), Vec::new());
            rules.matches(&Message(headers.to_vec(), Default::default()), &mut asked, &mut out);
            out
        };
        assert_eq!(routed(&rules, &[("a", "1"), ("b", "1")]), [1, 2]);
        assert_eq!(routed(&rules, &[("a", "1")]), [2]);
        rules.remove(2);
        assert_eq!(routed(&rules, &[("a", "1"), ("b", "1"), ("c", "2")]), [1]);
        rules.insert(4, &Arguments::new(vec![text("d", "1")]), 4);
        assert_eq!(routed(&rules, &[("d", "1")]), [4]);
        assert_eq!(routed(&rules, &[("c", "2")]), []);
    }
}
