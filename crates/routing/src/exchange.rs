//! An exchange: what it is, and which of its bindings a message meets.

use std::collections::HashMap;

use crate::argument::Arguments;
use crate::binding::{Binding, BindingNo};
use crate::counted_set::CountedSet;
use crate::hash_ring::{HashOn, HashRing, MAX_WEIGHT, weight};
use crate::header_rule::{Asked, HeaderRules, mode_of};
use crate::publication::Publication;
use crate::trie::{Trie, TrieScratch};
use crate::words::{KeyError, KeySyntax, pattern};
use thiserror::Error;

/// An exchange's number in its router; never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(pub u64);

impl ExchangeId {
    /// The exchange without a name, which routes to the queue that the routing key names.
    pub const DEFAULT: Self = Self(0);
}

/// How an exchange routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExchangeKind {
    /// To where the routing key is the binding key.
    Direct,
    /// To everywhere.
    Fanout,
    /// To where the routing key matches the binding key's pattern.
    Topic,
    /// To where the headers are as the binding's arguments want them.
    Headers,
    /// To one destination, by a hash; binding keys are weights.
    ConsistentHash(HashOn),
}

impl ExchangeKind {
    /// Whether an exchange of this kind can have a binding with this key and these arguments.
    ///
    /// # Errors
    /// What of it cannot be.
    pub fn check(&self, key: &[u8], syntax: KeySyntax, arguments: &Arguments) -> Result<(), InvalidBinding> {
        match self {
            Self::Direct | Self::Fanout => Ok(()),
            Self::Topic => pattern(key, syntax).map(|_| ()).map_err(InvalidBinding::Key),
            Self::Headers => mode_of(arguments).map(|_| ()).map_err(|_| InvalidBinding::Match),
            Self::ConsistentHash(_) => weight(key).map(|_| ()).ok_or(InvalidBinding::Weight),
        }
    }
}

/// What an exchange is declared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeSettings {
    /// How it routes.
    pub kind: ExchangeKind,
    /// Where a message goes that none of its bindings wants. There need be no such exchange yet.
    pub alternate: Option<Box<str>>,
    /// Deleted once the last of its bindings is.
    pub auto_delete: bool,
    /// Gets messages from other exchanges alone; [`crate::Router`] leaves that to its caller.
    pub internal: bool,
    /// A message that asks for a delay is routed when its timer fires, by the bindings of that moment; [`crate::Router`] routes at
    /// once, so its caller looks at this first.
    pub delayed: bool,
}

impl ExchangeSettings {
    /// Of a kind, with nothing else.
    pub fn of(kind: ExchangeKind) -> Self {
        Self { kind, alternate: None, auto_delete: false, internal: false, delayed: false }
    }
}

/// What of a message the way it takes depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Varies {
    /// Nothing: all go the same way.
    #[default]
    Never,
    /// The routing key.
    ByKey,
    /// Headers or properties.
    ByAttributes,
}

/// A binding that an exchange of its kind cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidBinding {
    /// The key is no pattern.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key is no weight.
    #[error("the binding key must be a whole number from 1 to {MAX_WEIGHT}")]
    Weight,
    /// `x-match` has a value that is not known.
    #[error("x-match must be the text all, any, all-with-x or any-with-x")]
    Match,
}

#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) name: Box<str>,
    pub(crate) settings: ExchangeSettings,
    /// Another one after each change of what it routes by.
    pub(crate) version: u64,
    /// Bindings that begin here.
    pub(crate) bindings: CountedSet,
    rules: Rules,
}

/// The bindings in the form that routes.
#[derive(Debug)]
enum Rules {
    Direct(HashMap<Box<[u8]>, CountedSet>),
    Fanout(CountedSet),
    Topic(Box<Trie>),
    Headers(Box<HeaderRules>),
    ConsistentHash(HashOn, HashRing),
}

/// What matching needs, kept so that the next message allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct MatchScratch {
    trie: TrieScratch,
    asked: Vec<Asked>,
    hashed: Vec<u8>,
}

impl Exchange {
    pub(crate) fn new(name: &str, settings: ExchangeSettings, version: u64) -> Self {
        let rules = Rules::new(&settings.kind);
        Self { name: name.into(), settings, version, bindings: CountedSet::default(), rules }
    }

