//! Projections: state that follows from a shard's entries, and from nothing else.
//!
//! The journal is the truth; a projection is a deterministic function of its entries. So it is changed by `apply` alone, in entry order,
//! it reads no clock, no randomness and nothing of another shard, and a checkpoint with the entries behind it gives what all entries from
//! the first give. The broker keeps six of its own in each shard (the catalog, the partitions, the groups, the subscriptions, the timers, the exchanges); a front end that has state of
//! its own adds others ([`FrontendProjection`]), which its entries alone change. What only a leader does beside is [`Leading`].

use std::any::Any;

use bytes::Bytes;
use sabir_model::{DecodeError, FrontendNo, PartitionId, Sequence, stored};

use self::delivery::{SubscriptionNo, SubscriptionView};
use crate::caller::Caller;
pub use crate::shard::Leading;
pub(crate) use crate::state::FrontendAnswer;
pub use crate::state::{Delivered, DeliveryRefused, Effects, EntryId, NotSubscribed};
use crate::state::{ShardState, StoredMaps, prefixes};
use crate::stats::PartitionStats;
pub use sabir_journal::pages::{
    Budget, PageChange, PageDecodeError, PageError, PageKey, PageStore, PageValue, Paged,
};

/// What may be done to the messages of a queue, or of a subscription, and what is seen of them.
pub mod delivery {
    pub use sabir_delivery::subscription::{
        Attempts, AttemptsChange, HeldBy, Holding, MessageOwner, MessageState, OffsetRanges, Operation,
        RangesBuffer, Settlement, SubscriptionNo, Terms,
    };
    use sabir_model::PartitionId;

    pub use crate::entry::{SubscriptionSettings, SubscriptionStart};
    pub use crate::state::{SubscriptionCounts, SubscriptionView};

    /// The subscription that a queue has, by the queue's partition.
    pub fn of_queue(partition: PartitionId) -> SubscriptionNo {
        crate::state::subscription_of(partition)
    }
}

/// Reads a stored value that begins with its form, and is nothing but what `take` takes behind that.
///
/// # Errors
/// It is of a later form, cut, or longer.
pub fn decode_stored<T>(
    mut bytes: &[u8],
    form: u8,
    take: impl FnOnce(&mut &[u8]) -> Result<T, DecodeError>,
) -> Result<T, PageDecodeError> {
    let all = || {
        stored::take_form(&mut bytes, form)?;
        let taken = take(&mut bytes)?;
        stored::end(bytes)?;
        Ok(taken)
    };
    all().map_err(|error: DecodeError| PageDecodeError(error.to_string()))
}

/// Keys with their stored values: equal projections have equal dumps.
pub type Dump = Vec<(Vec<u8>, Vec<u8>)>;

/// What a checkpoint does with a map, whatever it holds. A [`Paged`] is one.
pub trait PageMap {
    /// Cuts: what is captured from now on is of this moment.
    fn begin_checkpoint(&mut self);

    /// Captures within the budget; true while more is due.
    fn capture(&mut self, budget: &mut Budget) -> bool;

    /// What was captured since the last call.
    fn take_captured(&mut self) -> Vec<PageChange>;

    /// The checkpoint is stored.
    fn checkpoint_committed(&mut self);

    /// The checkpoint is not stored, as far as is known.
    fn checkpoint_failed(&mut self);

    /// All that it holds, in the order of the keys.
    fn dump(&self) -> Dump;
}

impl<K: PageKey, V: PageValue> PageMap for Paged<K, V> {
    fn begin_checkpoint(&mut self) {
        Self::begin_checkpoint(self);
    }

    fn capture(&mut self, budget: &mut Budget) -> bool {
        Self::capture(self, budget)
    }

    fn take_captured(&mut self) -> Vec<PageChange> {
        Self::take_captured(self)
    }

    fn checkpoint_committed(&mut self) {
        Self::checkpoint_committed(self);
    }

    fn checkpoint_failed(&mut self) {
        Self::checkpoint_failed(self);
    }

    fn dump(&self) -> Dump {
        Self::dump(self)
    }
}

/// State that follows from a shard's entries. What a checkpoint, a start and the release of segments ask of it, whatever it holds.
pub trait Projection: Any + Send + Sync {
    /// All of its state, always in the same order: what follows from it need not be there.
    fn maps(&mut self) -> Vec<&mut dyn PageMap>;

    /// The lowest block whose bytes it needs: that one and all above it are kept. `None` if it needs none.
    fn lowest_block(&self) -> Option<Sequence> {
        None
    }

