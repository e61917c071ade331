//! Where a message goes: to which topics, and by which publishes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use rustc_hash::FxHashMap;
use sabir_model::{ErrorAbout, FrontendNo, Namespace, ShardFailure, TopicId};
use sabir_routing::{KeyError, ResolveError, RouteCache, RouteSet, RouteSetId, RouteTarget};

use super::routers::NamespaceRouter;
use crate::append::{AppendAcks, AppendRefusal, AppendTarget};
use crate::caller::Caller;
use crate::catalog::{CatalogView, Topic};
use crate::publish::{PublishRefused, PublishTargets};

/// Why a message cannot be routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// There is no such exchange in the caller's namespace.
    #[error("there is no such exchange")]
    NoExchange,
    /// The exchange gets messages from other exchanges alone.
    #[error("nothing is published to an internal exchange")]
    Internal,
    /// The routing key is refused.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What the catalog's shard knows is not to be believed.
    #[error(transparent)]
    Shard(#[from] ShardFailure),
}

impl From<ResolveError> for RouteError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::NoExchange => Self::NoExchange,
            ResolveError::Key(error) => Self::Key(error),
        }
    }
}

/// Routes that a session's scratch remembers.
const REMEMBERED: usize = 256;

/// What routing needs and remembers, so that the next message of the kind takes no allocation and no lock that others hold long: one for a
/// session, or a larger one for a thread. It is of one broker.
#[derive(Debug)]
pub struct RouteScratch {
    /// The namespace that was asked for last.
    pub(super) router: Option<(Namespace, Arc<NamespaceRouter>)>,
    pub(super) cache: RouteCache,
    routes: FxHashMap<RouteKey, Arc<Route>>,
    most: usize,
    /// Whether a route was looked for among the bindings.
    pub(super) resolved: bool,
}

impl Default for RouteScratch {
    /// One that suits a session.
    fn default() -> Self {
        Self::new(REMEMBERED)
    }
}

/// By what a route is found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum RouteKey {
    Set(RouteSetId),
    Topic(TopicId),
}

impl RouteScratch {
    /// One that remembers at most so many routes, by exchange and routing key, and as many sets of targets. It takes memory for those that
    /// there are.
    pub fn new(routes: usize) -> Self {
        Self {
            router: None,
            cache: RouteCache::new(routes),
            routes: FxHashMap::default(),
            most: routes,
            resolved: false,
        }
    }

    /// Whether a route had to be looked for among the bindings since this was asked last, which may take long.
    pub fn take_resolved(&mut self) -> bool {
        std::mem::take(&mut self.resolved)
    }

    /// The route to a set's targets, as the topics are now.
    pub(super) fn of_set(&mut self, set: &RouteSet, view: &CatalogView) -> Arc<Route> {
        self.keep(RouteKey::Set(set.id()), view, set.targets())
    }

    /// The route to one topic, or to none.
    pub(super) fn of_topic(&mut self, topic: Option<TopicId>, view: &CatalogView) -> Arc<Route> {
        match topic {
            Some(id) => self.keep(RouteKey::Topic(id), view, &[RouteTarget::Topic(id)]),
            None => Arc::new(Route::new(&[], view)),
        }
    }

    fn keep(&mut self, key: RouteKey, view: &CatalogView, targets: &[RouteTarget]) -> Arc<Route> {
        if let Some(route) = self.routes.get(&key).filter(|route| route.holds(view)) {
            return route.clone();
        }
        if self.routes.len() >= self.most {
            self.routes.clear();
        }
        let route = Arc::new(Route::new(targets, view));
        self.routes.insert(key, route.clone());
        route
    }
}

/// Where a message goes. Messages with one route (the same `Arc`) go to the same targets, so that one batch takes them.
#[derive(Debug, Default)]
pub struct Route {
    /// Those that take messages.
    topics: Box<[Arc<Topic>]>,
    /// Whether targets were not shown yet, or no longer.
    lacks: bool,
    /// The view in which it was found to hold last.
    edition: AtomicU64,
    /// Where every topic has one partition: by which publishes, and for the batches of which front end.
    fixed: OnceLock<(FrontendNo, Arc<RoutedTargets>)>,
}

