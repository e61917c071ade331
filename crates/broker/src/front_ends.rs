//! What front ends write into projections of their own, and read there.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use sabir_base::panics::contain;
use sabir_base::wake::WakeBatch;
use sabir_journal::LARGEST_ENTRY;
use sabir_model::{Durability, FrontendNo, ShardFailure, ShardId};

use crate::answer::Waiter;
use crate::append::Append;
use crate::broker::Broker;
use crate::caller::Caller;
use crate::group::{Replier, Reply};
use crate::level::FormatLevel;
use crate::projection::{Leading, Maps, NAME_MAX, ProjectionFactory, View};
use crate::state::{EntryOutcome, FrontendAnswer, Outcome, ShardState};
use crate::traffic::TopicTraffic;

/// Bytes that an entry takes beside its command and its batches, at the most: for itself, and for each batch.
const ENTRY_BYTES: usize = 32 + NAME_MAX;
const BATCH_BYTES: usize = 64;

/// What a front end has its projection be told.
#[derive(Debug, Clone, Default)]
pub struct ProjectionEntry {
    /// What the projection's `apply` is given.
    pub command: Bytes,
    /// Batches that `apply` may append, all of them for partitions of the entry's shard. They are copied as they are pushed.
    pub batches: Vec<Append>,
    /// Whether `apply` is given a random number; else it is 0.
    pub seeded: bool,
    /// Whether the entry may use the space kept in reserve for what makes space, as deletions do.
    pub makes_space: bool,
    /// What the answer waits for; `None` for the node's default.
    pub durability: Option<Durability>,
}

impl ProjectionEntry {
    /// One that is a command and nothing else.
    pub fn new(command: impl Into<Bytes>) -> Self {
        Self { command: command.into(), ..Self::default() }
    }

    /// The most bytes that it takes in a block.
    pub(crate) fn bytes(&self) -> usize {
        let batches: usize =
            self.batches.iter().map(|batch| batch.bytes() + batch.facts_bytes() + BATCH_BYTES).sum();
        self.command.len() + batches + ENTRY_BYTES
    }
}

/// Why an entry was not taken; nothing is kept of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryRefused {
    /// The data directory may be opened by a version that knows no projections of front ends.
    #[error(
        "the data directory has format level {has}, and this takes level {needs}: raise data.format_level once the version before this \
         one is not needed any more"
    )]
    Level {
        /// What it has.
        has: FormatLevel,
        /// What it would have to have.
        needs: FormatLevel,
    },
    /// The broker was not opened with such a projection.
    #[error("there is no such projection")]
    UnknownProjection,
    /// The projection is another front end's, or the caller is none.
    #[error("the projection is another front end's")]
    OtherFrontend,
    /// There is no such shard.
    #[error("there is no such shard")]
    UnknownShard,
    /// A batch is for a partition of another shard than the entry's.
    #[error("a batch is for a partition of another shard")]
    OtherShard,
    /// The entry is larger than any may be.
    #[error("it would take {bytes} bytes of the journal, and may take {most}")]
    TooLarge {
        /// What it would take.
        bytes: usize,
        /// What it may take.
        most: usize,
    },
    /// As much as may be waits to be written: to be asked again when there is room.
    #[error("too much waits to be written")]
    Crowded,
    /// The shard takes no entries now.
    #[error(transparent)]
    Shard(#[from] ShardFailure),
}

/// A read that waits for an entry; it is given the projections as that left them, or why it is not applied.
type ReadBehind = Box<dyn FnOnce(Result<&ShardState, ShardFailure>, &mut WakeBatch) + Send>;

/// An entry under way, and the reads that come right behind it.
pub(crate) struct Written {
    progress: Mutex<EntryProgress>,
    /// Bytes of its batches, and what counts them.
    batches: Vec<(usize, Arc<TopicTraffic>)>,
}

struct EntryProgress {
    /// What became of it, once that is decided.
    decided: Option<Result<(), ShardFailure>>,
    reads: Vec<ReadBehind>,
    replier: Option<Replier<Result<Bytes, ShardFailure>>>,
}

impl Written {
    fn new(entry: &ProjectionEntry, replier: Replier<Result<Bytes, ShardFailure>>) -> Arc<Self> {
        let progress = EntryProgress { decided: None, reads: Vec::new(), replier: Some(replier) };
        let batches =
            entry.batches.iter().map(|batch| (batch.bytes(), batch.topic.traffic.clone())).collect();
        Arc::new(Self { progress: Mutex::new(progress), batches })
    }

