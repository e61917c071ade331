//! A broker on simulated disks, each of which may hang.

use std::sync::Arc;
use std::time::Duration;

use sabir_base::clock::Clock;
use sabir_journal::disk::Disk;
use sabir_journal::disk::sim::{Op, SimDisk};
use sabir_journal::pages::{MemPages, PageStore};
use sabir_journal::{Journal, JournalError, Replicator, Solo};
use sabir_model::ShardId;

use crate::backend::Backend;
use crate::shard::OpenError;
use crate::survey::Survey;
use crate::{Broker, BrokerOptions, StartError};

/// Bytes that a disk has.
const CAPACITY: u64 = 1 << 30;

/// The disks under a broker, by shard.
#[derive(Debug, Clone)]
pub struct Disks(Vec<Arc<SimDisk>>);

impl Disks {
    /// Opens a broker on new disks.
    ///
    /// # Errors
    /// As [`Broker::open`].
    pub fn open(options: BrokerOptions, clock: Arc<dyn Clock>) -> Result<(Broker, Self), StartError> {
        let disk = |shard: u32| {
            let disk = SimDisk::new(shard.into());
            disk.set_auto(true);
            disk.set_capacity(CAPACITY);
            disk
        };
        let disks = Self((0..=options.data_shards).map(disk).collect());
        let broker = Broker::open_on(options, clock, &disks, None)?;
        Ok((broker, disks))
    }

    /// A shard's disk has no space but for so many bytes.
    pub fn set_capacity(&self, shard: ShardId, bytes: u64) {
        self.0[shard.0 as usize].set_capacity(bytes);
    }

    /// All disks have space again.
    pub fn end_limits(&self) {
        self.0.iter().for_each(|disk| disk.set_capacity(CAPACITY));
    }

    /// What is written to a shard's disk completes no more.
    pub fn hang(&self, shard: ShardId) {
        let disk = &self.0[shard.0 as usize];
        disk.stall(Op::Write);
        disk.stall(Op::Sync);
    }

    /// Each read of a shard's disk takes so long from now on.
    pub fn slow_reads(&self, shard: ShardId, each: Duration) {
        self.0[shard.0 as usize].slow_reads(each);
    }

    /// All disks go on.
    pub fn resume(&self) {
        self.0.iter().for_each(|disk| disk.resume());
    }
}

impl Backend for Disks {
    fn survey(&self) -> Result<Survey, StartError> {
        let mut survey = Survey::default();
        survey.found.extend((0..self.0.len() as u32).map(|shard| (ShardId(shard), None)));
        Ok(survey)
    }

    fn disk(&self, shard: ShardId) -> Result<Arc<dyn Disk>, OpenError> {
        Ok(self.0[shard.0 as usize].clone())
    }

    fn pages(&self, _: ShardId) -> Result<Option<Arc<dyn PageStore>>, OpenError> {
        Ok(None)
    }

    fn make_pages(&self, _: ShardId) -> Result<Arc<dyn PageStore>, OpenError> {
        Ok(MemPages::new())
    }

    fn replicator(&self, _: ShardId, journal: Arc<Journal>) -> Result<Arc<dyn Replicator>, JournalError> {
        Ok(Solo::start(journal)?)
    }
}
