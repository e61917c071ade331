//! A namespace's exchanges, queues and bindings.

use std::collections::{BTreeSet, HashMap};
use std::mem::discriminant;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use thiserror::Error;

use crate::binding::{Binding, BindingId, BindingNo, BindingTable, Destination};
use crate::counted_set::CountedSet;
use crate::exchange::{Exchange, ExchangeId, ExchangeSettings, InvalidBinding};
use crate::route_set::RouteTarget;

/// What a router may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouterLimits {
    /// Exchanges.
    pub exchanges: usize,
    /// Bindings.
    pub bindings: usize,
    /// Bytes of the bindings, tables reckoned in.
    pub binding_bytes: usize,
}

impl RouterLimits {
    /// The caller that changes the router has looked before.
    pub const NONE: Self = Self { exchanges: usize::MAX, bindings: usize::MAX, binding_bytes: usize::MAX };
}

impl Default for RouterLimits {
    fn default() -> Self {
        Self { exchanges: 100_000, bindings: 5_000_000, binding_bytes: 2 << 30 }
    }
}

/// Why an exchange is not declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DeclareError {
    /// One of this name is there, with another setting.
    #[error("the exchange exists with another {0}")]
    Differs(&'static str),
    /// The name is that of the default exchange.
    #[error("the default exchange is there without a declaration")]
    DefaultExchange,
    /// There are as many as may be.
    #[error("there are {0} exchanges, which is the limit")]
    TooMany(usize),
}

/// Why a binding is not made or taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BindingError {
    /// The default exchange routes by the names of queues alone.
    #[error("the default exchange has no bindings of its own")]
    DefaultExchange,
    /// There is no such exchange.
    #[error("there is no such exchange")]
    NoExchange,
    /// The exchange cannot have such a binding.
    #[error(transparent)]
    Invalid(#[from] InvalidBinding),
    /// There are as many as may be.
    #[error("there are {bindings} bindings of {bytes} bytes, which is the limit")]
    TooMany {
        /// How many there are.
        bindings: usize,
        /// What they take.
        bytes: usize,
    },
}

/// Why an exchange is not deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ExchangeDeleteError {
    /// There is none.
    #[error("there is no such exchange")]
    NoExchange,
    /// It has bindings, and was to be deleted only without.
    #[error("the exchange is in use")]
    InUse,
    /// The default exchange stays.
    #[error("the default exchange cannot be deleted")]
    DefaultExchange,
}

/// What a change took away with it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Exchanges, with their names.
    pub exchanges: Vec<(ExchangeId, Box<str>)>,
    /// Bindings, with their numbers.
    pub bindings: Vec<(BindingId, Arc<Binding>)>,
}

/// A namespace's exchanges, queues and bindings: where a message goes.
#[derive(Debug)]
pub struct Router {
    pub(crate) exchanges: FxHashMap<ExchangeId, Exchange>,
    names: HashMap<Box<str>, ExchangeId>,
    /// Exchanges that name another one as their alternate.
    alternates: HashMap<Box<str>, BTreeSet<ExchangeId>>,
    pub(crate) queues: HashMap<Box<[u8]>, DestinationNo>,
    /// What each number stands for; nothing while it is free. It lies apart because routing reads nothing else.
    pub(crate) leads_to: Vec<Option<Destination>>,
    pub(crate) destinations: Vec<DestinationRow>,
    free: Vec<DestinationNo>,
    by_destination: FxHashMap<Destination, DestinationNo>,
    bindings: BindingTable,
    /// Bytes of the patterns of topic exchanges.
    pattern_bytes: usize,
    limits: RouterLimits,
    /// The last exchange's number.
    last: u64,
    /// The last binding's number.
    last_binding: u64,
    version: u64,
}

/// A destination's number while a binding or a queue's name leads to it.
pub(crate) type DestinationNo = u32;

#[derive(Debug)]
pub(crate) struct DestinationRow {
    /// Rises with each use of the row.
    pub(crate) generation: u64,
    queue: Option<Box<[u8]>>,
    /// Bindings that lead here.
    bindings: CountedSet,
}

impl Router {
    /// Only the default exchange.
    pub fn new(limits: RouterLimits) -> Self {
        Self {
            exchanges: FxHashMap::default(),
            names: HashMap::new(),
            alternates: HashMap::new(),
            queues: HashMap::new(),
            leads_to: Vec::new(),
            destinations: Vec::new(),
            free: Vec::new(),
            by_destination: FxHashMap::default(),
            bindings: BindingTable::default(),
            pattern_bytes: 0,
            limits,
            last: ExchangeId::DEFAULT.0,
            last_binding: 0,
            version: 0,
        }
    }