    fn decide(&self, outcome: Result<(), ShardFailure>) -> Vec<ReadBehind> {
        let mut progress = self.progress.lock();
        progress.decided.get_or_insert(outcome);
        std::mem::take(&mut progress.reads)
    }

    /// It is applied, and this is what it left. The lock of the projections is held.
    pub(crate) fn applied(&self, state: &ShardState, wakes: &mut WakeBatch) {
        self.decide(Ok(())).into_iter().for_each(|read| read(Ok(state), wakes));
    }

    /// It is applied, or never will be.
    pub(crate) fn answer(&self, outcome: Outcome, wakes: &mut WakeBatch) {
        let answer: Result<FrontendAnswer, ShardFailure> = EntryOutcome::of(outcome);
        if let Err(failure) = &answer {
            self.decide(Err(*failure)).into_iter().for_each(|read| read(Err(*failure), wakes));
        }
        let bytes = answer.map(|answer| {
            self.count(&answer);
            answer.bytes
        });
        self.reply(bytes, wakes);
    }

    /// Counts what was appended of its batches.
    pub(crate) fn count(&self, answer: &FrontendAnswer) {
        let appended = self.batches.iter().zip(&answer.appended).filter(|(_, appended)| **appended);
        appended.for_each(|((bytes, traffic), _)| traffic.receive(*bytes));
    }

    /// Answers its writer, if that is not done yet.
    pub(crate) fn reply(&self, answer: Result<Bytes, ShardFailure>, wakes: &mut WakeBatch) {
        let replier = self.progress.lock().replier.take();
        replier.into_iter().for_each(|replier| replier.send(answer.clone(), wakes));
    }

    /// Whether its writer still waits for the answer.
    pub(crate) fn is_awaited(&self) -> bool {
        self.progress.lock().replier.as_ref().is_some_and(Replier::is_awaited)
    }

    /// Has a read come right behind the entry, after those that do already. Gives it back, with what became of the entry, if that is decided.
    fn follow(&self, read: ReadBehind) -> Result<(), (ReadBehind, Result<(), ShardFailure>)> {
        let mut progress = self.progress.lock();
        match progress.decided {
            Some(decided) => Err((read, decided)),
            None => {
                progress.reads.push(read);
                Ok(())
            }
        }
    }
}

/// An entry that was written, for what is to be read right [after](Broker::after) it. It is one that an earlier or a later call refers to as
/// well as it likes; clones are the same entry.
#[derive(Clone)]
pub struct EntryRef {
    shard: ShardId,
    written: Arc<Written>,
}

impl std::fmt::Debug for EntryRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EntryRef({})", self.shard)
    }
}

impl Broker {
    /// The number of a projection that the broker was opened with: what is written to it is written with that.
    ///
    /// # Errors
    /// [`EntryRefused::Level`], [`EntryRefused::UnknownProjection`].
    pub fn projection(&self, name: &str) -> Result<FrontendNo, EntryRefused> {
        let (has, needs) = (self.format_level(), FormatLevel::FRONT_ENDS);
        if has < needs {
            return Err(EntryRefused::Level { has, needs });
        }
        let known = self.inner.projections.iter().find(|(_, known)| *known == name);
        known.map(|(number, _)| *number).ok_or(EntryRefused::UnknownProjection)
    }

    /// Writes an entry that a front end's projection is told, behind all that was written to the shard before. What the projection answers
    /// comes when it is applied. Call [`flush`](Self::flush) when no more come in this turn, and await [`room`](Self::room) where there is
    /// none. A caller writes to the projections of its own front end; what a client may do there is that one's to judge.
    ///
    /// # Errors
    /// See [`EntryRefused`].
    pub fn write(
        &self,
        caller: &Caller,
        shard: ShardId,
        projection: FrontendNo,
        entry: &ProjectionEntry,
    ) -> Result<(EntryRef, Reply<Result<Bytes, ShardFailure>>), EntryRefused> {
        let known = self.inner.projections.iter().find(|(known, _)| *known == projection);
        let &(_, name) = known.ok_or(EntryRefused::UnknownProjection)?;
        caller.may_use_projection(name)?;
        let place = self.shard(shard).ok_or(EntryRefused::UnknownShard)?;
        if entry.batches.iter().any(|batch| batch.shard != shard) {
            return Err(EntryRefused::OtherShard);
        }
        if entry.bytes() > LARGEST_ENTRY {
            return Err(EntryRefused::TooLarge { bytes: entry.bytes(), most: LARGEST_ENTRY });
        }
        let (replier, reply) = Reply::pair();
        let written = Written::new(entry, replier);
        let seed = entry.seeded.then(random);
        place.write((projection, name), seed, entry, Waiter::Frontend(written.clone()))?;
        Ok((EntryRef { shard, written }, reply))
    }

