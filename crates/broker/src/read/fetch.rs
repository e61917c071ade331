//! A read from its plan to its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sabir_model::{Offset, PartitionId, ReadError};

use super::assemble::{Assembly, Next};
use super::memory::{ReadGrant, hold};
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
    /// The largest batch that holds no memory: it is small, or the reader has memory for it.
    pub(crate) unheld: usize,
    /// Whether the first batch, if it is larger, is given in one piece that is the reader's alone, although the newest blocks in memory have it.
    pub(crate) owns: bool,
    /// From then on it is answered with what it has, if that is anything.
    pub(crate) until: Instant,
}

/// Where a reader is when what it wants is not in memory, or it may not have it.
enum Hot {
    Done,
    /// This piece has to come from the disk.
    Cold(usize),
    /// The first batch is in this piece, and is to hold so many bytes.
    Lacks(usize, usize),
}

impl Shard {
    /// Reads whole batches from the one that holds `from` on. The first one has `grant`, if there is one; `waits` is called where it has to wait for
    /// memory.
    pub(crate) async fn read(
        self: &Arc<Self>,
        mut spec: ReadSpec,
        grant: Option<Box<dyn ReadGrant>>,
        waits: &mut (dyn FnMut() + Send),
    ) -> Result<Fetched, ReadError> {
        self.bound(&mut spec);
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
        let mut assembly = Assembly::new(&spec, grant);
        let hot = self.assemble_hot(&mut assembly, spec.partition, &plan.pieces)?;
        self.read_ahead();
        if plan.pieces.len() >= LONG {
            tokio::task::yield_now().await;
        }
        if !matches!(hot, Hot::Done) {
            // What is there at once is not to carry all that this takes.
            let read_on = self.read_on(&spec, plan.pieces, assembly, hot, waits);
            assembly = Box::pin(read_on).await?;
        }
        fetched.slices = assembly.finish();
        Ok(fetched)
    }

    /// Goes on where what is wanted is not in memory, or is to hold some.
    async fn read_on(
        self: &Arc<Self>,
        spec: &ReadSpec,
        pieces: Vec<Piece>,
        mut assembly: Assembly,
        mut hot: Hot,
        waits: &mut (dyn FnMut() + Send),
    ) -> Result<Assembly, ReadError> {
        let mut rest = &pieces[..];
        loop {
            let lacks = match hot {
                Hot::Done => return Ok(assembly),
                Hot::Lacks(at, bytes) => {
                    rest = &rest[at..];
                    bytes
                }
                Hot::Cold(at) => {
                    rest = &rest[at..];
                    let (shard, spec, pieces) = (self.clone(), *spec, rest.to_vec());
                    let cold = move || shard.assemble(assembly, &spec, &pieces);
                    let lacks;
                    (assembly, lacks) = tokio::task::spawn_blocking(cold).await.map_err(not_done)??;
                    let Some(bytes) = lacks else { return Ok(assembly) };
                    bytes
                }
            };
            // It has nothing yet.
            assembly.hold(self.hold(lacks, waits).await);
            hot = self.assemble_hot(&mut assembly, spec.partition, rest)?;
            self.read_ahead();
        }
    }

    /// Where nothing bounds what is read, nothing of it holds memory.
    fn bound(&self, spec: &mut ReadSpec) {
        if self.reads.memory.get().is_none() {
            spec.unheld = usize::MAX;
        }
    }

    async fn hold(&self, bytes: usize, waits: &mut (dyn FnMut() + Send)) -> Option<Box<dyn ReadGrant>> {
        let memory = self.reads.memory.get()?;
        hold(&**memory, bytes, waits).await
    }

    /// The same on a thread of its own, for the node itself: it does not wait for memory. Blocking.
    pub(crate) fn read_blocking(&self, spec: &ReadSpec) -> Result<Fetched, ReadError> {
        let mut spec = *spec;
        self.bound(&mut spec);
        let plan = self.plan_blocking(spec.partition, Plan::new(spec.from, spec.max_bytes))?;
        let mut assembly = Assembly::new(&spec, None);
        loop {
            let lacks;
            (assembly, lacks) = self.assemble(assembly, &spec, &plan.pieces)?;
            let Some(bytes) = lacks else { break };
            assembly.hold(self.reads.memory.get().map(|memory| memory.count(bytes)));
        }
        let (high_watermark, log_start) = (plan.high_watermark, plan.log_start);
        let slices = assembly.finish();
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

    /// Adds runs for as long as they are in memory.
    fn assemble_hot(
        &self,
        assembly: &mut Assembly,
        partition: PartitionId,
        pieces: &[Piece],
    ) -> Result<Hot, ReadError> {
        for (at, piece) in pieces.iter().enumerate() {
            match before_fragmented(assembly, piece) {
                None => {}
                Some(Next::Lacks(bytes)) => return Ok(Hot::Lacks(at, bytes)),
                Some(Next::Enough | Next::More) => return Ok(Hot::Done),
            }
            let got = match self.in_memory(piece) {
                Ok(Some(got)) => got,
                // What is corrupt here may be whole on the disk.
                Ok(None) | Err(ReadError::Corrupt) => return Ok(Hot::Cold(at)),
                // The read that begins with it says so.
                Err(_) if !assembly.is_empty() => return Ok(Hot::Done),
                Err(error) => return Err(self.damaged(partition, piece.run.base, error)),
            };
            match assembly.add(piece, got) {
                Ok(Next::More) => {}
                Ok(Next::Enough) => return Ok(Hot::Done),
                Ok(Next::Lacks(bytes)) => return Ok(Hot::Lacks(at, bytes)),
                Err(_) => return Ok(Hot::Cold(at)),
            }
        }
        Ok(Hot::Done)
    }

    /// Adds runs wherever they are, as long as there is time; gives how many bytes the first batch is to hold, if it has to. What is corrupt is an error
    /// only for the read that begins with it. Blocking.
    fn assemble(
        &self,
        mut assembly: Assembly,
        spec: &ReadSpec,
        pieces: &[Piece],
    ) -> Result<(Assembly, Option<usize>), ReadError> {
        let partition = spec.partition;
        for piece in pieces {
            if !assembly.is_empty() && Instant::now() >= spec.until {
                break;
            }
            let next = match before_fragmented(&assembly, piece) {
                Some(next) => Ok(next),
                None => self.with_bytes(partition, piece, |got| assembly.add(piece, got)),
            };
            match next {
                Ok(Next::More) => {}
                Ok(Next::Enough) => break,
                Ok(Next::Lacks(bytes)) => return Ok((assembly, Some(bytes))),
                Err(error) => {
                    let error = self.damaged(partition, assembly.next_from(piece.run.base), error);
                    return if assembly.is_empty() { Err(error) } else { Ok((assembly, None)) };
                }
            }
        }
        Ok((assembly, None))
    }
}

/// What is known of a batch in fragments before it is read, which copies it.
fn before_fragmented(assembly: &Assembly, piece: &Piece) -> Option<Next> {
    let len = piece.run.len as usize;
    match piece.is_fragmented() {
        false => None,
        true if !assembly.takes(len) => Some(Next::Enough),
        true => assembly.lacks(len, false),
    }
}
