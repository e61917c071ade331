//! Opening a shard: the last checkpoint, and what the journal has beyond it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use sabir_base::buf::BufPool;
use sabir_base::clock::Clock;
use sabir_journal::disk::Disk;
use sabir_journal::pages::{PageError, PageStore};
use sabir_journal::{Journal, JournalError, JournalOptions, Recovered, Replicator, StartProgress};
use sabir_model::{Durability, NodeId, Sequence, ShardFailure, ShardId};
use tracing::{info, warn};

use super::Shard;
use super::append_path::AppendPath;
use super::apply_path::ApplyPath;
use super::checkpoint::Checkpointer;
use super::open::OpenBlocks;
use super::read_path::ReadPath;
use super::signal::Signal;
use super::tables::StoredTables;
use crate::disk_watch::FreeSpace;
use crate::mismatch::MismatchError;
use crate::options::StartError;
use crate::projection::ProjectionFactory;
use crate::state::{AppendCounters, ApplyError, ShardState};
use crate::stats::ShardMeters;

/// How often draining looks whether it is done.
const DRAIN_STEP: Duration = Duration::from_millis(1);

/// How shards run.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) node: NodeId,
    pub(crate) durability: Durability,
    pub(crate) open_bytes_max: usize,
    pub(crate) checkpoint_bytes: u64,
    pub(crate) checkpoint_entries: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) keep_free: u64,
    pub(crate) recycle: bool,
}

/// Makes the replicator of an opened journal.
pub(crate) type Replicate<'a> = &'a dyn Fn(Arc<Journal>) -> Result<Arc<dyn Replicator>, JournalError>;

/// What a shard is made of.
pub(crate) struct Parts<'a> {
    pub(crate) disk: Arc<dyn Disk>,
    /// `None` where none is there.
    pub(crate) pages: Option<Arc<dyn PageStore>>,
    /// Makes an empty one.
    pub(crate) make_pages: &'a dyn Fn() -> Result<Arc<dyn PageStore>, OpenError>,
    pub(crate) pool: Arc<BufPool>,
    pub(crate) journal: JournalOptions,
    /// Those of front ends.
    pub(crate) projections: Arc<[ProjectionFactory]>,
    pub(crate) replicate: Replicate<'a>,
}