    /// Has a listener told when this node leads a shard and when it does not any more, at once if it leads now. Nothing here keeps it: it is told
    /// for as long as something else does. It is a front end's own part, and none that a client asks for: no caller is named.
    pub fn lead_with(&self, shard: ShardId, part: &Arc<dyn Leading>) {
        if let Some(shard) = self.shard(shard) {
            shard.lead_with(Arc::downgrade(part));
        }
    }

    /// Whether a shard has room for what is written there; else a front end awaits [`room`](Self::room) before it writes more. It says nothing
    /// of what is stored, so that no caller is named.
    pub fn has_room(&self, shard: ShardId) -> bool {
        self.shard(shard).is_none_or(|shard| shard.has_room())
    }

    /// Reads right behind an entry: after it, and before whatever is written after this call. It is read at once if the entry is applied
    /// already, else on the thread that applies it; in both cases under the lock of the shard's projections: it only looks and copies.
    ///
    /// The answer's error is why the entry was not applied; what came before it may have been. A read that panics is
    /// [`ShardFailure::StorageError`]. The caller sees the projections of its own front end.
    pub fn after<T: Send + 'static>(
        &self,
        caller: &Caller,
        entry: &EntryRef,
        read: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Reply<Result<T, ShardFailure>> {
        let (replier, reply) = Reply::pair();
        let caller = caller.clone();
        let read: ReadBehind = Box::new(move |state, wakes| {
            replier.send(state.and_then(|state| look(&caller, state, read)), wakes);
        });
        if let Err((read, decided)) = entry.written.follow(read) {
            let mut wakes = WakeBatch::default();
            match (decided, self.shard(entry.shard)) {
                (Ok(()), Some(shard)) => read(Ok(&shard.state.read()), &mut wakes),
                (decided, _) => read(Err(decided.err().unwrap_or(ShardFailure::NotLeader)), &mut wakes),
            }
            wakes.deliver();
        }
        reply
    }

    /// Reads what is applied in a shard now, under the lock of its projections: it only looks and copies. What a caller has written and has
    /// no answer to may be missing there; see [`after`](Self::after). The caller sees the projections of its own front end.
    ///
    /// # Errors
    /// There is no such shard, or what it knows is not to be believed.
    pub fn look<T>(
        &self,
        caller: &Caller,
        shard: ShardId,
        read: impl FnOnce(&View<'_>) -> T,
    ) -> Result<T, EntryRefused> {
        let shard = self.shard(shard).ok_or(EntryRefused::UnknownShard)?;
        Ok(look(caller, &shard.state.read(), read)?)
    }
}

fn look<T>(
    caller: &Caller,
    state: &ShardState,
    read: impl FnOnce(&View<'_>) -> T,
) -> Result<T, ShardFailure> {
    if !state.is_whole() {
        return Err(ShardFailure::StorageError);
    }
    // It changes nothing, so that the projections are as they were.
    contain(|| read(&View { state, caller })).ok_or(ShardFailure::StorageError)
}

/// A number that no client can foretell, keyed by what the system gave the process at random.
fn random() -> u64 {
    static KEY: OnceLock<RandomState> = OnceLock::new();
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    KEY.get_or_init(RandomState::new).hash_one(COUNTER.fetch_add(1, Relaxed))
}

/// What is wrong with the projections that a broker is to be opened with.
pub(crate) fn check(factories: &[ProjectionFactory]) -> Result<(), String> {
    for (at, factory) in factories.iter().enumerate() {
        let name = factory.name;
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(format!("a projection called {name:?}: its name has 1 to {NAME_MAX} bytes"));
        }
        let made = contain(|| (factory.make)(&mut Maps::new(FrontendNo::NONE, None)).is_ok());
        if made != Some(true) {
            return Err(format!("the projection called {name:?} cannot be made"));
        }
        if factories[at + 1..].iter().any(|other| other.name == name) {
            return Err(format!("two projections called {name:?}"));
        }
    }
    Ok(())
}
