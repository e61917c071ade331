//! A broker whose blocks commit when its test lets them, and may be cut before that, and one whose disks may hang; for the tests of
//! front ends.

mod disks;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use sabir_base::clock::Clock;
use sabir_journal::disk::Disk;
use sabir_journal::pages::PageStore;
use sabir_journal::testing::{LateOptions, LateReplicator};
use sabir_journal::{Journal, JournalError, Replicator};
use sabir_model::{GroupError, ShardId};

use crate::backend::{Backend, Folders};
use crate::directory::DirectoryIdentity;
pub use crate::panicking::panic_once;
use crate::shard::OpenError;
use crate::survey::Survey;
use crate::{Broker, BrokerOptions, StartError};
pub use disks::Disks;

/// How often what may commit is committed.
const TICK: Duration = Duration::from_millis(1);

/// The hand on a broker's commits.
#[derive(Debug, Clone)]
pub struct Commits(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    held: AtomicBool,
    /// By number.
    shards: Mutex<Vec<Arc<LateReplicator>>>,
}

impl Commits {
    /// Opens a broker on a data directory. Everything commits until it is [held](Self::hold).
    ///
    /// # Errors
    /// As [`Broker::open`].
    pub fn open(options: BrokerOptions, clock: Arc<dyn Clock>) -> Result<(Broker, Self), StartError> {
        let commits = Self(Arc::default());
        let running = Arc::downgrade(&commits.0);
        std::thread::spawn(move || {
            while let Some(shared) = running.upgrade() {
                if !shared.held.load(SeqCst) {
                    shared.shards.lock().iter().for_each(|late| late.commit_all());
                }
                drop(shared);
                std::thread::sleep(TICK);
            }
        });
        let folders = Folders::of(&options);
        let backend = Late { folders, shared: commits.0.clone() };
        let broker = Broker::open_on(options, clock, &backend, None)?;
        Ok((broker, commits))
    }

    /// From now on nothing commits.
    pub fn hold(&self) {
        self.0.held.store(true, SeqCst);
        // The thread may be at it; it holds the lock meanwhile.
        drop(self.0.shards.lock());
    }

    /// What was held commits, and all that follows.
    pub fn release(&self) {
        self.0.held.store(false, SeqCst);
    }

    /// Whether a shard has a block that is not committed.
    pub fn is_holding(&self, broker: &Broker, shard: ShardId) -> bool {
        broker.inner.shards[shard.0 as usize].in_flight() > 0
    }

    /// Cuts what a shard has not committed, as a change of leaders may. Blocking.
    ///
    /// # Panics
    /// If it cannot be cut.
    pub fn cut(&self, shard: ShardId) {
        let late = self.0.shards.lock()[shard.0 as usize].clone();
        late.cut(late.committed()).expect("a test's disk works");
    }
}

/// Has a broker's groups answer that they are not led, and why.
pub fn retire_groups(broker: &Broker, why: GroupError) {
    broker.inner.groups.retire(why);
}

struct Late {
    folders: Folders,
    shared: Arc<Shared>,
}

impl Backend for Late {
    fn survey(&self) -> Result<Survey, StartError> {
        self.folders.survey()
    }

    fn write_identity(&self, identity: DirectoryIdentity) -> Result<(), StartError> {
        self.folders.write_identity(identity)
    }

    fn disk(&self, shard: ShardId) -> Result<Arc<dyn Disk>, OpenError> {
        self.folders.disk(shard)
    }

    fn pages(&self, shard: ShardId) -> Result<Option<Arc<dyn PageStore>>, OpenError> {
        self.folders.pages(shard)
    }

    fn make_pages(&self, shard: ShardId) -> Result<Arc<dyn PageStore>, OpenError> {
        self.folders.make_pages(shard)
    }

    fn replicator(&self, _: ShardId, journal: Arc<Journal>) -> Result<Arc<dyn Replicator>, JournalError> {
        let late = LateReplicator::start(journal, LateOptions::default())?;
        self.shared.shards.lock().push(late.clone());
        Ok(late)
    }
}