    /// The exchange of this name; the empty one is the default exchange's.
    pub fn exchange(&self, name: &str) -> Option<ExchangeId> {
        if name.is_empty() { Some(ExchangeId::DEFAULT) } else { self.names.get(name).copied() }
    }

    /// What an exchange was declared with; nothing for the default exchange.
    pub fn settings(&self, id: ExchangeId) -> Option<&ExchangeSettings> {
        self.exchanges.get(&id).map(|exchange| &exchange.settings)
    }

    /// Makes an exchange, or finds the one that is there and is alike.
    pub fn declare(&mut self, name: &str, settings: ExchangeSettings) -> Result<ExchangeId, DeclareError> {
        self.declare_as(ExchangeId(self.last + 1), name, settings)
    }

    /// The same, for the caller that gives the numbers of exchanges. No other exchange has it, nor had it.
    pub fn declare_as(
        &mut self,
        number: ExchangeId,
        name: &str,
        settings: ExchangeSettings,
    ) -> Result<ExchangeId, DeclareError> {
        if let Some(id) = self.exchange(name) {
            let held = self.settings(id).ok_or(DeclareError::DefaultExchange)?;
            return difference(held, &settings).map_or(Ok(id), |what| Err(DeclareError::Differs(what)));
        }
        if self.exchanges.len() >= self.limits.exchanges {
            return Err(DeclareError::TooMany(self.exchanges.len()));
        }
        Ok(self.add_exchange(number, name, settings))
    }

    fn add_exchange(&mut self, id: ExchangeId, name: &str, settings: ExchangeSettings) -> ExchangeId {
        self.last = self.last.max(id.0);
        if let Some(alternate) = settings.alternate.clone() {
            self.alternates.entry(alternate).or_default().insert(id);
        }
        let version = self.next_version();
        self.names.insert(name.into(), id);
        let exchange = Exchange::new(name, settings, version);
        self.pattern_bytes += exchange.pattern_bytes();
        self.exchanges.insert(id, exchange);
        self.touch_users_of(name);
        id
    }

    /// Deletes an exchange, the bindings from it and to it, and exchanges that delete themselves without bindings.
    pub fn delete(&mut self, id: ExchangeId, if_unused: bool) -> Result<Removed, ExchangeDeleteError> {
        if id == ExchangeId::DEFAULT {
            return Err(ExchangeDeleteError::DefaultExchange);
        }
        let exchange = self.exchanges.get(&id).ok_or(ExchangeDeleteError::NoExchange)?;
        if if_unused && !exchange.bindings.is_empty() {
            return Err(ExchangeDeleteError::InUse);
        }
        let mut removed = Removed::default();
        self.drop_exchanges(vec![id], &mut removed);
        Ok(removed)
    }

    /// Has the default exchange route to `target` by this name.
    pub fn add_queue(&mut self, name: &str, target: RouteTarget) {
        let number = self.destination_no(Destination::Target(target));
        let before = self.queues.insert(name.as_bytes().into(), number);
        if let Some(before) = before.filter(|before| *before != number) {
            self.destinations[before as usize].queue = None;
            self.renew(before);
            self.free_if_idle(before);
        }
        let row = &mut self.destinations[number as usize];
        let other = row.queue.replace(name.as_bytes().into());
        if let Some(other) = other.filter(|other| **other != *name.as_bytes()) {
            self.queues.remove(&other);
            self.renew(number);
        }
    }

    /// Takes away a queue, a topic or a session, and every binding to it.
    pub fn remove_target(&mut self, target: RouteTarget) -> Removed {
        let mut removed = Removed::default();
        let Some(number) = self.by_destination.get(&Destination::Target(target)).copied() else {
            return removed;
        };
        if let Some(name) = self.destinations[number as usize].queue.take() {
            self.queues.remove(&name);
            self.renew(number);
        }
        let unused = self.unbind_all_to(number, &mut removed);
        self.free_if_idle(number);
        self.drop_exchanges(unused, &mut removed);
        removed
    }

    /// Makes a binding; whether it was not there yet.
    pub fn bind(&mut self, binding: Binding) -> Result<bool, BindingError> {
        self.bind_as(BindingId(self.last_binding + 1), Arc::new(binding))
    }