    /// Whether it can have this binding.
    pub(crate) fn check(&self, binding: &Binding) -> Result<(), InvalidBinding> {
        self.settings.kind.check(&binding.key, binding.syntax, &binding.arguments)
    }

    /// Adds a binding that [`Exchange::check`] let pass.
    pub(crate) fn insert(&mut self, number: BindingNo, binding: &Binding, to: u32) {
        self.bindings.insert(number);
        match &mut self.rules {
            Rules::Direct(keys) => keys.entry(binding.key.clone()).or_default().insert(to),
            Rules::Fanout(all) => all.insert(to),
            Rules::Topic(trie) => {
                let inserted = trie.insert(&binding.key, binding.syntax, to);
                debug_assert!(inserted.is_ok(), "the key was checked");
            }
            Rules::Headers(rules) => rules.insert(number, &binding.arguments, to),
            Rules::ConsistentHash(_, ring) => {
                ring.insert(number, to, weight(&binding.key).unwrap_or(1));
            }
        }
    }

    pub(crate) fn remove(&mut self, number: BindingNo, binding: &Binding, to: u32) {
        self.bindings.remove(number);
        match &mut self.rules {
            Rules::Direct(keys) => remove_key(keys, &binding.key, to),
            Rules::Fanout(all) => drop(all.remove(to)),
            Rules::Topic(trie) => drop(trie.remove(&binding.key, binding.syntax, to)),
            Rules::Headers(rules) => rules.remove(number),
            Rules::ConsistentHash(_, ring) => ring.remove(number),
        }
    }

    /// Appends the destinations of a message, some perhaps more than once.
    pub(crate) fn matches(
        &self,
        publication: &Publication<'_>,
        scratch: &mut MatchScratch,
        out: &mut Vec<u32>,
    ) -> Result<(), KeyError> {
        match &self.rules {
            Rules::Direct(keys) => {
                let sets = publication.keys().filter_map(|key| keys.get(key));
                sets.for_each(|set| set.extend_into(out));
            }
            Rules::Fanout(all) => all.extend_into(out),
            Rules::Topic(trie) => {
                for key in publication.keys() {
                    trie.matches(key, &mut scratch.trie, out)?;
                }
            }
            Rules::Headers(rules) => rules.matches(publication.attributes, &mut scratch.asked, out),
            Rules::ConsistentHash(on, ring) => {
                scratch.hashed.clear();
                put_hashed(on, publication, &mut scratch.hashed);
                out.extend(ring.find(&scratch.hashed));
            }
        }
        Ok(())
    }

    /// Bytes of what it matches patterns by.
    pub(crate) fn pattern_bytes(&self) -> usize {
        match &self.rules {
            Rules::Topic(trie) => trie.bytes(),
            _ => 0,
        }
    }

    pub(crate) fn varies(&self) -> Varies {
        match &self.rules {
            Rules::Fanout(_) => Varies::Never,
            Rules::Direct(_) | Rules::Topic(_) | Rules::ConsistentHash(HashOn::Key, _) => Varies::ByKey,
            Rules::Headers(_) | Rules::ConsistentHash(..) => Varies::ByAttributes,
        }
    }
}

impl Rules {
    fn new(kind: &ExchangeKind) -> Self {
        match kind {
            ExchangeKind::Direct => Self::Direct(HashMap::new()),
            ExchangeKind::Fanout => Self::Fanout(CountedSet::default()),
            ExchangeKind::Topic => Self::Topic(Box::default()),
            ExchangeKind::Headers => Self::Headers(Box::default()),
            ExchangeKind::ConsistentHash(on) => Self::ConsistentHash(on.clone(), HashRing::default()),
        }
    }
}

fn remove_key(keys: &mut HashMap<Box<[u8]>, CountedSet>, key: &[u8], to: u32) {
    let Some(set) = keys.get_mut(key) else { return };
    set.remove(to);
    if set.is_empty() {
        keys.remove(key);
    }
}

/// What an exchange hashes of a message: nothing, if the message lacks it. Of several routing keys only the first counts, because a
/// message of this kind of exchange goes to one destination.
fn put_hashed(on: &HashOn, publication: &Publication<'_>, out: &mut Vec<u8>) {
    let value = match on {
        HashOn::Key => return out.extend(publication.key),
        HashOn::Header(name) => publication.attributes.header(name),
        HashOn::Property(property) => publication.attributes.property(*property),
    };
    if let Some(value) = value {
        value.put(out);
    }
}