/// Why a shard cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Pages(#[from] PageError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The same, of a journal whose folder is known.
    #[error("{}: {source}", .folder.display())]
    Damaged { folder: std::path::PathBuf, source: JournalError },
    /// The beginning of a journal is missing, or more, and there is no checkpoint.
    #[error("{source}")]
    NoCheckpoint {
        /// Whether there is a page store.
        store: bool,
        source: JournalError,
    },
    /// Files of a shard do not belong together.
    #[error(transparent)]
    Mismatch(Box<MismatchError>),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("its journal's folder: {0}")]
    Disk(#[source] sabir_journal::disk::DiskError),
    #[error("{path}: {source}")]
    Folder { path: std::path::PathBuf, source: std::io::Error },
    #[error("its signal could not be made: {0}")]
    Signal(#[source] std::io::Error),
    #[error("its thread could not be started: {0}")]
    Thread(#[source] std::io::Error),
}

impl OpenError {
    /// Why a start fails; what is wrong with a journal names its folder.
    pub(crate) fn of_shard(self, shard: ShardId, folder: &Path) -> StartError {
        let reason = match self {
            Self::Journal(source) => Self::Damaged { folder: folder.join("journal"), source },
            other => other,
        };
        StartError::Shard { shard: shard.0, reason: reason.into() }
    }
}

impl Shard {
    /// Opens a shard, as far as the journal and the page store have it. Blocking.
    pub(crate) fn open(
        id: ShardId,
        parts: Parts<'_>,
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, OpenError> {
        let found = parts.pages.is_some();
        let (mut state, (tables, local)) = match &parts.pages {
            Some(pages) => {
                let state = ShardState::restore(&**pages, parts.projections)?;
                let tables = StoredTables::load(&**pages, state.applied)?;
                (state, tables)
            }
            None => (ShardState::new(parts.projections), Default::default()),
        };
        let (checkpoint, known) = (state.applied, local.is_some());
        let tail_bytes = parts.journal.tail.bound();
        let progress = parts.journal.progress.clone();
        let (journal, recovered) =
            Journal::open(parts.disk.clone(), parts.pool.clone(), parts.journal, local).map_err(|error| {
                match error {
                    source @ JournalError::Gap { .. } if !known => {
                        OpenError::NoCheckpoint { store: found, source }
                    }
                    error => error.into(),
                }
            })?;
        // Not before the journal has been found whole: a start that is refused makes nothing.
        let pages = match parts.pages {
            Some(pages) => pages,
            None => {
                if recovered.last > Sequence::NONE {
                    warn!(shard = %id, last = %recovered.last, "there is no page store: it is made anew, out of the whole journal");
                }
                (parts.make_pages)()?
            }
        };
        let blocks = recovered.last.0.saturating_sub(checkpoint.0);
        progress.begin("", "replaying the blocks since the checkpoint", Some((0, blocks)));
        let replicator = (parts.replicate)(journal.clone())?;
        let signal = Signal::new().map_err(OpenError::Signal)?;
        replay(&journal, &mut state, &progress)?;
        report(id, &recovered, checkpoint, &state);
        let last_ms = state.time_ms;
        let replayed = std::mem::take(&mut state.counters);
        state.partitions.counters = AppendCounters::default();
        let mut open = OpenBlocks::new(parts.pool, tail_bytes, state.front_ends.numbers(), clock.clone());
        open.last_ms = last_ms;
        let shard = Arc::new(Self {
            id,
            journal,
            replicator,
            pages,
            free: FreeSpace::of(&*parts.disk),
            disk: parts.disk,
            clock,
            settings,
            clean_start: recovered.clean,
            appends: AppendPath::new(open, last_ms),
            applies: ApplyPath::new(signal, Checkpointer::new(tables, checkpoint, replayed)),
            reads: ReadPath::default(),
            state: RwLock::new(state),
            queues: Arc::default(),
            timers: Arc::default(),
            dead_letters: Arc::default(),
            stopped: AtomicBool::new(false),
            meters: ShardMeters::default(),
        });
        shard.listen().map_err(OpenError::Thread)?;
        Ok(shard)
    }

    /// From now on completions drive it.
    fn listen(self: &Arc<Self>) -> std::io::Result<()> {
        let raise = self.applies.signal.raiser();
        self.replicator.set_waker(Arc::new(move || raise.raise()));
        self.watch_inside()?;
        self.drive();
        Ok(())
    }

    /// Takes no more writes; those that were taken go on.
    pub(crate) fn close(&self) {
        self.appends.open.lock().refused = Some(ShardFailure::ShuttingDown);
        self.end_waiting(None, ShardFailure::ShuttingDown);
    }

    /// Waits until everything that was taken is applied. Blocking.
    pub(crate) fn drain(&self, until: Instant) {
        while !self.is_idle() && !self.is_stopped() && !self.is_stalled() && Instant::now() < until {
            self.submit();
            self.drive();
            std::thread::sleep(DRAIN_STEP);
        }
    }

    /// Leaves everything in order behind it: the next start has nothing to replay. Blocking.
    pub(crate) fn seal(&self) {
        if self.is_stopped() {
            return;
        }
        if let Err(error) = self.checkpoint() {
            warn!(shard = %self.id, %error, "no checkpoint at the end: the next start replays");
        }
        if let Err(error) = self.journal.shutdown() {
            warn!(shard = %self.id, %error, "the journal could not be sealed");
        }
    }
}

fn replay(journal: &Journal, state: &mut ShardState, progress: &StartProgress) -> Result<(), OpenError> {
    journal.replay(state.applied, &mut |block| {
        let locate = |sequence| journal.segment_of(sequence);
        state.apply_block(block.sequence, block.term, &block.content, &locate, &mut |_, _, _| {})?;
        progress.advance();
        Ok(())
    })
}

fn report(shard: ShardId, recovered: &Recovered, checkpoint: sabir_model::Sequence, state: &ShardState) {
    if let Some(torn) = &recovered.torn {
        info!(%shard, ?torn, "the last write was cut short by a crash; nothing shows that it was acknowledged");
    }
    info!(%shard, %checkpoint, last = %recovered.last, applied = %state.applied, clean = recovered.clean, "recovered");
}