    /// The canonical form of everything that every replica and every replay agrees on; `pages` has what is not in memory.
    ///
    /// # Errors
    /// Those of the page store.
    fn dump(&mut self, _pages: &dyn PageStore) -> Result<Dump, PageError> {
        Ok(self.maps().iter().flat_map(|map| map.dump()).collect())
    }
}

/// State of a front end's own, in each shard that its entries go to.
///
/// Its entries are those that [`Broker::write`](crate::Broker::write) takes. Where the first of them is applied the projection is made;
/// before that a shard has none.
pub trait FrontendProjection: Projection {
    /// Applies an entry, and answers its writer. It is called under the lock of the shard's projections: it only computes.
    ///
    /// # Errors
    /// The command is none that this version can read; nothing may have changed then. The shard stops, and says so by name: what a client may
    /// get wrong is to be found before the entry is written, or said in the answer.
    fn apply(&mut self, command: &[u8], effects: &mut Effects<'_>) -> Result<Bytes, DecodeError>;

    /// A partition of the shard is deleted, whichever it was: what is kept about it is to go. It is told with the entry that deletes it, and once
    /// the projection is made.
    fn partition_gone(&mut self, _id: PartitionId) {}
}

/// Makes a front end's projection: of its maps, which are as the last checkpoint left them, or empty.
pub type MakeProjection = fn(&mut Maps<'_>) -> Result<Box<dyn FrontendProjection>, PageError>;

/// A projection that a front end has, and how it is made.
#[derive(Debug, Clone, Copy)]
pub struct ProjectionFactory {
    /// What the catalog numbers it by, for good: the front end's name, or one that begins with it and a dot.
    pub name: &'static str,
    /// Makes it.
    pub make: MakeProjection,
}

/// The longest name of a projection, in bytes.
pub(crate) const NAME_MAX: usize = 64;

/// The maps of one projection.
pub struct Maps<'a> {
    number: FrontendNo,
    stored: Option<&'a StoredMaps<'a>>,
    made: Vec<u8>,
}

impl<'a> Maps<'a> {
    pub(crate) fn new(number: FrontendNo, stored: Option<&'a StoredMaps<'a>>) -> Self {
        Self { number, stored, made: Vec::new() }
    }

    /// The map of that number: one that the last checkpoint does not have is empty. A number stays its map's for good, and the form of keys
    /// and values changes only by a version of its own.
    ///
    /// # Errors
    /// Its pages are damaged.
    ///
    /// # Panics
    /// If the number is given twice.
    pub fn map<K: PageKey, V: PageValue>(&mut self, number: u8) -> Result<Paged<K, V>, PageError> {
        assert!(!self.made.contains(&number), "map {number} of a projection is made twice");
        self.made.push(number);
        let prefix = prefixes::of_front_end(self.number, number);
        self.stored.map_or_else(|| Ok(Paged::new(&prefix)), |stored| stored.restore(&prefix))
    }

    pub(crate) fn made(mut self) -> Vec<u8> {
        self.made.sort_unstable();
        self.made
    }
}

/// The projections of a shard, and what it has of partitions, as one entry left them, for a caller.
pub struct View<'a> {
    pub(crate) state: &'a ShardState,
    pub(crate) caller: &'a Caller,
}

impl View<'_> {
    /// A projection of the caller's front end, by its number and type; `None` before the first of its entries.
    pub fn projection<P: FrontendProjection>(&self, number: FrontendNo) -> Option<&P> {
        let (name, projection) = self.state.front_ends.get(number)?;
        self.caller.may_use_projection(name).ok()?;
        let projection: &dyn Any = projection;
        projection.downcast_ref()
    }

    /// What a partition of the shard keeps; `None` if it has none of that id. Whether the client may see it the front end has judged, as of all
    /// that is seen of partitions here.
    pub fn partition(&self, id: PartitionId) -> Option<PartitionStats> {
        self.state.partition(id).map(PartitionStats::of)
    }

    /// The subscription of that name that a topic has in a partition.
    pub fn subscription(&self, partition: PartitionId, name: &str) -> Option<SubscriptionView<'_>> {
        let (number, _) = self.state.subscriptions.find(partition, name)?;
        self.messages(number)
    }

    /// All that a topic has in a partition, in no order that means anything.
    pub fn subscriptions(&self, partition: PartitionId) -> impl Iterator<Item = SubscriptionView<'_>> {
        self.state.subscriptions.views(partition)
    }

    /// The subscription of a number, a [queue's own](delivery::of_queue) too.
    pub fn messages(&self, of: SubscriptionNo) -> Option<SubscriptionView<'_>> {
        self.state.subscriptions.view(of)
    }
}
