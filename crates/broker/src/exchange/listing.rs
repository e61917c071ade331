//! Exchanges and bindings as a list, and judged before they are made: what goes from one broker to another.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use sabir_routing::{Binding, BindingId, Destination, ExchangeKind, MAX_KEY_BYTES, RouteTarget};

use super::rows::exchange_bytes;
use super::{
    ExchangeError, ExchangeSpec, Exchanges, NamedBinding, NamedDestination, PredeclaredExchange, alike,
    check_name,
};
use crate::caller::{Caller, is_routed_to};

/// Bindings that are looked up under one lock: a change waits for it, and publishes for the change.
const TOGETHER: usize = 1000;

/// A binding of a list.
#[derive(Debug, Clone)]
pub struct ListedBinding(Arc<Binding>);

impl Exchanges {
    /// The names of the exchanges of the caller's namespace that are there after the next start, in their order.
    ///
    /// # Errors
    /// What the catalog's shard knows is not to be believed.
    pub fn durable(&self, caller: &Caller) -> Result<Vec<Box<str>>, ExchangeError> {
        let Some(router) = self.routers.get(caller.namespace().as_str()) else { return Ok(Vec::new()) };
        let all: Vec<Box<str>> = router.read()?.names().map(|(name, _)| name.into()).collect();
        let mut durable = Vec::with_capacity(all.len());
        for name in all {
            if self.get(caller, &name)?.is_some_and(|spec| spec.durable) {
                durable.push(name);
            }
        }
        durable.sort_unstable();
        Ok(durable)
    }

    /// The exchange that a front end has in every namespace by this name.
    pub fn predeclared_as(&self, name: &str) -> Option<&PredeclaredExchange> {
        self.options.predeclared.iter().find(|exchange| exchange.name == name)
    }

    /// The bindings from an exchange, in the order in which they were made; of one that is not there none.
    ///
    /// # Errors
    /// What the catalog's shard knows is not to be believed.
    pub fn bindings_from(&self, caller: &Caller, source: &str) -> Result<Vec<ListedBinding>, ExchangeError> {
        let Some(router) = self.routers.get(caller.namespace().as_str()) else { return Ok(Vec::new()) };
        let read = router.read()?;
        let Some(id) = read.exchange(source) else { return Ok(Vec::new()) };
        let places = read.places_from(id);
        drop(read);
        let mut found: Vec<(BindingId, Arc<Binding>)> = Vec::with_capacity(places.len());
        for places in places.chunks(TOGETHER) {
            let read = router.read()?;
            let there = places.iter().filter_map(|place| read.binding_at(*place));
            // Another one may stand there by now.
            found.extend(there.filter(|(_, binding)| binding.source == id).cloned());
        }
        found.sort_unstable_by_key(|(number, _)| *number);
        found.dedup_by_key(|(number, _)| *number);
        Ok(found.into_iter().map(|(_, binding)| ListedBinding(binding)).collect())
    }

    /// A binding from an exchange of that name by names; nothing where what it leads to is gone.
    ///
    /// # Errors
    /// What the catalog's shard knows is not to be believed.
    pub fn named(
        &self,
        caller: &Caller,
        source: &str,
        listed: &ListedBinding,
    ) -> Result<Option<NamedBinding>, ExchangeError> {
        let binding = &listed.0;
        let destination = match binding.destination {
            Destination::Target(RouteTarget::Topic(id)) => {
                let view = self.definitions.shown();
                view.topic_by_id(id).map(|topic| NamedDestination::Queue(topic.name.to_string()))
            }
            Destination::Target(RouteTarget::Partition { .. } | RouteTarget::Session(_)) => None,
            Destination::Exchange(id) => {
                let Some(router) = self.routers.get(caller.namespace().as_str()) else { return Ok(None) };
                let read = router.read()?;
                read.name_of(id).map(|name| NamedDestination::Exchange(name.to_owned()))
            }
        };
        Ok(destination.map(|destination| NamedBinding {
            source: source.to_owned(),
            destination,
            key: binding.key.to_vec(),
            syntax: binding.syntax,
            arguments: binding.arguments.clone(),
        }))
    }

    /// Judges what [`declare`](Self::declare) would, as things are now, and declares nothing. Whether it is there already, and alike.
    ///
    /// # Errors
    /// Why it would not be declared; whether there is room is another question.
    pub fn check(&self, caller: &Caller, name: &str, spec: &ExchangeSpec) -> Result<bool, ExchangeError> {
        check_name(name)?;
        if let Some(there) = self.get(caller, name)? {
            return alike(name, &there, spec).map(|()| true);
        }
        self.may_declare(caller, name)?;
        self.check_level().map(|()| false)
    }

    /// Whether a binding is there already.
    ///
    /// # Errors
    /// There is no such exchange or queue.
    pub fn is_bound(&self, caller: &Caller, binding: &NamedBinding) -> Result<bool, ExchangeError> {
        let state = self.catalog.state.read();
        state.exchanges.has_binding(caller.namespace().as_str(), binding, &state.catalog)
    }

    /// Judges what [`bind`](Self::bind) would of a binding from an exchange of this kind, but for what it is from and leads to.
    ///
    /// # Errors
    /// Why it would not be made.
    pub fn check_binding(&self, kind: &ExchangeKind, binding: &NamedBinding) -> Result<(), ExchangeError> {
        if binding.key.len() > MAX_KEY_BYTES {
            return Err(ExchangeError::LongKey { most: MAX_KEY_BYTES });
        }
        self.check_level()?;
        Ok(kind.check(&binding.key, binding.syntax, &binding.arguments)?)
    }

    /// Judges whether a binding may lead to a queue, or any other topic, of that name.
    ///
    /// # Errors
    /// There is none, or nothing can be bound to it.
    pub fn check_destination(&self, caller: &Caller, name: &str) -> Result<(), ExchangeError> {
        let view = self.definitions.shown();
        match view.topic_of(caller, name) {
            None => Err(ExchangeError::UnknownQueue(name.into())),
            Some(topic) if is_routed_to(topic) => Ok(()),
            Some(_) => Err(ExchangeError::Internal(name.into())),
        }
    }

    /// Judges whether there is room for all of these together, as things are now.
    ///
    /// # Errors
    /// There is none.
    pub fn check_room_for(
        &self,
        caller: &Caller,
        exchanges: &[(String, ExchangeSpec)],
        bindings: &[NamedBinding],
    ) -> Result<(), ExchangeError> {
        let of_exchanges = self.check_exchanges(exchanges.len())?;
        self.check_bindings(caller, bindings.len())?;
        let more: usize = exchanges.iter().map(|(name, spec)| exchange_bytes(name, spec)).sum();
        let more = more + bindings.iter().map(NamedBinding::bytes).sum::<usize>();
        self.check_bytes(of_exchanges, self.room.coming.load(SeqCst) + more)
    }
}
