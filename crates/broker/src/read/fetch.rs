//! A read from its plan to its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sabir_model::{Offset, PartitionId, ReadError};

use super::assemble::{Assembly, Next};
use super::plan::{Piece, Plan, Step};
use super::types::Fetched;
use crate::partition::{Runs, SpillKey};
use crate::shard::Shard;

/// How often a plan may ask for a page; each gets it on, unless retention takes the page away while it is looked up.
const LOADS: usize = 64;
/// Runs of one answer from memory after which an I/O thread's other tasks come first.
const LONG: usize = 512;

/// How long a read gets more from its disk, once it has something.
pub const READ_FOR: Duration = Duration::from_secs(1);

/// What is said for a read whose thread did not come to its end.
pub(super) fn not_done(error: tokio::task::JoinError) -> ReadError {
    if error.is_panic() { ReadError::Storage } else { ReadError::ShuttingDown }
}

/// What is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadSpec {
    pub(crate) partition: PartitionId,
    pub(crate) from: Offset,
    pub(crate) max_bytes: usize,
    pub(crate) min_one: bool,
    /// From then on it is answered with what it has, if that is anything.
    pub(crate) until: Instant,
}

impl Shard {
    /// Reads whole batches from the one that holds `from` on.
    pub(crate) async fn read(self: &Arc<Self>, spec: ReadSpec) -> Result<Fetched, ReadError> {
        let plan = self.plan_with_pages(&spec).await?;
        let mut fetched = Fetched {
            high_watermark: plan.high_watermark,
            last_stable: plan.high_watermark,
            log_start: plan.log_start,
            slices: Vec::new(),
        };
        if plan.pieces.is_empty() {
            return Ok(fetched);
        }
        let mut assembly = Assembly::new(spec.partition, spec.from, spec.max_bytes, spec.min_one);
        let rest = self.assemble_hot(&mut assembly, spec.partition, &plan.pieces)?;
        self.read_ahead();
        if plan.pieces.len() >= LONG {
            tokio::task::yield_now().await;
        }
        let Some(rest) = rest else {
            fetched.slices = assembly.finish();
            return Ok(fetched);
        };
        let shard = self.clone();
        let rest: Vec<Piece> = plan.pieces[rest..].to_vec();
        let cold = move || shard.assemble(assembly, &spec, &rest);
        let assembly = tokio::task::spawn_blocking(cold).await.map_err(not_done)??;
        fetched.slices = assembly.finish();
        Ok(fetched)
    }

    /// The same on a thread of its own. Blocking.
    pub(crate) fn read_blocking(&self, spec: &ReadSpec) -> Result<Fetched, ReadError> {
        let plan = self.plan_blocking(spec.partition, Plan::new(spec.from, spec.max_bytes))?;
        let assembly = Assembly::new(spec.partition, spec.from, spec.max_bytes, spec.min_one);
        let slices = self.assemble(assembly, spec, &plan.pieces)?.finish();
        let (high_watermark, log_start) = (plan.high_watermark, plan.log_start);
        Ok(Fetched { high_watermark, last_stable: high_watermark, log_start, slices })
    }

    /// Plans a read, and waits for pages. What is planned is answered, however much more was asked for.
    pub(super) fn plan_blocking(&self, partition: PartitionId, mut plan: Plan) -> Result<Plan, ReadError> {
        let mut loaded = None;
        for _ in 0..LOADS {
            match self.plan(partition, &mut plan, loaded.as_deref())? {
                Step::Ready => return Ok(plan),
                Step::NeedsPage(key) => match self.load_page(&key) {
                    Ok(runs) => loaded = runs,
                    // The read that begins with it says so.
                    Err(_) if !plan.pieces.is_empty() => return Ok(plan),
                    Err(error) => return Err(error),
                },
            }
        }
        if plan.pieces.is_empty() { Err(ReadError::Storage) } else { Ok(plan) }
    }

    /// Plans a read. What is planned is answered, however much more was asked for.
    async fn plan_with_pages(self: &Arc<Self>, spec: &ReadSpec) -> Result<Plan, ReadError> {
        let wants_none = spec.max_bytes == 0 && !spec.min_one;
        let mut plan =
            if wants_none { Plan::of_none(spec.from) } else { Plan::new(spec.from, spec.max_bytes) };
        let mut loaded = None;
        for _ in 0..LOADS {
            match self.plan(spec.partition, &mut plan, loaded.as_deref())? {
                Step::Ready => return Ok(plan),
                Step::NeedsPage(_) if !plan.pieces.is_empty() && Instant::now() >= spec.until => {
                    return Ok(plan);
                }
                Step::NeedsPage(key) => match self.load_in_background(key).await {
                    Ok(runs) => loaded = runs,
                    // The read that begins with it says so.
                    Err(_) if !plan.pieces.is_empty() => return Ok(plan),
                    Err(error) => return Err(error),
                },
            }
        }
        if plan.pieces.is_empty() { Err(ReadError::Storage) } else { Ok(plan) }
    }

    async fn load_in_background(self: &Arc<Self>, key: SpillKey) -> Result<Option<Arc<Runs>>, ReadError> {
        let shard = self.clone();
        let load = move || shard.load_page(&key);
        tokio::task::spawn_blocking(load).await.map_err(not_done)?
    }

    /// Adds runs for as long as they are in memory; gives the first that is not, if one more is wanted.
    fn assemble_hot(
        &self,
        assembly: &mut Assembly,
        partition: PartitionId,
        pieces: &[Piece],
    ) -> Result<Option<usize>, ReadError> {
        for (at, piece) in pieces.iter().enumerate() {
            if piece.is_fragmented() && !assembly.takes(piece.run.len as usize) {
                return Ok(None);
            }
            let got = match self.in_memory(piece) {
                Ok(Some(got)) => got,
                // What is corrupt here may be whole on the disk.
                Ok(None) | Err(ReadError::Corrupt) => return Ok(Some(at)),
                // The read that begins with it says so.
                Err(_) if !assembly.is_empty() => return Ok(None),
                Err(error) => return Err(self.damaged(partition, piece.run.base, error)),
            };
            match assembly.add(piece, &got) {
                Ok(Next::More) => {}
                Ok(Next::Enough) => return Ok(None),
                Err(_) => return Ok(Some(at)),
            }
        }
        Ok(None)
    }

    /// Adds runs wherever they are, as long as there is time. What is corrupt is an error only for the read that begins with it. Blocking.
    fn assemble(
        &self,
        mut assembly: Assembly,
        spec: &ReadSpec,
        pieces: &[Piece],
    ) -> Result<Assembly, ReadError> {
        let partition = spec.partition;
        for piece in pieces {
            if !assembly.is_empty() && Instant::now() >= spec.until {
                break;
            }
            if piece.is_fragmented() && !assembly.takes(piece.run.len as usize) {
                break;
            }
            match self.with_bytes(partition, piece, |got| assembly.add(piece, got)) {
                Ok(Next::More) => {}
                Ok(Next::Enough) => break,
                Err(error) => {
                    let error = self.damaged(partition, assembly.next_from(piece.run.base), error);
                    return if assembly.is_empty() { Err(error) } else { Ok(assembly) };
                }
            }
        }
        Ok(assembly)
    }
}
