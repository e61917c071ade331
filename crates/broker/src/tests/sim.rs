//! A broker on simulated disks, that can lose its power.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sabir_base::clock::ManualClock;
use sabir_journal::disk::Disk;
use sabir_journal::disk::sim::SimDisk;
use sabir_journal::pages::{MemPages, PageStore};
use sabir_journal::testing::{LateOptions, LateReplicator};
use sabir_journal::{Journal, JournalError, Replayed, Replicator, Solo, look_at};
use sabir_model::{Sequence, ShardId};

use super::rig::{soon, until};
use crate::backend::Backend;
use crate::projection::ProjectionFactory;
use crate::shard::OpenError;
use crate::state::ShardState;
use crate::survey::Survey;
use crate::{Broker, BrokerOptions, StartError};

/// Which replicator the shards have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seam {
    /// What the disk has is committed.
    Solo,
    /// Blocks commit some time after the disk has them, by themselves.
    Late,
    /// Blocks commit when the test says so.
    Told,
}

/// The simulated machine: disks and page stores that outlive the broker.
pub(super) struct Machine {
    pub(super) seam: Seam,
    pub(super) clock: Arc<ManualClock>,
    pub(super) disks: Vec<Arc<SimDisk>>,
    pub(super) pages: Vec<Arc<MemPages>>,
    /// Of the run under way.
    pub(super) late: Mutex<Vec<Arc<LateReplicator>>>,
    /// Whether dead segments are used again; not if a replay from zero is to follow.
    pub(super) recycle: bool,
    /// Those of front ends.
    pub(super) projections: Vec<ProjectionFactory>,
    pub(super) seed: u64,
}

impl Machine {
    /// A new machine with room for the catalog and `shards` data shards.
    pub(super) fn new(seed: u64, shards: usize, seam: Seam) -> Self {
        let disk = |shard: usize| {
            let disk = SimDisk::new(seed.wrapping_mul(31).wrapping_add(shard as u64));
            disk.set_auto(true);
            disk.set_capacity(1 << 30);
            disk
        };
        Self {
            seam,
            clock: Arc::new(ManualClock::at(1_000_000)),
            disks: (0..=shards).map(disk).collect(),
            pages: (0..=shards).map(|_| MemPages::new()).collect(),
            late: Mutex::default(),
            recycle: true,
            projections: Vec::new(),
            seed,
        }
    }

    pub(super) fn options(&self) -> BrokerOptions {
        BrokerOptions {
            data_shards: self.disks.len() as u32 - 1,
            segment_bytes: 2 << 20,
            keep_free: 0,
            tail_cache_bytes: 4 << 20,
            recycle: self.recycle,
            projections: self.projections.clone(),
            ..BrokerOptions::new("simulated")
        }
    }

    pub(super) fn try_open(&self, options: BrokerOptions) -> Result<Broker, StartError> {
        self.late.lock().clear();
        self.wait_for_the_last_run();
        self.freely(|| Broker::open_on(options, self.clock.clone(), self, None))
    }

    /// A thread of the last run that drives its shard once more would take completions that are for this one.
    fn wait_for_the_last_run(&self) {
        let began = Instant::now();
        while self.disks.iter().any(|disk| Arc::strong_count(disk) > 1) {
            assert!(began.elapsed() < Duration::from_secs(30), "somebody holds on to the last run");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Does something during which everything commits.
    pub(super) fn freely<T>(&self, work: impl FnOnce() -> T) -> T {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    self.commit_all();
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let value = work();
            done.store(true, SeqCst);
            value
        })
    }

