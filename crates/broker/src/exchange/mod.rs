//! Exchanges and bindings: declared, bound and routed by. What they are lies in the catalog's shard (`ExchangeTable`); where a message goes
//! is found beside it, on the thread that publishes.

mod error;
mod listing;
mod route;
mod routers;
mod rows;
mod spec;
mod table;

#[cfg(test)]
mod memory_tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use sabir_journal::Priority;
use sabir_model::{FrontendNo, ShardFailure};
pub use sabir_routing::{
    Argument, ArgumentRef, ArgumentValue, Arguments, Attributes, ExchangeId, ExchangeKind, HashOn,
    HashedProperty, InvalidBinding, KeyError, KeySyntax, MAX_KEY_BYTES, NoAttributes, Publication,
};
use sabir_routing::{RouteTarget, Router};

pub use error::ExchangeError;
pub use listing::ListedBinding;
pub(crate) use route::by_codec as targets_by_codec;
pub use route::{Route, RouteError, RouteScratch, RoutedTargets};
use routers::NamespaceRouter;
pub(crate) use routers::Routers;
use rows::exchange_bytes;
pub use spec::{ExchangeSpec, NamedBinding, NamedDestination};
pub(crate) use table::ExchangeTable;

use crate::answer::Answer;
use crate::caller::{Caller, is_published_to, is_routed_to};
use crate::definitions::Definitions;
use crate::entry::{Body, ExchangeBound, ExchangeDeclared, ExchangeDeleted, ExchangeUnbound};
use crate::level::FormatLevel;
use crate::shard::Shard;
use crate::timer::DelaysGone;
use crate::topics::number_of;

/// The longest name of an exchange, in bytes. A protocol may have a limit of its own below it.
const NAME_MAX: usize = 1024;

/// An exchange that a front end has in every namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PredeclaredExchange {
    /// Its name.
    pub name: &'static str,
    /// The front end's name.
    pub by: &'static str,
    /// What it is declared with.
    pub spec: ExchangeSpec,
}

/// How many exchanges and bindings there may be, and which there are without being asked for.
#[derive(Debug, Clone)]
pub struct ExchangeOptions {
    /// The most exchanges of all namespaces together.
    pub exchanges_max: usize,
    /// The most bindings of each namespace.
    pub bindings_max: usize,
    /// The most bytes of memory for exchanges and bindings, those of all namespaces together.
    pub bytes_max: usize,
    /// Exchanges that front ends have, of all front ends that there are, whether they are served or not.
    pub predeclared: Vec<PredeclaredExchange>,
}

impl Default for ExchangeOptions {
    fn default() -> Self {
        let predeclared = Vec::new();
        Self { exchanges_max: 100_000, bindings_max: 5_000_000, bytes_max: 512 << 20, predeclared }
    }
}

/// The exchanges of a broker. Clones are the same; names are those of the caller's namespace.
#[derive(Clone)]
pub struct Exchanges {
    catalog: Arc<Shard>,
    definitions: Arc<Definitions>,
    routers: Arc<Routers>,
    options: Arc<ExchangeOptions>,
    room: Arc<Room>,
}

/// What is kept of the bytes that exchanges and bindings may take.
#[derive(Debug, Default)]
struct Room {
    /// Of those that are on their way.
    coming: AtomicUsize,
    /// Exchanges and bindings that were refused for want of it.
    refused: AtomicU64,
}

/// An exchange or a binding on its way, for which there is room.
struct Coming {
    room: Arc<Room>,
    bytes: usize,
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.room.coming.fetch_sub(self.bytes, SeqCst);
    }
}

/// What exchanges and bindings take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExchangeMemory {
    /// Bytes of those that are there.
    pub bytes: u64,
    /// How many were refused, as they would have taken more than they may.
    pub refused: u64,
}

impl Exchanges {
    pub(crate) fn new(catalog: Arc<Shard>, definitions: Arc<Definitions>, options: &ExchangeOptions) -> Self {
        let routers = catalog.state.read().exchanges.routers().clone();
        Self { catalog, definitions, routers, options: Arc::new(options.clone()), room: Arc::default() }
    }

    /// Declares an exchange; one that is there and is alike is as good.
    ///
    /// # Errors
    /// It is there and is not alike; it cannot be, or cannot be yet; a front end keeps the name for itself; there is no room; the catalog's shard
    /// takes no writes.
    pub async fn declare(
        &self,
        caller: &Caller,
        name: &str,
        spec: ExchangeSpec,
    ) -> Result<(), ExchangeError> {
        check_name(name)?;
        match self.get(caller, name)? {
            Some(there) => return alike(name, &there, &spec),
            None => self.may_declare(caller, name)?,
        }
        let _coming = self.check_room(name, &spec)?;
        self.check_level()?;
        let made_by = number_of(&self.catalog, caller).await?;
        let body = ExchangeDeclared { namespace: namespace(caller), name: name.to_owned(), made_by, spec };
        self.ask(Priority::Ordinary, &body)?.await
    }

