//! The groups of all shards: those of a namespace are in its home.

use std::sync::{Arc, Weak};

use sabir_base::clock::Clock;
use sabir_model::{GroupError, Namespace, ShardId, TopicId};

use super::{GroupId, GroupListing, GroupOptions, GroupScope, GroupShard, Groups};

/// A driver for each data shard, by number. Together they keep to the bounds.
#[derive(Clone)]
pub(crate) struct GroupDrivers(Arc<Vec<Groups>>);

impl GroupDrivers {
    pub(crate) fn new(
        shards: Vec<Arc<dyn GroupShard>>,
        options: &GroupOptions,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let totals = Arc::default();
        let underway = Arc::default();
        let drivers = |homes: &Weak<Vec<Groups>>| {
            let driver = |at| {
                let (options, clock) = (options.clone(), clock.clone());
                Groups::among(&shards, at, options, clock, homes.clone(), &totals, &underway)
            };
            (0..shards.len()).map(driver).collect()
        };
        Self(Arc::new_cyclic(drivers))
    }

    /// One for each data shard.
    pub(crate) fn each(&self) -> &[Groups] {
        &self.0
    }

    /// The groups of callers.
    pub(crate) fn of(&self, scope: GroupScope) -> Groups {
        self.at(&scope.namespace).within(scope)
    }

    fn at(&self, namespace: &Namespace) -> &Groups {
        let home = namespace.home(self.0.len() as u32);
        // A home is one of so many data shards, which are numbered from 1 on.
        &self.0[home.0 as usize - 1]
    }

    /// The groups of the callers that this one is of.
    pub(crate) fn with(&self, group: &GroupId) -> Groups {
        self.of(group.into())
    }

    /// The groups of all callers, by id.
    pub(crate) fn list(&self) -> Vec<GroupListing> {
        let mut all: Vec<_> = self.0.iter().flat_map(Groups::list_all).collect();
        all.sort_unstable_by(|a, b| a.group.cmp(&b.group));
        all
    }

    /// About how many groups there are.
    pub(crate) fn count(&self) -> usize {
        self.0.iter().map(Groups::count).sum()
    }

    /// Whether a shard has groups, or is where most of them come.
    pub(crate) fn are_in(&self, shard: ShardId) -> bool {
        let driver = (shard.0 as usize).checked_sub(1).and_then(|at| self.0.get(at));
        driver.is_some_and(|driver| shard == Namespace::DEFAULT.home(1) || driver.count() > 0)
    }

    pub(crate) fn tick(&self) {
        self.0.iter().for_each(Groups::tick);
    }

    pub(crate) fn housekeep(&self, exists: &dyn Fn(TopicId) -> bool) {
        self.0.iter().for_each(|driver| driver.housekeep(exists));
    }

    pub(crate) fn retire(&self, error: GroupError) {
        self.0.iter().for_each(|driver| driver.retire(error));
    }
}