    /// Lets everything of the run under way commit until the value is dropped.
    pub(super) fn commit_always(&self) -> Committing {
        let (lates, ends) = (self.late.lock().clone(), Arc::new(AtomicBool::new(false)));
        let ended = ends.clone();
        std::thread::spawn(move || {
            while !ended.load(SeqCst) {
                lates.iter().for_each(|late| late.commit_all());
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Committing(ends)
    }

    /// Lets everything commit until something is done.
    pub(super) async fn committing<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(soon(work));
        loop {
            self.commit_all();
            if let Ok(done) = tokio::time::timeout(Duration::from_millis(2), &mut work).await {
                return done;
            }
        }
    }

    /// Lets everything commit until a broker has nothing under way.
    pub(super) async fn settle(&self, broker: &Broker) {
        until(|| {
            self.commit_all();
            broker.inner.shards.iter().all(|shard| shard.is_idle())
        })
        .await;
    }

    pub(super) fn open(&self) -> Broker {
        self.try_open(self.options()).unwrap()
    }

    /// Cuts the power under a broker and gives the machine as it is found afterwards.
    pub(super) fn crash(self, broker: Broker) -> Self {
        // The page stores first: a checkpoint is committed only when the journal is flushed that far.
        let pages = self.pages.iter().map(|pages| pages.crash()).collect();
        let disks = self.disks.iter().map(|disk| disk.crash()).collect();
        broker.inner.housekeeper.end();
        drop(broker);
        Self { disks, pages, late: Mutex::default(), seed: self.seed + 1, ..self }
    }

    /// The projections of every shard are those of a replay from zero.
    pub(super) fn agrees_with_replay(&self, broker: &Broker) {
        for (shard, pages) in broker.inner.shards.iter().zip(&self.pages) {
            let mut state = shard.state.write();
            let applied = state.applied;
            let mut zero = ShardState::new(state.front_ends.known());
            let locate = |block| shard.journal.segment_of(block);
            let mut apply = |block: Replayed| {
                if block.sequence <= applied {
                    zero.apply_block(block.sequence, block.term, &block.content, &locate, &mut |_, _, _| {})
                        .unwrap();
                }
                Ok::<(), JournalError>(())
            };
            shard.journal.replay(Sequence::NONE, &mut apply).unwrap();
            assert_eq!(zero.applied, applied);
            let expected = zero.dump(&*MemPages::new()).unwrap();
            assert_eq!(state.dump(&**pages).unwrap(), expected, "shard {}", shard.id);
        }
    }

    /// Lets everything commit that waits for being told.
    pub(super) fn commit_all(&self) {
        self.late.lock().iter().for_each(|late| late.commit_all());
    }
}

/// Lets everything commit.
pub(super) struct Committing(Arc<AtomicBool>);

impl Drop for Committing {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

impl Backend for Machine {
    fn survey(&self) -> Result<Survey, StartError> {
        let mut survey = Survey::default();
        for (number, disk) in (0..).zip(&self.disks) {
            let found = look_at(&(disk.clone() as Arc<dyn Disk>));
            let found = found.map_err(|error| StartError::Shard { shard: number, reason: error.into() })?;
            survey.found.insert(ShardId(number), found);
        }
        Ok(survey)
    }

    fn disk(&self, shard: ShardId) -> Result<Arc<dyn Disk>, OpenError> {
        Ok(self.disks[shard.0 as usize].clone())
    }

    fn pages(&self, shard: ShardId) -> Result<Option<Arc<dyn PageStore>>, OpenError> {
        Ok(Some(self.pages[shard.0 as usize].clone()))
    }

    fn make_pages(&self, shard: ShardId) -> Result<Arc<dyn PageStore>, OpenError> {
        Ok(self.pages[shard.0 as usize].clone())
    }

    fn replicator(&self, shard: ShardId, journal: Arc<Journal>) -> Result<Arc<dyn Replicator>, JournalError> {
        if self.seam == Seam::Solo {
            return Ok(Solo::start(journal)?);
        }
        let options = LateOptions {
            seed: self.seed + u64::from(shard.0),
            auto: self.seam == Seam::Late,
            cut_per_mille: if self.seam == Seam::Late { 30 } else { 0 },
            ..LateOptions::default()
        };
        let late = LateReplicator::start(journal, options)?;
        self.late.lock().push(late.clone());
        Ok(late)
    }
}