    /// Has those that front ends have in every namespace be in the caller's.
    ///
    /// # Errors
    /// The catalog's shard takes no writes.
    pub async fn prepare(&self, caller: &Caller) -> Result<(), ExchangeError> {
        for PredeclaredExchange { name, by, spec } in &self.options.predeclared {
            if self.get(caller, name)?.is_none() {
                let caller = Caller::front_end(by).within(caller.namespace().clone());
                self.declare(&caller, name, spec.clone()).await?;
            }
        }
        Ok(())
    }

    /// The front end that has an exchange of this name in every namespace.
    pub(crate) fn predeclared(&self, name: &str) -> Option<&'static str> {
        self.options.predeclared.iter().find(|exchange| exchange.name == name).map(|exchange| exchange.by)
    }

    /// The front end that made an exchange; none if there is none.
    pub(crate) fn made_by(&self, caller: &Caller, name: &str) -> Result<Option<FrontendNo>, ExchangeError> {
        let state = self.catalog.state.read();
        if !state.is_whole() {
            return Err(ShardFailure::StorageError.into());
        }
        Ok(state.exchanges.made_by(caller.namespace().as_str(), name))
    }

    /// A front end's number, once it has one.
    pub(crate) fn front_end_number(&self, name: &str) -> Option<FrontendNo> {
        self.catalog.state.read().catalog.front_end(name)
    }

    /// What an exchange was declared with; none if it is not there. The default exchange is there, and was not declared.
    ///
    /// # Errors
    /// What the catalog's shard knows is not to be believed.
    pub fn get(&self, caller: &Caller, name: &str) -> Result<Option<Arc<ExchangeSpec>>, ExchangeError> {
        let state = self.catalog.state.read();
        if !state.is_whole() {
            return Err(ShardFailure::StorageError.into());
        }
        Ok(state.exchanges.spec(caller.namespace().as_str(), name).cloned())
    }

    /// Which exchange has that name, and what it was declared with; none if none has. One that is deleted and declared again is another one.
    ///
    /// # Errors
    /// What the catalog's shard knows is not to be believed.
    pub fn declared(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<Option<(ExchangeId, Arc<ExchangeSpec>)>, ExchangeError> {
        let state = self.catalog.state.read();
        if !state.is_whole() {
            return Err(ShardFailure::StorageError.into());
        }
        let declared = state.exchanges.declared(caller.namespace().as_str(), name);
        Ok(declared.map(|(id, spec)| (id, spec.clone())))
    }

    /// Whether the exchange is gone that kept a message back; of one whose number is not known, whether none has its name, where this node leads the
    /// catalog's shard. One that another node declared a moment ago is not.
    pub(crate) fn is_gone(&self, caller: &Caller, name: &str, id: Option<ExchangeId>) -> bool {
        let (namespace, is_led) = (caller.namespace().as_str(), self.catalog.timers.is_led());
        let state = self.catalog.state.read();
        let exchanges = &state.exchanges;
        state.is_whole()
            && match id {
                Some(id) => exchanges.is_gone(namespace, name, id),
                None => is_led && exchanges.declared(namespace, name).is_none(),
            }
    }

    /// Whether one is gone of all exchanges that there ever were.
    pub(crate) fn has_lost_any(&self) -> bool {
        let state = self.catalog.state.read();
        state.is_whole() && state.exchanges.has_lost_any()
    }

    /// What tells of exchanges that kept messages back and are gone.
    pub(crate) fn delays_gone(&self) -> &Arc<DelaysGone> {
        &self.routers.delays_gone
    }

    /// Whether an exchange is there, as the default one always is.
    ///
    /// # Errors
    /// What the catalog's shard knows is not to be believed.
    pub fn exists(&self, caller: &Caller, name: &str) -> Result<bool, ExchangeError> {
        Ok(name.is_empty() || self.get(caller, name)?.is_some())
    }

    /// Deletes an exchange, the bindings from it and to it, and exchanges that go with their last binding.
    ///
    /// # Errors
    /// There is none; it has bindings, and was to be deleted only without; another front end made it, or its own has it in every namespace; the
    /// catalog's shard takes no writes.
    pub async fn delete(&self, caller: &Caller, name: &str, if_unused: bool) -> Result<(), ExchangeError> {
        self.may_delete(caller, name)?;
        let body = ExchangeDeleted { namespace: namespace(caller), name: name.to_owned(), if_unused };
        self.ask(Priority::Reserve, &body)?.await
    }

    /// Makes a binding; one that is there already is as good.
    ///
    /// # Errors
    /// There is no such exchange or queue; the exchange cannot have such a binding; there is no room; the catalog's shard takes no writes.
    pub async fn bind(&self, caller: &Caller, binding: NamedBinding) -> Result<(), ExchangeError> {
        if binding.key.len() > MAX_KEY_BYTES {
            return Err(ExchangeError::LongKey { most: MAX_KEY_BYTES });
        }
        let _coming = self.check_binding_room(caller, &binding)?;
        self.ask(Priority::Ordinary, &ExchangeBound { namespace: namespace(caller), binding })?.await
    }

    /// Takes a binding away, and its exchange if that goes with its last one. What is not there is no error.
    ///
    /// # Errors
    /// It is the default exchange's; the catalog's shard takes no writes.
    pub async fn unbind(&self, caller: &Caller, binding: NamedBinding) -> Result<(), ExchangeError> {
        self.ask(Priority::Reserve, &ExchangeUnbound { namespace: namespace(caller), binding })?.await
    }

    /// Where a message goes that is published to an exchange. What was found before for an exchange and a routing key is found in the scratch,
    /// for as long as nothing has changed that it depends on.
    ///
    /// # Errors
    /// There is no such exchange, or no client publishes to it; a routing key that cannot be.
    pub fn route(
        &self,
        caller: &Caller,
        exchange: &str,
        publication: &Publication<'_>,
        scratch: &mut RouteScratch,
    ) -> Result<Arc<Route>, RouteError> {
        #[cfg(any(test, feature = "testing"))]
        crate::panicking::panic_if_wanted("route", exchange.as_bytes());
        self.route_from(caller, exchange, publication, scratch, find)
    }

    /// The same for a message that an exchange kept back: one that has its name since has none of it.
    pub(crate) fn route_kept(
        &self,
        caller: &Caller,
        (exchange, id): (&str, Option<ExchangeId>),
        publication: &Publication<'_>,
        scratch: &mut RouteScratch,
    ) -> Result<Arc<Route>, RouteError> {
        let same = |router: &Router, name: &str| {
            let found = find(router, name)?;
            if id.is_none_or(|id| id == found) { Ok(found) } else { Err(RouteError::NoExchange) }
        };
        #[cfg(any(test, feature = "testing"))]
        crate::panicking::panic_if_wanted("route", exchange.as_bytes());
        self.route_from(caller, exchange, publication, scratch, same)
    }

    /// The same for what the broker itself publishes, to internal exchanges too.
    pub(crate) fn route_dead(
        &self,
        caller: &Caller,
        exchange: &str,
        publication: &Publication<'_>,
        scratch: &mut RouteScratch,
    ) -> Result<Arc<Route>, RouteError> {
        let any = |router: &Router, name: &str| router.exchange(name).ok_or(RouteError::NoExchange);
        self.route_from(caller, exchange, publication, scratch, any)
    }

    fn route_from(
        &self,
        caller: &Caller,
        exchange: &str,
        publication: &Publication<'_>,
        scratch: &mut RouteScratch,
        find: impl Fn(&Router, &str) -> Result<ExchangeId, RouteError>,
    ) -> Result<Arc<Route>, RouteError> {
        let view = self.definitions.shown();
        let named = |name: &[u8]| {
            let name = std::str::from_utf8(name).ok()?;
            view.topic_of(caller, name).filter(|topic| is_routed_to(topic)).map(|topic| topic.id)
        };
        if exchange.is_empty() && publication.further_keys.is_empty() {
            return Ok(scratch.of_topic(named(publication.key), &view));
        }
        let routes = self.enter(caller, scratch);
        let router = routes.read()?;
        let id = find(&router, exchange)?;
        if let Some(set) = scratch.cache.find(&router, id, publication) {
            let set = set.clone();
            drop(router);
            return Ok(scratch.of_set(&set, &view));
        }
        scratch.resolved = true;
        let queues = |name: &[u8]| named(name).map(RouteTarget::Topic);
        let publication = Publication { queues: &queues, ..*publication };
        let set = scratch.cache.route(&router, &mut self.routers.sets.lock(), id, &publication)?;
        drop(router);
        Ok(scratch.of_set(&set, &view))
    }

    /// The router of the caller's namespace, which the scratch knows from then on.
    fn enter(&self, caller: &Caller, scratch: &mut RouteScratch) -> Arc<NamespaceRouter> {
        let namespace = caller.namespace();
        match &scratch.router {
            Some((of, router)) if of == namespace => router.clone(),
            _ => {
                let (_, router) = self.routers.enter(namespace.as_str());
                scratch.router = Some((namespace.clone(), router.clone()));
                router
            }
        }
    }

    /// What exchanges and bindings take of the memory that they may.
    pub fn memory(&self) -> ExchangeMemory {
        let (_, bytes) = self.catalog.state.read().exchanges.size();
        let bytes = bytes + self.routers.binding_bytes();
        ExchangeMemory { bytes: bytes as u64, refused: self.room.refused.load(SeqCst) }
    }

    fn check_room(&self, name: &str, spec: &ExchangeSpec) -> Result<Coming, ExchangeError> {
        let of_exchanges = self.check_exchanges(1)?;
        self.admit(of_exchanges, exchange_bytes(name, spec))
    }

    fn check_binding_room(&self, caller: &Caller, binding: &NamedBinding) -> Result<Coming, ExchangeError> {
        self.check_bindings(caller, 1)?;
        let (_, of_exchanges) = self.catalog.state.read().exchanges.size();
        self.admit(of_exchanges, binding.bytes())
    }

    /// Whether there may be so many exchanges more. Tells what those that are there take, in bytes.
    fn check_exchanges(&self, more: usize) -> Result<usize, ExchangeError> {
        let (has, bytes) = self.catalog.state.read().exchanges.size();
        match has + more > self.options.exchanges_max {
            true => Err(ExchangeError::TooMany { what: "exchanges", has }),
            false => Ok(bytes),
        }
    }

    /// Whether there may be so many bindings more in the caller's namespace.
    fn check_bindings(&self, caller: &Caller, more: usize) -> Result<(), ExchangeError> {
        let router = self.routers.get(caller.namespace().as_str());
        let has = router.map_or(Ok(0), |router| router.read().map(|router| router.bindings()))?;
        match has + more > self.options.bindings_max {
            true => Err(ExchangeError::TooMany { what: "bindings", has }),
            false => Ok(()),
        }
    }

    /// Whether what is on its way, in bytes, fits beside all that is there.
    fn check_bytes(&self, of_exchanges: usize, coming: usize) -> Result<(), ExchangeError> {
        let most = self.options.bytes_max;
        match of_exchanges + self.routers.binding_bytes() + coming > most {
            true => Err(ExchangeError::NoRoom { most }),
            false => Ok(()),
        }
    }

    /// Admits what takes so many bytes, beside those of the exchanges that are there.
    fn admit(&self, of_exchanges: usize, bytes: usize) -> Result<Coming, ExchangeError> {
        let coming = self.room.coming.fetch_add(bytes, SeqCst) + bytes;
        let admitted = Coming { room: self.room.clone(), bytes };
        let fits = self.check_bytes(of_exchanges, coming);
        if fits.is_err() {
            self.room.refused.fetch_add(1, SeqCst);
        }
        fits.map(|()| admitted)
    }

    fn ask<B: Body>(&self, priority: Priority, body: &B) -> Result<Answer<B::Outcome>, ExchangeError> {
        self.check_level()?;
        Ok(self.catalog.ask(priority, body))
    }

    fn check_level(&self) -> Result<(), ExchangeError> {
        let (has, needs) = (self.catalog.state.read().catalog.level(), FormatLevel::QUEUES);
        if has < needs { Err(ExchangeError::Level { has, needs }) } else { Ok(()) }
    }
}

/// An exchange that clients publish to.
fn find(router: &Router, name: &str) -> Result<ExchangeId, RouteError> {
    let id = router.exchange(name).ok_or(RouteError::NoExchange)?;
    if router.settings(id).is_some_and(|settings| !is_published_to(settings)) {
        return Err(RouteError::Internal);
    }
    Ok(id)
}

/// Whether an exchange that is there is as one that is asked for.
pub(super) fn alike(name: &str, there: &ExchangeSpec, wanted: &ExchangeSpec) -> Result<(), ExchangeError> {
    let differs = there.difference(wanted);
    differs.map_or(Ok(()), |what| Err(ExchangeError::Differs { name: name.into(), what }))
}

fn namespace(caller: &Caller) -> String {
    caller.namespace().as_str().to_owned()
}

fn check_name(name: &str) -> Result<(), ExchangeError> {
    if name.is_empty() {
        return Err(ExchangeError::Default);
    }
    if name.len() > NAME_MAX || name.contains(char::is_control) {
        return Err(ExchangeError::InvalidName { most: NAME_MAX });
    }
    Ok(())
}