    /// The same, for the caller that gives the numbers of bindings. No other binding has it, nor had it, and it is above those of all that are there.
    pub fn bind_as(&mut self, id: BindingId, binding: Arc<Binding>) -> Result<bool, BindingError> {
        self.check(&binding)?;
        if self.bindings.find(&binding).is_some() {
            return Ok(false);
        }
        self.check_room(&binding)?;
        self.last_binding = self.last_binding.max(id.0);
        let to = self.destination_no(binding.destination);
        let (source, number) = (binding.source, self.bindings.insert(id, binding));
        self.destinations[to as usize].bindings.insert(number);
        let version = self.next_version();
        if let (Some(exchange), Some(binding)) = (self.exchanges.get_mut(&source), self.bindings.get(number))
        {
            let before = exchange.pattern_bytes();
            exchange.insert(number, binding, to);
            exchange.version = version;
            self.pattern_bytes = self.pattern_bytes + exchange.pattern_bytes() - before;
        }
        Ok(true)
    }

    fn check(&self, binding: &Binding) -> Result<(), BindingError> {
        let default = Destination::Exchange(ExchangeId::DEFAULT);
        if binding.source == ExchangeId::DEFAULT || binding.destination == default {
            return Err(BindingError::DefaultExchange);
        }
        if let Destination::Exchange(id) = binding.destination {
            self.exchanges.get(&id).ok_or(BindingError::NoExchange)?;
        }
        let exchange = self.exchanges.get(&binding.source).ok_or(BindingError::NoExchange)?;
        exchange.check(binding).map_err(BindingError::Invalid)
    }

    fn check_room(&self, binding: &Binding) -> Result<(), BindingError> {
        let (bindings, bytes) = (self.bindings.len(), self.binding_bytes());
        let fits = bindings < self.limits.bindings && bytes + binding.bytes() <= self.limits.binding_bytes;
        if fits { Ok(()) } else { Err(BindingError::TooMany { bindings, bytes }) }
    }

    /// Takes a binding away that is alike in everything. One that is not there is no error: nothing is removed.
    pub fn unbind(&mut self, binding: &Binding) -> Result<Removed, BindingError> {
        if binding.source == ExchangeId::DEFAULT {
            return Err(BindingError::DefaultExchange);
        }
        let mut removed = Removed::default();
        let Some(number) = self.bindings.find(binding) else { return Ok(removed) };
        let unused = self.remove_binding(number, &mut removed);
        self.drop_exchanges(unused.into_iter().collect(), &mut removed);
        Ok(removed)
    }

    /// How many bindings there are.
    pub fn bindings(&self) -> usize {
        self.bindings.len()
    }

    /// What they take, in bytes, tables and the patterns of topic exchanges reckoned in.
    pub fn binding_bytes(&self) -> usize {
        self.bindings.bytes() + self.pattern_bytes
    }

    /// How many exchanges there are, the default one aside.
    pub fn exchanges(&self) -> usize {
        self.exchanges.len()
    }

    /// All exchanges by name, in no order, the default one aside.
    pub fn names(&self) -> impl Iterator<Item = (&str, ExchangeId)> {
        self.names.iter().map(|(name, id)| (&**name, *id))
    }

    /// The name of an exchange.
    pub fn name_of(&self, id: ExchangeId) -> Option<&str> {
        self.exchanges.get(&id).map(|exchange| &*exchange.name)
    }

    /// Whether a binding is there that is alike in everything.
    pub fn has_binding(&self, binding: &Binding) -> bool {
        self.bindings.find(binding).is_some()
    }

    /// Where the bindings from an exchange stand, to be looked up in parts by [`Router::binding_at`].
    pub fn places_from(&self, id: ExchangeId) -> Vec<u32> {
        self.exchanges.get(&id).map(|exchange| exchange.bindings.to_vec()).unwrap_or_default()
    }

    /// The binding that stands there now, with its number.
    pub fn binding_at(&self, place: u32) -> Option<&(BindingId, Arc<Binding>)> {
        self.bindings.row(place)
    }

    /// The bindings from an exchange.
    pub fn bindings_from(&self, id: ExchangeId) -> impl Iterator<Item = &Binding> {
        let numbers = self.exchanges.get(&id).map(|exchange| exchange.bindings.to_vec()).unwrap_or_default();
        numbers.into_iter().filter_map(|number| self.bindings.get(number))
    }

    /// The bindings to a destination.
    pub fn bindings_to(&self, destination: Destination) -> impl Iterator<Item = &Binding> {
        let row = self.by_destination.get(&destination).map(|number| &self.destinations[*number as usize]);
        let numbers = row.map(|row| row.bindings.to_vec()).unwrap_or_default();
        numbers.into_iter().filter_map(|number| self.bindings.get(number))
    }

