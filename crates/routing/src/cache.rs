//! The routes of late, by exchange and routing key.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use crate::exchange::{ExchangeId, Varies};
use crate::publication::Publication;
use crate::resolve::{Dependency, ResolveError, ResolveScratch};
use crate::route_set::{RouteSet, RouteSets};
use crate::router::Router;

/// Longer routing keys are routed each time.
const LONGEST_KEY: usize = 1_024;

/// Routes that pass more exchanges are found each time.
const MOST_DEPENDENCIES: usize = 16;

/// Places that a cache begins with.
const FIRST_PLACES: usize = 16;

/// Misses between two looks for room when sets have none.
const PATIENCE: u32 = 1_024;

/// The routes of late through one router, by exchange and routing key: one a session or a thread, so that a publish takes no lock for
/// what was routed before. An entry says what it depends on, and counts only while that is as it was.
#[derive(Debug)]
pub struct RouteCache {
    hasher: RandomState,
    /// Pairs of places; made with the first entry, and doubled where a route would have to go.
    places: Vec<Option<CachedRoute>>,
    /// The most places.
    capacity: usize,
    scratch: ResolveScratch,
    without_room: u32,
}

#[derive(Debug)]
struct CachedRoute {
    exchange: ExchangeId,
    /// None if every key goes this way.
    key: Option<Box<[u8]>>,
    dependencies: Box<[Dependency]>,
    set: Arc<RouteSet>,
}

impl CachedRoute {
    fn is_of(&self, exchange: ExchangeId, key: Option<&[u8]>) -> bool {
        self.exchange == exchange && self.key.as_deref() == key
    }
}

impl RouteCache {
    /// Holds at most `entries` routes (the next power of two), and takes memory for those that there are.
    pub fn new(entries: usize) -> Self {
        let capacity = entries.max(2).next_power_of_two();
        let hasher = RandomState::new();
        Self { hasher, places: Vec::new(), capacity, scratch: ResolveScratch::default(), without_room: 0 }
    }

    /// The route of a message, if it is known. It says nothing of an exchange that is not there.
    pub fn find(
        &self,
        router: &Router,
        exchange: ExchangeId,
        publication: &Publication<'_>,
    ) -> Option<&Arc<RouteSet>> {
        if self.places.is_empty() || !publication.further_keys.is_empty() {
            return None;
        }
        let any = || router.ignores_keys(exchange).then(|| self.entry(router, exchange, None)).flatten();
        let keyed = || self.entry(router, exchange, Some(publication.key));
        any().or_else(keyed).map(|entry| &entry.set)
    }

    fn entry(&self, router: &Router, exchange: ExchangeId, key: Option<&[u8]>) -> Option<&CachedRoute> {
        let place = self.place(exchange, key);
        let found = [place, place ^ 1].into_iter().find_map(|place| {
            let entry = self.places[place].as_ref();
            entry.filter(|entry| entry.is_of(exchange, key))
        })?;
        found.dependencies.iter().all(|dependency| dependency.holds(router)).then_some(found)
    }

    fn place(&self, exchange: ExchangeId, key: Option<&[u8]>) -> usize {
        self.hasher.hash_one((exchange, key)) as usize & (self.places.len() - 1)
    }

    /// The route of a message, known or not.
    pub fn route(
        &mut self,
        router: &Router,
        sets: &mut RouteSets,
        exchange: ExchangeId,
        publication: &Publication<'_>,
    ) -> Result<Arc<RouteSet>, ResolveError> {
        if let Some(set) = self.find(router, exchange, publication) {
            return Ok(set.clone());
        }
        router.resolve(exchange, publication, &mut self.scratch)?;
        let set = sets.intern(&self.scratch.targets);
        if sets.get(set.id()).is_none() {
            self.make_room(sets);
        } else {
            self.keep(exchange, publication, &set);
        }
        Ok(set)
    }

    /// Lets go of all routes.
    pub fn clear(&mut self) {
        self.places.clear();
    }

    /// Old routes hold sets that would else be dropped.
    fn make_room(&mut self, sets: &mut RouteSets) {
        if self.without_room.is_multiple_of(PATIENCE) {
            self.clear();
            sets.collect();
        }
        self.without_room = self.without_room.wrapping_add(1);
    }

    fn keep(&mut self, exchange: ExchangeId, publication: &Publication<'_>, set: &Arc<RouteSet>) {
        let ResolveScratch { dependencies, varies, .. } = &self.scratch;
        let key = match varies {
            Varies::Never => None,
            Varies::ByKey if publication.key.len() <= LONGEST_KEY => Some(publication.key),
            Varies::ByKey | Varies::ByAttributes => return,
        };
        if !publication.further_keys.is_empty() || dependencies.len() > MOST_DEPENDENCIES {
            return;
        }
        let dependencies = dependencies.as_slice().into();
        let entry = CachedRoute { exchange, key: key.map(Box::from), dependencies, set: set.clone() };
        self.insert(entry);
    }

    /// Puts an entry among the others; there are more places before one of them has to go, if there may be.
    fn insert(&mut self, entry: CachedRoute) {
        if self.places.is_empty() {
            self.places.resize_with(FIRST_PLACES.min(self.capacity), || None);
        }
        while self.places.len() < self.capacity && self.displaces(&entry) {
            self.grow();
        }
        self.put(entry);
    }

    /// Whether both its places are others'.
    fn displaces(&self, entry: &CachedRoute) -> bool {
        let first = self.place(entry.exchange, entry.key.as_deref());
        let others = |place: usize| {
            let held = self.places[place].as_ref();
            held.is_some_and(|held| !held.is_of(entry.exchange, entry.key.as_deref()))
        };
        others(first) && others(first ^ 1)
    }

    fn grow(&mut self) {
        let double = 2 * self.places.len();
        let entries = std::mem::take(&mut self.places);
        self.places.resize_with(double, || None);
        entries.into_iter().flatten().for_each(|entry| self.put(entry));
    }

    /// Puts an entry in the place of its own former self, or else in its first place, whose holder goes to the second.
    fn put(&mut self, entry: CachedRoute) {
        let first = self.place(entry.exchange, entry.key.as_deref());
        let before = self.places[first].replace(entry);
        let same = |one: &CachedRoute, other: &CachedRoute| one.is_of(other.exchange, other.key.as_deref());
        let new = self.places[first].as_ref().expect("the entry was put here");
        if before.as_ref().is_some_and(|before| !same(before, new)) {
            self.places[first ^ 1] = before;
        } else if self.places[first ^ 1].as_ref().is_some_and(|other| same(other, new)) {
            self.places[first ^ 1] = None;
        }
    }
}

impl Router {
    /// Whether an exchange itself does not look at routing keys; those it leads to may.
    fn ignores_keys(&self, exchange: ExchangeId) -> bool {
        self.exchanges.get(&exchange).is_some_and(|exchange| exchange.varies() == Varies::Never)
    }
}
