//! Bindings, and where each is found by what it says.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;

use crate::argument::Arguments;
use crate::exchange::ExchangeId;
use crate::route_set::RouteTarget;
use crate::words::KeySyntax;

/// Where a binding leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// To a queue, a topic or a session.
    Target(RouteTarget),
    /// To another exchange.
    Exchange(ExchangeId),
}

/// A binding's number in its router; never given twice. Bindings count in the order of their numbers where an exchange asks for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BindingId(pub u64);

/// Has what an exchange gets go to a destination, if it is as the key or the arguments say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The exchange.
    pub source: ExchangeId,
    /// Where it leads.
    pub destination: Destination,
    /// The binding key.
    pub key: Box<[u8]>,
    /// How the key is written, which only a topic exchange looks at.
    pub syntax: KeySyntax,
    /// The arguments.
    pub arguments: Arguments,
}

/// What a binding takes in tables: the test over thousands of bindings in the broker.
const TABLES: usize = 432;
/// What an argument takes in tables beside that, where it is a condition of a headers exchange.
const ARGUMENT_TABLES: usize = 80;

impl Binding {
    /// By a dotted key and nothing else.
    pub fn keyed(source: ExchangeId, destination: Destination, key: &[u8]) -> Self {
        Self {
            source,
            destination,
            key: key.into(),
            syntax: KeySyntax::Dotted,
            arguments: Arguments::default(),
        }
    }

    /// Bytes that it takes, its places in tables reckoned in.
    pub(crate) fn bytes(&self) -> usize {
        let arguments = 2 * self.arguments.bytes() + ARGUMENT_TABLES * self.arguments.iter().count();
        size_of::<Self>() + TABLES + 2 * self.key.len() + arguments
    }
}

/// A binding's number while it is there.
pub(crate) type BindingNo = u32;

/// All bindings.
#[derive(Debug, Default)]
pub(crate) struct BindingTable {
    hasher: RandomState,
    rows: Vec<Option<(BindingId, Arc<Binding>)>>,
    free: Vec<BindingNo>,
    by_content: HashTable<BindingNo>,
    bytes: usize,
}

impl BindingTable {
    pub(crate) fn len(&self) -> usize {
        self.by_content.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn find(&self, binding: &Binding) -> Option<BindingNo> {
        let same = |number: &BindingNo| self.get(*number) == Some(binding);
        self.by_content.find(content_hash(&self.hasher, binding), same).copied()
    }

    pub(crate) fn get(&self, number: BindingNo) -> Option<&Binding> {
        self.row(number).map(|(_, binding)| &**binding)
    }

    pub(crate) fn row(&self, number: BindingNo) -> Option<&(BindingId, Arc<Binding>)> {
        self.rows.get(number as usize)?.as_ref()
    }

    /// Adds one that is not there.
    pub(crate) fn insert(&mut self, id: BindingId, binding: Arc<Binding>) -> BindingNo {
        self.bytes += binding.bytes();
        let hash = content_hash(&self.hasher, &binding);
        let number = self.place((id, binding));
        let (hasher, rows) = (&self.hasher, &self.rows);
        self.by_content.insert_unique(hash, number, |number| {
            rows[*number as usize].as_ref().map_or(0, |(_, binding)| content_hash(hasher, binding))
        });
        number
    }

    fn place(&mut self, row: (BindingId, Arc<Binding>)) -> BindingNo {
        if let Some(free) = self.free.pop() {
            self.rows[free as usize] = Some(row);
            return free;
        }
        self.rows.push(Some(row));
        (self.rows.len() - 1) as BindingNo
    }

    pub(crate) fn remove(&mut self, number: BindingNo) -> Option<(BindingId, Arc<Binding>)> {
        let (id, binding) = self.rows.get_mut(number as usize)?.take()?;
        let hash = content_hash(&self.hasher, &binding);
        if let Ok(entry) = self.by_content.find_entry(hash, |other| *other == number) {
            entry.remove();
        }
        self.free.push(number);
        self.bytes -= binding.bytes();
        Some((id, binding))
    }
}

fn content_hash(hasher: &RandomState, binding: &Binding) -> u64 {
    let mut arguments = Vec::new();
    binding.arguments.put(&mut arguments);
    hasher.hash_one((binding.source, binding.destination, &binding.key, binding.syntax, arguments))
}