    /// Deletes exchanges, and those that thereby lose their last binding and are to go with it.
    fn drop_exchanges(&mut self, mut pending: Vec<ExchangeId>, removed: &mut Removed) {
        while let Some(id) = pending.pop() {
            let Some(exchange) = self.exchanges.remove(&id) else { continue };
            self.forget_names(id, &exchange);
            self.pattern_bytes -= exchange.pattern_bytes();
            for number in exchange.bindings.to_vec() {
                self.remove_binding(number, removed);
            }
            if let Some(number) = self.by_destination.get(&Destination::Exchange(id)).copied() {
                pending.extend(self.unbind_all_to(number, removed));
                self.free_if_idle(number);
            }
            removed.exchanges.push((id, exchange.name));
        }
    }

    fn forget_names(&mut self, id: ExchangeId, exchange: &Exchange) {
        self.names.remove(&exchange.name);
        self.touch_users_of(&exchange.name);
        let Some(alternate) = &exchange.settings.alternate else { return };
        let Some(users) = self.alternates.get_mut(alternate) else { return };
        users.remove(&id);
        if users.is_empty() {
            self.alternates.remove(alternate);
        }
    }

    /// Removes all bindings to a destination; the exchanges that are to go because they have none left.
    fn unbind_all_to(&mut self, number: DestinationNo, removed: &mut Removed) -> Vec<ExchangeId> {
        let bindings = self.destinations[number as usize].bindings.to_vec();
        bindings.into_iter().filter_map(|binding| self.remove_binding(binding, removed)).collect()
    }

    /// Removes a binding; its exchange, if that is to go because it has none left.
    fn remove_binding(&mut self, number: BindingNo, removed: &mut Removed) -> Option<ExchangeId> {
        let (id, binding) = self.bindings.remove(number)?;
        let to = *self.by_destination.get(&binding.destination)?;
        self.destinations[to as usize].bindings.remove(number);
        self.free_if_idle(to);
        let version = self.next_version();
        let source = binding.source;
        let unused = self.exchanges.get_mut(&source).is_some_and(|exchange| {
            let before = exchange.pattern_bytes();
            exchange.remove(number, &binding, to);
            exchange.version = version;
            self.pattern_bytes = self.pattern_bytes + exchange.pattern_bytes() - before;
            exchange.settings.auto_delete && exchange.bindings.is_empty()
        });
        removed.bindings.push((id, binding));
        unused.then_some(source)
    }

    /// Routes by an exchange that names this one as its alternate were found without it, or with one that is no longer there.
    fn touch_users_of(&mut self, name: &str) {
        let Some(users) = self.alternates.get(name) else { return };
        for user in users {
            self.version += 1;
            if let Some(exchange) = self.exchanges.get_mut(user) {
                exchange.version = self.version;
            }
        }
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn destination_no(&mut self, destination: Destination) -> DestinationNo {
        if let Some(number) = self.by_destination.get(&destination) {
            return *number;
        }
        let generation = self.next_version();
        let number = self.place(DestinationRow { generation, queue: None, bindings: CountedSet::default() });
        self.leads_to[number as usize] = Some(destination);
        self.by_destination.insert(destination, number);
        number
    }

    fn place(&mut self, row: DestinationRow) -> DestinationNo {
        if let Some(free) = self.free.pop() {
            self.destinations[free as usize] = row;
            return free;
        }
        self.destinations.push(row);
        self.leads_to.push(None);
        (self.destinations.len() - 1) as DestinationNo
    }

    /// What a queue's name leads to has changed.
    fn renew(&mut self, number: DestinationNo) {
        self.destinations[number as usize].generation = self.next_version();
    }

    fn free_if_idle(&mut self, number: DestinationNo) {
        let row = &self.destinations[number as usize];
        if row.queue.is_some() || !row.bindings.is_empty() {
            return;
        }
        if let Some(destination) = self.leads_to[number as usize].take() {
            self.by_destination.remove(&destination);
            self.free.push(number);
            self.renew(number);
        }
    }
}

fn difference(held: &ExchangeSettings, wanted: &ExchangeSettings) -> Option<&'static str> {
    let differs = [
        ("type", discriminant(&held.kind) != discriminant(&wanted.kind)),
        ("hashed part", held.kind != wanted.kind),
        ("alternate exchange", held.alternate != wanted.alternate),
        ("auto-delete", held.auto_delete != wanted.auto_delete),
        ("internal mark", held.internal != wanted.internal),
        ("delay", held.delayed != wanted.delayed),
    ];
    differs.into_iter().find(|(_, differs)| *differs).map(|(what, _)| what)
}