/// By which publishes a message goes to all targets of its route.
#[derive(Debug, Clone, Default)]
pub struct RoutedTargets {
    /// One, or several where targets keep batches in different codecs.
    pub publishes: Vec<PublishTargets>,
    /// Topics that take nothing from such a caller, each with the reason.
    pub refused: Vec<(Arc<Topic>, AppendRefusal)>,
}

impl Route {
    fn new(targets: &[RouteTarget], view: &CatalogView) -> Self {
        let shown = |target: &RouteTarget| match target {
            RouteTarget::Topic(id) => view.topic_by_id(*id).cloned(),
            RouteTarget::Partition { .. } | RouteTarget::Session(_) => None,
        };
        let topics: Box<[Arc<Topic>]> = targets.iter().filter_map(shown).collect();
        let lacks = topics.len() < targets.len();
        Self { topics, lacks, edition: AtomicU64::new(view.edition()), fixed: OnceLock::new() }
    }

    /// Whether its topics are what the catalog shows.
    fn holds(&self, view: &CatalogView) -> bool {
        if self.edition.load(Relaxed) == view.edition() {
            return true;
        }
        let is_shown =
            |topic: &Arc<Topic>| view.topic_by_id(topic.id).is_some_and(|shown| Arc::ptr_eq(shown, topic));
        let holds = !self.lacks && self.topics.iter().all(is_shown);
        if holds {
            self.edition.store(view.edition(), Relaxed);
        }
        holds
    }

    /// The queues and other topics that take the message.
    pub fn topics(&self) -> &[Arc<Topic>] {
        &self.topics
    }

    /// Whether it goes nowhere.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// By which publishes the caller's message goes there, in batches that the front end `origin` builds. `hash` chooses the partition of
    /// topics that have several; where none has, it is made once for all messages of the route.
    ///
    /// # Errors
    /// The targets do not fit together.
    pub fn targets(
        &self,
        caller: &Caller,
        origin: FrontendNo,
        hash: u32,
    ) -> Result<Arc<RoutedTargets>, ErrorAbout<PublishRefused>> {
        match self.fixed.get() {
            Some((of, fixed)) if *of == origin => return Ok(fixed.clone()),
            _ => {}
        }
        let targets = Arc::new(self.make_targets(caller, origin, hash)?);
        if self.topics.iter().all(|topic| topic.partitions.len() == 1) {
            // A thread that was quicker made the same, or one for another front end.
            let _ = self.fixed.set((origin, targets.clone()));
        }
        Ok(targets)
    }

    fn make_targets(
        &self,
        caller: &Caller,
        origin: FrontendNo,
        hash: u32,
    ) -> Result<RoutedTargets, ErrorAbout<PublishRefused>> {
        let (mut targets, mut refused) = (Vec::new(), Vec::new());
        for topic in &self.topics {
            let index = (hash as usize % topic.partitions.len().max(1)) as i32;
            match AppendTarget::new(caller, topic, index, AppendAcks::InSync, origin) {
                Ok(target) => targets.push(target),
                Err(why) => refused.push((topic.clone(), why.error)),
            }
        }
        Ok(RoutedTargets { publishes: by_codec(targets)?, refused })
    }
}

/// Parts targets whose batches are not the same bytes.
pub(crate) fn by_codec(
    mut left: Vec<AppendTarget>,
) -> Result<Vec<PublishTargets>, ErrorAbout<PublishRefused>> {
    let mut all = Vec::new();
    while !left.is_empty() {
        let mut others = Vec::new();
        let targets = loop {
            match PublishTargets::new(left.clone()) {
                Ok(targets) => break targets,
                Err(ErrorAbout { error: PublishRefused::OtherCodec(other), .. }) if other > 0 => {
                    others.push(left.remove(other));
                }
                Err(error) => return Err(error),
            }
        };
        all.push(targets);
        left = others;
    }
    Ok(all)
}
