//! Where a message goes: the exchanges it passes, and the targets that they lead to.

use rustc_hash::FxHashSet;
use thiserror::Error;

use crate::binding::Destination;
use crate::exchange::{Exchange, ExchangeId, MatchScratch, Varies};
use crate::publication::Publication;
use crate::route_set::RouteTarget;
use crate::router::Router;
use crate::words::KeyError;

/// Why a message cannot be routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ResolveError {
    /// There is no such exchange.
    #[error("there is no such exchange")]
    NoExchange,
    /// Its routing key is refused.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What routing needs and finds, kept so that the next message allocates nothing.
#[derive(Debug, Default)]
pub struct ResolveScratch {
    matching: MatchScratch,
    /// Destinations of the exchange at hand.
    found: Vec<u32>,
    pending: Vec<ExchangeId>,
    seen: FxHashSet<ExchangeId>,
    pub(crate) targets: Vec<RouteTarget>,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) varies: Varies,
}

/// What has to be as it was for a route to stay right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dependency {
    /// An exchange in this version.
    Exchange(ExchangeId, u64),
    /// A queue in this generation of its row.
    Queue(u32, u64),
}

impl Dependency {
    pub(crate) fn holds(self, router: &Router) -> bool {
        match self {
            Self::Exchange(id, version) => router.exchanges.get(&id).is_some_and(|x| x.version == version),
            Self::Queue(number, generation) => {
                router.destinations.get(number as usize).is_some_and(|row| row.generation == generation)
            }
        }
    }
}

impl ResolveScratch {
    /// The targets found last, rising, each once.
    pub fn targets(&self) -> &[RouteTarget] {
        &self.targets
    }

    fn begin(&mut self, exchange: ExchangeId) {
        self.targets.clear();
        self.dependencies.clear();
        self.pending.clear();
        self.seen.clear();
        self.varies = Varies::Never;
        self.visit(exchange);
    }

    /// Every exchange is passed once, so cycles end.
    fn visit(&mut self, exchange: ExchangeId) {
        if self.seen.insert(exchange) {
            self.pending.push(exchange);
        }
    }
}

impl Router {
    /// Finds the targets of a message; [`ResolveScratch::targets`] has them. None is no error.
    pub fn resolve(
        &self,
        exchange: ExchangeId,
        publication: &Publication<'_>,
        scratch: &mut ResolveScratch,
    ) -> Result<(), ResolveError> {
        if exchange != ExchangeId::DEFAULT && !self.exchanges.contains_key(&exchange) {
            return Err(ResolveError::NoExchange);
        }
        scratch.begin(exchange);
        while let Some(id) = scratch.pending.pop() {
            match self.exchanges.get(&id) {
                Some(exchange) => self.pass(id, exchange, publication, scratch)?,
                None => self.pass_default(publication, scratch),
            }
        }
        scratch.targets.sort_unstable();
        scratch.targets.dedup();
        Ok(())
    }

    fn pass(
        &self,
        id: ExchangeId,
        exchange: &Exchange,
        publication: &Publication<'_>,
        scratch: &mut ResolveScratch,
    ) -> Result<(), ResolveError> {
        scratch.varies = scratch.varies.max(exchange.varies());
        scratch.dependencies.push(Dependency::Exchange(id, exchange.version));
        scratch.found.clear();
        exchange.matches(publication, &mut scratch.matching, &mut scratch.found)?;
        if scratch.found.is_empty() {
            let alternate = exchange.settings.alternate.as_deref().and_then(|name| self.exchange(name));
            alternate.into_iter().for_each(|id| scratch.visit(id));
        }
        // In the order of their numbers they lie in the order of memory, and mostly in that of targets.
        scratch.found.sort_unstable();
        scratch.found.dedup();
        for at in 0..scratch.found.len() {
            match self.leads_to[scratch.found[at] as usize] {
                Some(Destination::Target(target)) => scratch.targets.push(target),
                Some(Destination::Exchange(id)) => scratch.visit(id),
                None => {}
            }
        }
        Ok(())
    }

    /// The default exchange routes to the queues that the routing keys name.
    fn pass_default(&self, publication: &Publication<'_>, scratch: &mut ResolveScratch) {
        scratch.varies = scratch.varies.max(Varies::ByKey);
        for key in publication.keys() {
            let Some(number) = self.queues.get(key).copied() else {
                // A queue that is not there has no generation that would tell when it is.
                scratch.varies = Varies::ByAttributes;
                scratch.targets.extend((publication.queues)(key));
                continue;
            };
            let row = &self.destinations[number as usize];
            scratch.dependencies.push(Dependency::Queue(number, row.generation));
            if let Some(Destination::Target(target)) = self.leads_to[number as usize] {
                scratch.targets.push(target);
            }
        }
    }
}
